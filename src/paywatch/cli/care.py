"""Commands that look after the data: backfill, recover, audit."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import typer

from paywatch.cli.arguments import LedgerOrTime, parse_account, parse_ledger_or_time
from paywatch.cli.output import emit_json, say, show_fields, show_table
from paywatch.cli.progress import ShownPages
from paywatch.cli.running import Json, load_settings, open_house, run
from paywatch.config import Settings
from paywatch.domain.ledger import Position
from paywatch.errors import HorizonUnavailable, InvalidInput, NotFound
from paywatch.service.backfill import BEHIND, Backfill, BackfillReport
from paywatch.service.recover import RecoveryReport
from paywatch.store import merchants
from paywatch.store.invariants import INVARIANTS, Violation
from paywatch.store.merchants import WatchedAccount
from paywatch.wiring import House


def backfill(
    *,
    accounts: Annotated[
        list[str] | None,
        typer.Option("--account", help="Only this account, G…; may be repeated."),
    ] = None,
    begin: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="LEDGER|TIME",
            help="The first ledger, or a time such as 2026-08-01T12:00Z; "
            "where watching began if absent.",
        ),
    ] = None,
    end: Annotated[
        str | None,
        typer.Option("--to", metavar="LEDGER|TIME", help="The last; the latest ledger if absent."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Read a range of the past again and settle what had been missed.

    Safe beside the running daemon and safe to repeat: what is known already changes nothing.
    Killed in the middle, it goes on from there when it is started again.
    """
    wanted = _Range(
        parse_ledger_or_time(begin, "from") if begin else None,
        parse_ledger_or_time(end, "to") if end else None,
    )
    only = [parse_account(account) for account in accounts or ()]
    reports = run(_backfill(load_settings(), only, wanted))
    documents = [_backfill_document(report) for report in reports]
    found = sum(report.found for report in reports)
    if as_json:
        emit_json({"backfills": documents, "found": found})
        return
    columns = ("account", "from ledger", "to ledger", "operations read", "credits found")
    show_table("backfill", columns, [list(one.values()) for one in documents])
    say("Nothing had been missed." if not found else f"{found} credits had been missed; settled.")


class _Range:
    """What was asked for, resolved against a Horizon only when needed."""

    def __init__(self, begin: LedgerOrTime | None, end: LedgerOrTime | None) -> None:
        self._begin = begin
        self._end = end

    async def after(self, house: House, account: WatchedAccount) -> Position:
        """The position before the first operation to read."""
        if self._begin is None:
            return account.start_position
        if self._begin.at is not None:
            return await house.polite.position_at(self._begin.at)
        return Position.after_ledger((self._begin.ledger or 1) - 1)

    async def upto(self, house: House) -> Position:
        """The position of the last operation to read."""
        tip = await house.source.tip()
        if self._end is None:
            return tip
        if self._end.at is not None:
            return min(tip, await house.polite.position_at(self._end.at))
        return min(tip, Position.after_ledger(self._end.ledger or 1))


async def _backfill(
    settings: Settings, accounts: Sequence[str], wanted: _Range
) -> list[BackfillReport]:
    async with open_house(settings) as house:
        watched = await _watched(house, accounts)
        upto = await wanted.upto(house)
        spans = [(one.account, await wanted.after(house, one)) for one in watched]
        if any(after > upto for _, after in spans):
            raise InvalidInput("from", f"is after the last ledger to read, {upto.ledger}")
        polite = house.polite
        with ShownPages(polite, spans, upto, lambda: polite.budget.left) as pages:
            return await _each(house.backfill(pages), spans, upto)


async def _each(
    backfill: Backfill, spans: Sequence[tuple[str, Position]], upto: Position
) -> list[BackfillReport]:
    """Read all accounts, also after one whose end Horizon does not show yet."""
    reports: list[BackfillReport] = []
    behind: HorizonUnavailable | None = None
    for account, after in spans:
        try:
            reports.append(await backfill.run_range(account, after, upto))
        except HorizonUnavailable as error:
            if error.reason != BEHIND:
                raise
            behind = error
    if behind is not None:
        raise behind
    return reports


async def _watched(house: House, accounts: Sequence[str]) -> list[WatchedAccount]:
    async with house.engine.connect() as conn:
        watched = await merchants.read_accounts(conn)
    unknown = set(accounts) - {one.account for one in watched}
    if unknown:
        raise NotFound(f"{min(unknown)} is not watched: register it by `paywatch merchant create`")
    return [one for one in watched if not accounts or one.account in accounts]


def _backfill_document(report: BackfillReport) -> dict[str, object]:
    return {
        "account": report.account,
        "from_ledger": report.began_at.ledger,
        "to_ledger": report.ended_at.ledger,
        "read": report.read,
        "found": report.found,
    }


def recover(*, as_json: Json = False) -> None:
    """Do every repair once: look on Horizon for what was missed, free leases, expire, check.

    The daemon does the same every few minutes. Exits with 1 if something is left that needs a
    person.
    """
    report = run(_recover(load_settings()))
    if as_json:
        emit_json(report.document())
    else:
        counts = {k: v for k, v in report.document().items() if isinstance(v, int)}
        show_fields(counts)
        if report.unsearched:
            say(f"Horizon could not be asked about {', '.join(report.unsearched)}: repeat later.")
        _show_violations(report.violations)
    if not report.healthy:
        raise typer.Exit(1)


async def _recover(settings: Settings) -> RecoveryReport:
    async with open_house(settings) as house:
        return await house.recovery.run_once()


def audit(*, as_json: Json = False) -> None:
    """Check what must always hold, of everything in the database; repairs nothing.

    Exits with 1 if an invariant is broken.
    """
    violations, checked_at = run(_audit(load_settings()))
    if as_json:
        emit_json(
            {
                "healthy": not violations,
                "checked_at": checked_at.isoformat(),
                "invariants": list(INVARIANTS),
                "violations": [
                    {"invariant": v.invariant, "subject": v.subject, "problem": v.problem}
                    for v in violations
                ],
            }
        )
    elif violations:
        _show_violations(violations)
        say(
            "Run `paywatch recover`; what stays broken then is a bug: keep the database and report."
        )
    else:
        say(f"All {len(INVARIANTS)} invariants hold.")
    if violations:
        raise typer.Exit(1)


async def _audit(settings: Settings) -> tuple[tuple[Violation, ...], datetime]:
    async with open_house(settings) as house:
        return await house.recovery.check_invariants(None), house.clock()


def _show_violations(violations: Sequence[Violation]) -> None:
    if violations:
        rows = [(v.invariant, v.subject, v.problem) for v in violations]
        show_table("broken invariants", ("invariant", "subject", "problem"), rows)
