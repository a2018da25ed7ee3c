"""The command that explains what captured records hold."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from paywatch.cli.arguments import parse_account
from paywatch.cli.output import emit_json, say, short, show_table
from paywatch.cli.running import Json, load_settings, run
from paywatch.domain.ledger import format_stroops
from paywatch.errors import InvalidInput, RecordError
from paywatch.service.explain import Explained
from paywatch.wiring import MAX_CAPTURE_BYTES, Explanation, explain_capture


def explain(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE|-",
            help="A record, a list, a page (JSON) or a captured event stream; - reads stdin.",
        ),
    ],
    *,
    accounts: Annotated[
        list[str] | None,
        typer.Option("--account", help="Only credits to this G…; may be repeated. Else all."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say which credits captured Horizon records hold, and what would be done with each.

    Writes nothing. The sessions are looked up if PAYWATCH_DATABASE_URL is set or an embedded
    database exists; no database is made for it. Capture records with
    `curl 'https://HORIZON/accounts/G…/payments?join=transactions'`.
    """
    wanted = frozenset(map(parse_account, accounts)) if accounts else None
    explanation = run(explain_capture(load_settings(), _read(file), wanted))
    if as_json:
        emit_json(
            {
                "database": {
                    "consulted": explanation.consulted,
                    "why_not": None if explanation.consulted else explanation.database,
                },
                "credits": sum(len(one.credits) for one in explanation.records),
                "records": [one.document() for one in explanation.records],
            }
        )
    else:
        _show(explanation)


def _read(file: str) -> bytes:
    """Read at most one byte more than is explained."""
    try:
        if file == "-":
            raw = sys.stdin.buffer.read(MAX_CAPTURE_BYTES + 1)
        else:
            with Path(file).open("rb") as stream:
                raw = stream.read(MAX_CAPTURE_BYTES + 1)
    except OSError as error:
        raise InvalidInput("file", f"{file} cannot be read: {error.strerror}") from error
    if len(raw) > MAX_CAPTURE_BYTES:
        raise RecordError(
            f"{file}: more than {MAX_CAPTURE_BYTES >> 20} MiB; split it and explain the parts"
        )
    return raw


def _show(explanation: Explanation) -> None:
    columns = ("operation", "type", "account", "amount", "asset", "memo", "what is done with it")
    rows = [row for one in explanation.records for row in _rows(one)]
    show_table("records", columns, rows)
    credits_ = sum(len(one.credits) for one in explanation.records)
    say(f"{len(explanation.records)} records, {credits_} credits.")
    if not explanation.consulted:
        say(f"The sessions were not looked up: {explanation.database}.")


def _rows(one: Explained) -> list[tuple[object, ...]]:
    place = (one.raw.get("paging_token"), one.raw.get("type"))
    if not one.credits:
        why = f"quarantined: {one.quarantined}" if one.quarantined else f"nothing: {one.nothing}"
        return [(*place, "", "", "", "", why)]
    return [
        (
            *place,
            short(credit.account) + (f" ({credit.muxed_id})" if credit.muxed_id else ""),
            format_stroops(credit.amount),
            credit.asset.code + (f":{short(credit.asset.issuer)}" if credit.asset.issuer else ""),
            f"{credit.memo.type} {credit.memo}",
            f"{verdict.does}: {verdict.reason}"
            + (f" (session {verdict.session_id})" if verdict.session_id else ""),
        )
        for credit, verdict in one.credits
    ]
