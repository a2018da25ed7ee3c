"""Commands that look after the data: backfill, recover."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated

import typer

from paywatch.cli.arguments import parse_account
from paywatch.cli.audit import show_violations
from paywatch.cli.output import emit_json, say, show_fields, show_table
from paywatch.cli.progress import ShownPages
from paywatch.cli.running import Json, load_settings, open_house, run
from paywatch.cli.span import Span, too_late
from paywatch.config import Settings
from paywatch.domain.ledger import Position
from paywatch.errors import HorizonUnavailable, NotFound
from paywatch.service.backfill import BEHIND, Backfill, BackfillReport
from paywatch.service.recover import RecoveryReport
from paywatch.store import merchants
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
    wanted = Span.parse(begin, end)
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


async def _backfill(
    settings: Settings, accounts: Sequence[str], wanted: Span
) -> list[BackfillReport]:
    async with open_house(settings) as house:
        watched = await _watched(house, accounts)
        upto = await wanted.upto(house)
        begin = await wanted.after(house)
        spans = [(one.account, one.start_position if begin is None else begin) for one in watched]
        if any(after > upto for _, after in spans):
            raise too_late(upto)
        polite = house.polite
        with ShownPages(polite, spans, upto, lambda: polite.requests_left) as pages:
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

    What changed in the last seven days is looked at; `paywatch audit` checks everything. The daemon
    does the same every few minutes. Exits with 1 if something is left that needs a person.
    """
    report = run(_recover(load_settings()))
    if as_json:
        emit_json(report.document())
    else:
        counts = {k: v for k, v in report.document().items() if isinstance(v, int)}
        show_fields(counts)
        if report.unsearched:
            say(f"Horizon could not be asked about {', '.join(report.unsearched)}: repeat later.")
        show_violations(report.violations)
    if not report.healthy:
        raise typer.Exit(1)


async def _recover(settings: Settings) -> RecoveryReport:
    async with open_house(settings) as house:
        with suppress(HorizonUnavailable):  # most repairs do not need it; the others say so
            await house.source.check_network()
        return await house.recovery.run_once()
