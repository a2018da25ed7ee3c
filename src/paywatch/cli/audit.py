"""The command that audits: the database against what must always hold, and against Horizon."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Annotated, Any

import typer

from paywatch.cli.arguments import parse_account
from paywatch.cli.output import emit_json, say, short, show_fields, show_table
from paywatch.cli.progress import ShownPages
from paywatch.cli.running import Json, load_settings, open_house, run
from paywatch.cli.span import Span, too_late
from paywatch.config import Settings
from paywatch.errors import InvalidInput
from paywatch.service.audit import Reading
from paywatch.service.audit_report import AuditReport
from paywatch.store.invariants import INVARIANTS, Violation
from paywatch.wiring import House


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What was asked for; without a beginning, Horizon is not asked."""

    span: Span
    accounts: Sequence[str]
    settle: bool


@dataclass(frozen=True, slots=True)
class _Audited:
    """What came out; `horizon` is None if it was not asked."""

    violations: tuple[Violation, ...]
    checked_at: datetime
    horizon: AuditReport | None = None
    readings: Sequence[Reading] = ()

    @property
    def is_clean(self) -> bool:
        found = self.horizon
        return not self.violations and (found is None or (found.healthy and not found.missing))


def audit(
    *,
    begin: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="LEDGER|TIME",
            help="Compare with Horizon, too: from this ledger on, or from a time such as"
            " 2026-08-01T12:00Z.",
        ),
    ] = None,
    end: Annotated[
        str | None,
        typer.Option(
            "--to", metavar="LEDGER|TIME", help="The last; as far as the streams are if absent."
        ),
    ] = None,
    accounts: Annotated[
        list[str] | None,
        typer.Option("--account", help="Compare only this account, G…; may be repeated."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Do not settle what is missing; only say it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check what must always hold, of everything in the database, however old.

    `paywatch recover` and the daemon check what changed in the last seven days. This alone repairs
    nothing; with --from, it also reads the ledgers of a span from Horizon again, behind the
    streams, and compares them with the credits, one for one. What is missing is settled as ever;
    what the ledger does not show, or not so, is told and left as it is.

    Exits with 1 if an invariant is broken, or the two disagreed.
    """
    span = Span.parse(begin, end)
    if span.begin is None and (span.end or accounts or dry_run):
        raise InvalidInput("from", "must be given to compare with Horizon")
    only = [parse_account(account) for account in accounts or ()]
    audited = run(_audit(load_settings(), _Wanted(span, only, settle=not dry_run)))
    if as_json:
        emit_json(_document(audited))
    else:
        _show(audited)
    if not audited.is_clean:
        raise typer.Exit(1)


async def _audit(settings: Settings, wanted: _Wanted) -> _Audited:
    async with open_house(settings) as house:
        found, readings = await _compare(house, wanted) if wanted.span.begin else (None, [])
        violations = await house.recovery.check_invariants(None)
        return _Audited(violations, house.clock(), found, readings)


async def _compare(house: House, wanted: _Wanted) -> tuple[AuditReport, list[Reading]]:
    upto = await wanted.span.upto(house)
    after = await wanted.span.after(house)
    if after is None or after > upto:
        raise too_late(upto)
    readings = await house.auditor().readings(after, upto, wanted.accounts)
    shown = [(reading.label, reading.after) for reading in readings]
    polite = house.polite
    with ShownPages(polite, shown, upto, lambda: polite.requests_left) as pages:
        report = await house.auditor(pages).audit(readings, settle=wanted.settle)
    return report, readings


def _document(audited: _Audited) -> dict[str, Any]:
    return {
        "healthy": audited.is_clean,
        "checked_at": audited.checked_at.isoformat(),
        "invariants": list(INVARIANTS),
        "violations": [asdict(violation) for violation in audited.violations],
        "horizon": None if audited.horizon is None else _comparison(audited.horizon, audited),
    }


def _comparison(found: AuditReport, audited: _Audited) -> dict[str, Any]:
    spans = [
        {"of": r.label, "from_ledger": r.after.ledger + 1, "to_ledger": r.upto.ledger}
        for r in audited.readings
    ]
    return found.document() | {"spans": spans}


def _show(audited: _Audited) -> None:
    if audited.horizon is not None:
        _show_comparison(audited.horizon, audited.readings)
    show_violations(audited.violations)
    if audited.violations:
        say(
            "Run `paywatch recover`; what stays broken then is a bug: keep the database and report."
        )
    else:
        say(f"All {len(INVARIANTS)} invariants hold.")


def _show_comparison(found: AuditReport, readings: Sequence[Reading]) -> None:
    if not readings:
        say("Nothing was compared: no stream has read these ledgers yet.")
    show_fields({k: v for k, v in found.document().items() if isinstance(v, int)})
    if found.findings:
        rows = [
            (f.kind, f.account and short(f.account), f.operation_id, f.change_index, f.problem)
            for f in found.findings
        ]
        columns = ("kind", "account", "operation", "change", "problem")
        show_table("where the ledger and the credits disagree", columns, rows)
    for label, why in found.unaudited.items():
        say(f"Not compared to the end: {label}: {why}")
    if found.mismatches:
        say(
            "What is extra or different is left as it is: look at each operation on another"
            " Horizon, and do not hand out goods for it until it is explained."
        )


def show_violations(violations: Sequence[Violation]) -> None:
    """Print broken invariants, if there are any."""
    if violations:
        rows = [(v.invariant, v.subject, v.problem) for v in violations]
        show_table("broken invariants", ("invariant", "subject", "problem"), rows)
