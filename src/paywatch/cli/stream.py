"""Commands about the streams: where they stand, and an operator's word where they may not go on."""

from datetime import timedelta
from typing import Annotated

import typer

from paywatch.cli.arguments import parse_account
from paywatch.cli.output import emit_json, say, show_fields, show_table
from paywatch.cli.running import Json, load_settings, open_house, run
from paywatch.config import Settings
from paywatch.errors import InvalidInput
from paywatch.service.gaps import MissingRange
from paywatch.service.histories import Begun, Reset
from paywatch.service.standing import Standings, read_standings
from paywatch.store.cursors import live_stream

stream = typer.Typer(
    no_args_is_help=True,
    help="See where each stream stands, and say what to do where it may not go on by itself.",
)

Yes = Annotated[
    bool, typer.Option("--yes", help="Do it; without this it is only shown what would be done.")
]


@stream.command("list")
def list_streams(*, as_json: Json = False) -> None:
    """List every stream: how far it has been read, and whether Horizon can go on from there."""
    standings = run(_standings(load_settings()))
    if as_json:
        emit_json(standings.document())
        return
    rows = [
        (
            standing.cursor.stream,
            standing.cursor.position.ledger,
            standing.cursor.read_through_at,
            standing.cursor.epoch,
            standing.can_go_on,
        )
        for standing in standings.streams
    ]
    title = f"streams of history {standings.history}"
    show_table(title, ("stream", "ledger", "read through", "epoch", "can go on"), rows)
    for standing in standings.streams:
        if standing.why:
            say(f"{standing.cursor.stream}: {standing.why}; {standing.remedy}".rstrip("; "))
    for gap in standings.gaps:
        span = f"after ledger {gap.after.ledger} to ledger {gap.upto.ledger}"
        say(f"{gap.stream}, history {gap.history}: given up {span} at {gap.accepted_at}")


async def _standings(settings: Settings) -> Standings:
    async with open_house(settings) as house:
        return await read_standings(house.engine, house.source)


@stream.command("accept-gap")
def accept_gap(
    name: Annotated[
        str | None, typer.Argument(metavar="STREAM", help="As `stream list` names it.")
    ] = None,
    *,
    account: Annotated[
        str | None, typer.Option(help="Instead: the account whose live stream it is, G….")
    ] = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Give up ledgers that no Horizon keeps any more: what was paid in them is never seen.

    Try a Horizon with longer history first. This shows what would be lost; with --yes the stream
    goes on behind it. A backfill afterwards, from a Horizon that has these ledgers, still finds
    everything.
    """
    if (name is None) == (account is None):
        raise InvalidInput("stream", "give its name or --account, one of the two")
    wanted = name or live_stream(parse_account(account or ""))
    missing = run(_accept_gap(load_settings(), wanted, accepted=yes))
    if as_json:
        emit_json(missing.document() | {"accepted": yes})
    else:
        _show_missing(missing)
    if not yes:
        raise InvalidInput("yes", "nothing was given up; repeat with --yes to accept the loss")
    if not as_json:
        say("Given up. The daemon goes on behind it within a minute.")


async def _accept_gap(settings: Settings, wanted: str, *, accepted: bool) -> MissingRange:
    async with open_house(settings) as house:
        missing = await house.gaps.find(wanted)
        if accepted:
            await house.gaps.accept(missing)
        return missing


def _show_missing(missing: MissingRange) -> None:
    show_fields(
        {
            "stream": missing.cursor.stream,
            "after_ledger": missing.cursor.position.ledger,
            "to_ledger": missing.upto.ledger,
            "ledgers": missing.ledgers,
            "about": timedelta(seconds=round(missing.about.total_seconds())),
            "open_sessions": missing.session_count,
        }
    )
    if missing.sessions:
        title = f"open sessions that may have been paid in it, {len(missing.sessions)} of them"
        show_table(title, ("id", "reference"), missing.sessions)


@stream.command("reset")
def reset(*, yes: Yes = False, as_json: Json = False) -> None:
    """Go on with the new history of a test network that was reset.

    For all streams at once. What was settled stays; every stream reads from the beginning of the
    new history, so that nothing paid since is missed, and open sessions can be paid in it. Refused
    while Horizon serves the history that was read before.
    """
    found, begun = run(_reset(load_settings(), confirmed=yes))
    document = {
        "history": found.history.number,
        "from_ledger": found.start.ledger + 1,
        "why": found.why,
        "begun": begun is not None,
        "streams": list(begun.streams) if begun else None,
        "forgotten_backfills": list(begun.forgotten) if begun else None,
    }
    if as_json:
        emit_json(document)
    else:
        show_fields({name: document[name] for name in ("why", "history", "from_ledger")})
    if begun is None:
        raise InvalidInput("yes", "nothing was begun; repeat with --yes if the network was reset")
    if not as_json:
        say(f"{len(begun.streams)} streams begin anew; the daemon reads them within a minute.")
        if begun.forgotten:
            say(f"{len(begun.forgotten)} backfills of the old history were forgotten.")


async def _reset(settings: Settings, *, confirmed: bool) -> tuple[Reset, Begun | None]:
    async with open_house(settings) as house:
        found = await house.histories.find_reset()
        return found, await house.histories.begin(found) if confirmed else None
