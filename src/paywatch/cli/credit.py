"""Commands for held credits: list and explain them, and say what becomes of one."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

import typer

from paywatch.cli.arguments import parse_account, parse_credit, parse_id, parse_tx_hash
from paywatch.cli.output import emit_json, say, short, show_fields, show_table
from paywatch.cli.running import Json, load_settings, open_house, run
from paywatch.config import Settings
from paywatch.domain.settlement import Outcome
from paywatch.service.held import HeldCredits
from paywatch.service.held_documents import credit_document, credit_view_document, refund_document

T = TypeVar("T")

credit = typer.Typer(
    no_args_is_help=True,
    help="Held credits: money that pays no session. List and explain it, and say what becomes of"
    " it.",
)

_MOST_LISTED = 10_000
_RESOLVED = frozenset({Outcome.APPLIED, Outcome.RETURNED})

Name = Annotated[
    str, typer.Argument(metavar="OPERATION[:i]", help="The credit, as `credit list` prints it.")
]


def _ask(settings: Settings, ask: Callable[[HeldCredits], Awaitable[T]]) -> T:
    async def work() -> T:
        async with open_house(settings) as house:
            return await ask(house.held)

    return run(work())


@credit.command("list")
def list_credits(
    *,
    account: Annotated[
        str | None, typer.Option(help="Only those that came to this account, G….")
    ] = None,
    outcome: Annotated[Outcome | None, typer.Option(help="Only those with this outcome.")] = None,
    resolved: Annotated[
        bool, typer.Option("--all", help="Also those that were applied or returned by a word.")
    ] = False,
    limit: Annotated[
        int, typer.Option(help="At most so many, the newest first.", min=1, max=_MOST_LISTED)
    ] = 100,
    as_json: Json = False,
) -> None:
    """List the credits that wait for the merchant's word, the newest first."""
    of = None if account is None else parse_account(account)
    resolved = resolved or outcome in _RESOLVED
    states = _ask(
        load_settings(), lambda held: held.read_list(of, outcome, resolved=resolved, limit=limit)
    )
    documents = [credit_document(state) for state in states]
    if as_json:
        emit_json({"credits": documents})
        return
    if not documents:
        say("No credit is held." if outcome is None else f"There is no such credit: {outcome}.")
        return
    names = ("credit", "outcome", "amount", "asset", "payer", "closed_at", "session_id")
    shown = [one | {"payer": short(one["payer"])} for one in documents]
    columns = [name.replace("_", " ") for name in names]
    show_table("credits", columns, [[one[name] for name in names] for one in shown])


@credit.command("show")
def show_credit(name: Name, *, as_json: Json = False) -> None:
    """Explain a credit: what came and from whom, why it is held, and what can be done."""
    key = parse_credit(name)
    view = _ask(load_settings(), lambda held: held.read(key))
    _show(credit_view_document(view), as_json=as_json)


@credit.command("apply")
def apply_credit(
    name: Name,
    *,
    session: Annotated[str, typer.Option(help="The id of the session that it shall pay.")],
    as_json: Json = False,
) -> None:
    """Apply a held credit to a session, on the merchant's word.

    The session may be open or expired, and has to be on the same account over the same asset. If
    that completes it, the merchant is told. Safe to repeat.
    """
    key, session_id = parse_credit(name), parse_id(session, "session")
    view = _ask(load_settings(), lambda held: held.apply(key, session_id))
    _show(credit_view_document(view), as_json=as_json)


@credit.command("refund")
def refund_credit(name: Name, *, as_json: Json = False) -> None:
    """Print the SEP-7 request that pays a held credit back to its payer; paywatch cannot sign it.

    Changes nothing: say afterwards by `credit return` which transaction it was.
    """
    key = parse_credit(name)
    settings = load_settings()
    state = _ask(settings, lambda held: held.read_held(key))
    document = refund_document(state.credit, settings.network_passphrase)
    if as_json:
        emit_json(document)
        return
    warning = document.pop("warning")
    show_fields(document)
    say("", warning)


@credit.command("return")
def return_credit(
    name: Name,
    *,
    tx: Annotated[str, typer.Option(help="The hash of the refund, 64 hex digits.")],
    as_json: Json = False,
) -> None:
    """Mark a held credit as returned, by a transaction that is looked up on the ledger.

    It has to have paid the same asset from the account to the payer, after the credit, and enough
    for all that it returns. Safe to repeat.
    """
    key, tx_hash = parse_credit(name), parse_tx_hash(tx)
    view = _ask(load_settings(), lambda held: held.mark_returned(key, tx_hash))
    _show(credit_view_document(view), as_json=as_json)


def _show(document: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        emit_json(document)
        return
    for part in ("session", "event"):
        fields = document.pop(part) or {}
        document |= {f"{part}_{name}": value for name, value in fields.items()}
    commands = document.pop("can")
    show_fields(document)
    if commands:
        say("", "What can be done:", *(f"  {command}" for command in commands))
