"""Commands of a merchant's side: merchant create, session create, show, announce and list."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any
from uuid import UUID

import typer

from paywatch.cli.arguments import parse_duration, parse_id, parse_percent
from paywatch.cli.output import emit_json, say, show_fields, show_table
from paywatch.cli.running import Json, load_settings, open_house, run
from paywatch.config import Settings
from paywatch.domain.announcement import TxState, parse_tx_hash
from paywatch.domain.checkout import CheckoutSession, SessionStatus
from paywatch.domain.ledger import MemoType
from paywatch.domain.policy import Policy
from paywatch.errors import InvalidInput
from paywatch.service.announce import Announced
from paywatch.service.checkout import NewMerchant, SessionRequest
from paywatch.service.documents import (
    announced_document,
    session_document,
    session_view_document,
)
from paywatch.service.envelopes import SignedTx, read_envelope
from paywatch.store.checkout import SessionView

merchant = typer.Typer(no_args_is_help=True, help="Register who sells, and where they are told.")
session = typer.Typer(
    no_args_is_help=True, help="Open checkout sessions (one expected payment each) and read them."
)

_MOST_LISTED = 10_000


@merchant.command("create")
def create_merchant(
    *,
    name: Annotated[str, typer.Option(help="What the merchant is called.")],
    account: Annotated[
        str, typer.Option(help="The Stellar account that is paid, G…; watched from now on.")
    ],
    webhook_url: Annotated[
        str | None,
        typer.Option(help="Where events are POSTed: https:// and a public host."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Register a merchant and watch their account from the ledger's present tip on.

    The webhook secret is shown once: give it to the merchant's verifier.
    """
    made = run(_create_merchant(load_settings(), name, account, webhook_url))
    document = {
        "merchant_id": str(made.merchant_id),
        "name": made.name,
        "account": made.account,
        "start_ledger": made.start_position.ledger,
        "start_position": str(made.start_position),
        "endpoint_id": made.endpoint_id and str(made.endpoint_id),
        "webhook_url": made.webhook_url,
        "webhook_secret": made.webhook_secret,
    }
    if as_json:
        emit_json(document)
        return
    show_fields(document)
    if made.webhook_secret:
        say("", "The webhook secret is not shown again: store it now.")


async def _create_merchant(
    settings: Settings, name: str, account: str, webhook_url: str | None
) -> NewMerchant:
    async with open_house(settings) as house:
        return await house.checkout.create_merchant(name, account, webhook_url)


