"""Commands about what merchants are told: delivery list and resend, endpoint enable."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer
from sqlalchemy import Row

from paywatch.cli.arguments import parse_id
from paywatch.cli.output import emit_json, say, show_table
from paywatch.cli.running import Json, load_settings, open_house, run
from paywatch.domain.events import iso

delivery = typer.Typer(
    no_args_is_help=True, help="See what was delivered, and send dead letters again."
)
endpoint = typer.Typer(no_args_is_help=True, help="Where merchants are told.")


class State(StrEnum):
    """Where a delivery stands."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"


@delivery.command("list")
def list_deliveries(
    *,
    state: Annotated[State, typer.Option(help="Only deliveries of this state.")] = State.DEAD,
    limit: Annotated[
        int, typer.Option(help="At most so many, the latest first.", min=1, max=10_000)
    ] = 100,
    as_json: Json = False,
) -> None:
    """List deliveries: without an option, the dead letters."""

    async def read() -> Sequence[Row[Any]]:
        async with open_house(load_settings()) as house:
            return await house.letters.read_list(state, limit)

    documents = [_document(row) for row in run(read())]
    if as_json:
        emit_json({"deliveries": documents})
    elif not documents:
        say(f"There is no delivery {state}.")
    else:
        names = ("event_id", "type", "attempts", "dead_reason")
        columns = ("event", "type", "attempts", "why")
        show_table("deliveries", columns, [[one[name] for name in names] for one in documents])


@delivery.command("resend")
def resend(
    event_id: Annotated[str, typer.Argument(metavar="EVENT_ID", help="From `delivery list`.")],
    *,
    as_json: Json = False,
) -> None:
    """Send a dead letter again, by the daemon that dispatches: same body, same webhook-id.

    Its attempts go on to be counted. If all ten were made, this is one more; else the schedule
    goes on.
    """
    wanted = parse_id(event_id, "event_id")

    async def send() -> Row[Any]:
        async with open_house(load_settings()) as house:
            return await house.letters.resend(wanted)

    row = run(send())
    if as_json:
        emit_json(_document(row))
    else:
        say(f"Due now, by attempt {row.attempts_made + 1}, to {row.url}.")


@endpoint.command("enable")
def enable(
    merchant_id: Annotated[str, typer.Argument(metavar="MERCHANT_ID", help="The merchant's id.")],
    *,
    as_json: Json = False,
) -> None:
    """Enable a merchant's endpoint again, after its 410.

    What became a dead letter meanwhile is sent again by `delivery resend`.
    """
    wanted = parse_id(merchant_id, "merchant_id")

    async def change() -> Row[Any]:
        async with open_house(load_settings()) as house:
            return await house.letters.enable_endpoint(wanted)

    row = run(change())
    if as_json:
        document = {"endpoint_id": str(row.id), "webhook_url": row.url, "was": row.disabled_reason}
        emit_json(document)
    elif row.disabled_reason is None:
        say(f"{row.url} was not disabled.")
    else:
        say(f"{row.url} is enabled; it was disabled: {row.disabled_reason}.")


def _document(row: Row[Any]) -> dict[str, Any]:
    return {
        "event_id": str(row.event_id),
        "type": row.type,
        "merchant_id": str(row.merchant_id),
        "state": row.state,
        "attempts": row.attempts_made,
        "due_at": iso(row.due_at),
        "ended_at": row.ended_at and iso(row.ended_at),
        "dead_reason": row.dead_reason,
    }