@merchant.command("policy")
def policy(
    merchant_id: Annotated[str, typer.Argument(metavar="ID", help="The merchant's id.")],
    *,
    tolerance: Annotated[
        str | None,
        typer.Option(help="How much may be missing of an amount, in percent: 0.5; 0 is nothing."),
    ] = None,
    late: Annotated[
        str | None,
        typer.Option(help="hold what comes after the deadline, or accept it for so long: 24h."),
    ] = None,
    text_for_id: Annotated[
        bool | None,
        typer.Option(help="Whether an id memo's digits may come as a text memo."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what a merchant tolerates, or change it for the sessions opened from now on."""
    wanted = parse_id(merchant_id, "merchant")
    changes: dict[str, Any] = {}
    if tolerance is not None:
        changes["tolerance_bps"] = parse_percent(tolerance, "tolerance")
    if late is not None:
        changes["late_grace"] = None if late == "hold" else parse_duration(late, "late")
    if text_for_id is not None:
        changes["text_for_id"] = text_for_id
    found = run(_policy(load_settings(), wanted, changes))
    grace = found.late_grace
    document = {
        "merchant_id": str(wanted),
        "tolerance_percent": f"{found.tolerance_bps / 100:g}",
        "late": "hold" if grace is None else "accept",
        "late_grace_s": None if grace is None else int(grace.total_seconds()),
        "text_for_id": found.text_for_id,
    }
    if as_json:
        emit_json(document)
    else:
        show_fields(document)


async def _policy(settings: Settings, merchant_id: UUID, changes: dict[str, Any]) -> Policy:
    async with open_house(settings) as house:
        if not changes:
            return await house.checkout.read_policy(merchant_id)
        return await house.checkout.change_policy(
            merchant_id, lambda policy: replace(policy, **changes)
        )


@session.command("create")
def create_session(
    *,
    merchant_id: Annotated[
        str, typer.Option("--merchant", help="The merchant's id, from `merchant create`.")
    ],
    amount: Annotated[str, typer.Option(help="What is asked, with up to 7 decimals: 12.5")],
    asset: Annotated[str, typer.Option(help="native (lumens) or CODE:ISSUER.")],
    memo_type: Annotated[
        str, typer.Option(help="The kind of memo the payer gives: id, text or hash.")
    ] = MemoType.ID,
    memo: Annotated[
        str | None,
        typer.Option(help="A memo of your own (hash: 64 hex digits); chosen at random if absent."),
    ] = None,
    expires_in: Annotated[
        str, typer.Option(help="How long it can be paid: 90s, 30m, 2h, 1d.")
    ] = "30m",
    reference: Annotated[
        str | None, typer.Option(help="Your order number; comes back in events.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Open a checkout session: how much, of what, by when, and how to name it in the payment."""
    request = SessionRequest(
        merchant_id=parse_id(merchant_id, "merchant"),
        amount=amount,
        asset=asset,
        memo_type=memo_type,
        memo=memo,
        expires_in=parse_duration(expires_in),
        reference=reference,
    )
    settings = load_settings()
    made = run(_create_session(settings, request))
    document = session_document(made, settings.network_passphrase)
    if as_json:
        emit_json(document)
        return
    show_fields(document)
    say("", "Pay to the account with this memo, or to the muxed account without one.")


async def _create_session(settings: Settings, request: SessionRequest) -> CheckoutSession:
    async with open_house(settings) as house:
        return await house.checkout.create_session(request)


@session.command("show")
def show_session(
    session_id: Annotated[str, typer.Argument(metavar="ID", help="The session's id.")],
    *,
    as_json: Json = False,
) -> None:
    """Show a session with its payments, credits and events."""
    wanted = parse_id(session_id, "session")
    settings = load_settings()

    async def read() -> SessionView:
        async with open_house(settings) as house:
            return await house.checkout.read_session(wanted)

    document = session_view_document(run(read()), settings.network_passphrase)
    if as_json:
        emit_json(document)
    else:
        _show_view(document)


def _show_view(document: dict[str, Any]) -> None:
    lists = {name: document[name] for name in ("payments", "credits", "events")}
    show_fields({name: value for name, value in document.items() if name not in lists})
    for row in lists["events"]:
        delivery = row.pop("delivery") or {}
        row |= {"delivery": delivery.get("state"), "attempts": delivery.get("attempts")}
    for name, rows in lists.items():
        if rows:
            columns = [column.replace("_", " ") for column in rows[0]]
            show_table(name, columns, [list(row.values()) for row in rows])


@session.command("announce")
def announce(
    session_id: Annotated[str, typer.Argument(metavar="SESSION_ID", help="The session's id.")],
    tx_hash: Annotated[
        str | None,
        typer.Argument(metavar="TX_HASH", help="The transaction's hash, of a fee bump either."),
    ] = None,
    *,
    envelope: Annotated[
        str | None,
        typer.Option(metavar="XDR", help="The signed transaction itself, instead of its hash."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say which transaction pays a session: it waits in `processing`, and is looked up at once.

    Recovery looks again. What failed, ran out of its time or left no trace makes the session
    `pending` again.
    """
    wanted, settings = parse_id(session_id, "session"), load_settings()
    if (tx_hash is None) == (envelope is None):
        raise InvalidInput("tx_hash", "give either the transaction's hash or --envelope")
    if envelope is not None:
        signed = read_envelope(envelope, settings.network_passphrase)
    else:
        signed = SignedTx(parse_tx_hash(tx_hash or ""), None)
    announced = run(_announce(settings, wanted, signed))
    document = announced_document(announced)
    if as_json:
        emit_json(document)
        return
    show_fields({name: value for name, value in document.items() if value is not None})
    say("", _announced_sentence(announced))


async def _announce(settings: Settings, session_id: UUID, signed: SignedTx) -> Announced:
    async with open_house(settings) as house:
        return await house.announcements.announce(session_id, signed.tx_hash, signed.until)


def _announced_sentence(announced: Announced) -> str:
    if announced.problem is not None:
        looked = "Horizon could not be asked; the daemon looks again."
    elif announced.state is TxState.UNKNOWN:
        looked = "It is not on the ledger yet; the daemon looks again."
    else:
        looked = f"It {announced.state} in ledger {announced.ledger}."
    waits = announced.status is SessionStatus.PROCESSING
    return f"{looked} The session {'waits for it' if waits else f'is {announced.status}'}."


@session.command("list")
def list_sessions(
    *,
    status: Annotated[
        SessionStatus | None, typer.Option(help="Only sessions of this status.")
    ] = None,
    limit: Annotated[
        int, typer.Option(help="At most so many, the newest first.", min=1, max=_MOST_LISTED)
    ] = 100,
    as_json: Json = False,
) -> None:
    """List sessions, the newest first."""
    settings = load_settings()

    async def read() -> list[CheckoutSession]:
        async with open_house(settings) as house:
            return await house.checkout.list_sessions(status, limit)

    documents = [session_document(one, settings.network_passphrase) for one in run(read())]
    if as_json:
        emit_json({"sessions": documents})
        return
    if not documents:
        say("There is no session yet." if status is None else f"There is no session {status}.")
        return
    show_table("sessions", ("id", "status", "amount", "until (UTC)"), map(_row, documents))


def _row(document: Mapping[str, Any]) -> tuple[str, ...]:
    """What of a session fits into 80 columns beside its whole id; `show` has the rest."""
    amount = document["amount"].rstrip("0").rstrip(".")
    asset = document["asset"].partition(":")[0]
    expires_at = document["expires_at"][5:16].replace("T", " ")
    return document["id"], document["status"], f"{amount} {asset}", expires_at
