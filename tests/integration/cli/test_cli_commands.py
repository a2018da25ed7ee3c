"""Every command against a real database and a simulated network: documents and exit codes."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import psycopg
import pytest
from stellar_sdk import IdMemo, Keypair, TimeBounds, TransactionEnvelope
from stellar_sdk.sep.stellar_uri import PayStellarUri

from paywatch.domain.ledger import Position
from paywatch.store.migrate import head_revision
from support.commands import answer, command
from support.pgbouncer import behind_pgbouncer
from support.site import USD, Document, Site, open_site

STRANGER = Keypair.from_raw_ed25519_seed(bytes(32)).public_key
NOBODY = "00000000-0000-7000-8000-000000000000"
USD_ASSET = f"{USD.code}:{USD.issuer}"


@pytest.fixture
async def site(database_url: str) -> AsyncIterator[Site]:
    async with open_site(database_url, close_every_s=0.05) as site:
        yield site


async def register(site: Site) -> Document:
    names = ("--name", "Shop", "--account", site.shop.account_id)
    url = ("--webhook-url", f"{site.merchant.url}/hook")
    made: Document = await answer(site.environ, "merchant", "create", *names, *url)
    return made


async def open_session(site: Site, *options: str, amount: str = "12.5") -> Document:
    """A session of a shop that is registered if there is none yet."""
    merchant_id = await _merchant_id(site) or (await register(site))["merchant_id"]
    wanted = ("--merchant", merchant_id, "--amount", amount)
    asset = () if "--asset" in options else ("--asset", "native")
    made: Document = await answer(site.environ, "session", "create", *wanted, *asset, *options)
    return made


async def _merchant_id(site: Site) -> str | None:
    rows = await query(site, "SELECT merchant_id FROM accounts")
    return str(rows[0][0]) if rows else None


async def query(site: Site, sql: str) -> list[tuple[Any, ...]]:
    url = site.settings["PAYWATCH_DATABASE_URL"]
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        cursor = await conn.execute(sql)
        return await cursor.fetchall() if cursor.description else []


async def test_migrate_brings_an_empty_database_up_to_date(empty_database_url: str) -> None:
    async with open_site(empty_database_url) as site:
        before = await command(site.environ, "session", "list")
        assert (before.code, before.out) == (1, "")
        assert "run `paywatch migrate`" in before.err
        first = await answer(site.environ, "migrate")
        assert first == {"from": None, "to": head_revision(), "changed": True}
        assert (await answer(site.environ, "migrate"))["changed"] is False
        assert (await answer(site.environ, "session", "list")) == {"sessions": []}


async def test_a_merchant_is_watched_from_the_tip_on_and_gets_a_secret_once(site: Site) -> None:
    tip = site.network.ledger.latest.sequence
    made = await register(site)
    assert made["webhook_secret"].startswith("whsec_")
    assert made["account"] == site.shop.account_id
    assert made["webhook_url"] == f"{site.merchant.url}/hook"
    assert tip <= made["start_ledger"] <= site.network.ledger.latest.sequence
    assert made["start_position"] == str(made["start_ledger"] << 32 | 0xFFFFFFFF)
    sealed = await query(site, "SELECT sealed_secret FROM endpoints")
    assert made["webhook_secret"].encode() not in sealed[0][0]


async def test_an_account_is_watched_for_one_merchant(site: Site) -> None:
    await register(site)
    again = await command(
        site.environ, "merchant", "create", "--name", "B", "--account", site.shop.account_id
    )
    assert again.code == 2
    assert "account: is watched for a merchant already" in again.err


@pytest.mark.parametrize(
    ("account", "says"),
    [
        (Keypair.from_raw_ed25519_seed(bytes(32)).secret, "secret seed"),
        ("G123", "must be a Stellar G… address"),
    ],
)
async def test_a_bad_account_is_a_usage_error_that_does_not_repeat_a_seed(
    site: Site, account: str, says: str
) -> None:
    ended = await command(site.environ, "merchant", "create", "--name", "B", "--account", account)
    assert (ended.code, ended.out) == (2, "")
    assert says in ended.err
    assert not account.startswith("S") or account not in ended.err


async def test_a_webhook_may_not_go_inside_unless_a_setting_allows_it(site: Site) -> None:
    ended = await command(
        site.having(allow_private_webhooks="false").environ,
        *("merchant", "create", "--name", "B", "--account", site.shop.account_id),
        *("--webhook-url", "https://127.0.0.1/hook"),
    )
    assert ended.code == 2
    assert "PAYWATCH_ALLOW_PRIVATE_WEBHOOKS" in ended.err


async def test_a_session_says_how_it_is_paid(site: Site) -> None:
    made = await open_session(site, "--reference", "order-7", "--expires-in", "90s")
    assert made["status"] == "pending"
    assert made["account"] == site.shop.account_id
    assert made["muxed_account"].startswith("M")
    assert (made["memo_type"], made["amount"], made["asset"]) == ("id", "12.5000000", "native")
    assert made["reference"] == "order-7"
    assert made["expires_at"].endswith("Z")
    assert made["payment_uri"].startswith("web+stellar:pay?destination=G")
    assert f"memo={made['memo']}" in made["payment_uri"]
    wanted = {"id", "status", "account", "muxed_account", "memo_type", "memo", "amount", "asset"}
    assert wanted | {"expires_at", "payment_uri"} <= set(made)


async def test_a_session_may_have_a_memo_of_the_merchants_own(site: Site) -> None:
    text = await open_session(site, "--memo-type", "text", "--memo", "order 8")
    assert (text["memo_type"], text["memo"]) == ("text", "order 8")
    hashed = await open_session(site, "--memo-type", "hash")
    assert len(bytes.fromhex(hashed["memo"])) == 32
    again = await command(
        site.environ, "session", "create", "--merchant", text["merchant_id"],
        "--amount", "1", "--asset", "native", "--memo-type", "text", "--memo", "order 8",
    )  # fmt: skip
    assert again.code == 2
    assert "memo: another session on this account has it" in again.err


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("--amount", "1e3"), 2, "amount: must be a decimal number"),
        (("--amount", "0"), 2, "amount: must be above 0"),
        (("--asset", "XLM"), 2, "asset: must be `native` or CODE:ISSUER"),
        (("--expires-in", "soon"), 2, "expires_in: must be a number and its unit"),
        (("--memo-type", "return"), 2, "memo_type: must be id, text or hash"),
        (("--memo", "x"), 2, "memo: an id memo must be a decimal number"),
        (("--merchant", "x"), 2, "merchant: must be an id"),
        (("--merchant", NOBODY), 1, f"there is no merchant {NOBODY}"),
    ],
)
async def test_a_bad_session_is_told_in_a_sentence(
    site: Site, options: tuple[str, str], code: int, says: str
) -> None:
    values = {"--merchant": NOBODY, "--amount": "1", "--asset": "native"} | dict([options])
    ended = await command(
        site.environ, "session", "create", *(part for pair in values.items() for part in pair)
    )
    assert (ended.code, ended.out) == (code, "")
    assert says in ended.err
    assert "Traceback" not in ended.err


async def test_sessions_are_listed_by_status(site: Site) -> None:
    first, second = await open_session(site), await open_session(site)
    listed = await answer(site.environ, "session", "list", "--status", "pending")
    assert [one["id"] for one in listed["sessions"]] == [second["id"], first["id"]]
    assert await answer(site.environ, "session", "list", "--status", "paid") == {"sessions": []}
    assert (await command(site.environ, "session", "list", "--status", "lost")).code == 2
    for_people = await command(site.environ, "session", "list")
    assert first["id"] in for_people.out
    assert max(map(len, for_people.out.splitlines())) <= 80


async def test_an_unknown_session_is_a_failure(site: Site) -> None:
    ended = await command(site.environ, "session", "show", NOBODY, "--json")
    assert (ended.code, ended.out) == (1, "")
    assert f"there is no session {NOBODY}" in ended.err


async def test_backfill_settles_what_nobody_listened_to(site: Site) -> None:
    session = await open_session(site, "--asset", USD_ASSET)
    (tx,) = await site.pay(site.path_payment(session))
    first = await answer(site.environ, "backfill", "--account", site.shop.account_id)
    assert first["found"] == 1
    assert first["backfills"][0]["account"] == site.shop.account_id
    shown = await answer(site.environ, "session", "show", session["id"])
    assert (shown["status"], shown["received"]) == ("paid", "12.5000000")
    assert [payment["tx_hash"] for payment in shown["payments"]] == [tx.hash]
    assert [credit["outcome"] for credit in shown["credits"]] == ["applied"]
    assert [event["type"] for event in shown["events"]] == ["checkout.session.paid"]
    assert (await answer(site.environ, "backfill"))["found"] == 0
    for_people = await command(site.environ, "session", "show", session["id"])
    assert tx.hash in for_people.out


async def test_backfill_goes_on_after_an_account_that_is_not_on_the_ledger(site: Site) -> None:
    session = await open_session(site)
    await answer(site.environ, "merchant", "create", "--name", "B", "--account", STRANGER)
    assert site.shop.account_id > STRANGER, "it has its turn first"
    await site.pay(site.payment(session))
    ended = await command(site.environ, "backfill", "--json")
    assert (ended.code, ended.out) == (1, "")
    assert f"nothing of {STRANGER} after ledger" in ended.err
    assert "the account is not on the ledger yet" in ended.err
    shown = await answer(site.environ, "session", "show", session["id"])
    assert shown["status"] == "paid"


async def test_backfill_keeps_to_its_range(site: Site) -> None:
    session = await open_session(site)
    (tx,) = await site.pay(site.payment(session))
    before = await answer(site.environ, "backfill", "--from", "2", "--to", str(tx.ledger - 1))
    after = await answer(site.environ, "backfill", "--from", str(tx.ledger + 1))
    assert [before["found"], after["found"]] == [1, 0]  # the shop's own funding
    exactly = await answer(
        site.environ, "backfill", "--from", str(tx.ledger), "--to", str(tx.ledger)
    )
    assert exactly["found"] == 1


async def test_backfill_takes_a_time(site: Site) -> None:
    session = await open_session(site)
    (tx,) = await site.pay(site.payment(session))
    started_at = site.network.ledger.history.ledgers[0].closed_at
    nothing = await answer(site.environ, "backfill", "--from", "1", "--to", f"{started_at}")
    later = await answer(site.environ, "backfill", "--from", f"{tx.closed_at + timedelta(hours=1)}")
    all_of_it = await answer(site.environ, "backfill", "--from", f"{started_at}")
    assert [nothing["found"], later["found"], all_of_it["found"]] == [0, 0, 2]


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("--account", STRANGER), 1, "is not watched"),
        (("--from", "yesterday"), 2, "from: must be a ledger's number or a time"),
        (("--from", "900000"), 2, "from: is after the last ledger to read"),
    ],
)
async def test_a_bad_backfill_is_told_in_a_sentence(
    site: Site, options: tuple[str, str], code: int, says: str
) -> None:
    await register(site)
    ended = await command(site.environ, "backfill", *options)
    assert ended.code == code, ended.err
    assert says in ended.err


async def test_recover_finds_an_announced_payment(site: Site) -> None:
    session = await open_session(site)
    await site.pay(site.payment(session))
    await query(
        site,
        "UPDATE checkout_sessions SET status = 'processing', announced_tx_hash = sha256('x'),"
        " announced_at = now() - interval '1 hour'",
    )
    report = await answer(site.environ, "recover")
    assert (report["settled"], report["returned"], report["healthy"]) == (1, 0, True)
    shown = await answer(site.environ, "session", "show", session["id"])
    assert shown["status"] == "paid"


async def test_announce_looks_a_transaction_up_and_settles_it(site: Site) -> None:
    session = await open_session(site)
    envelope = site.payment(session)
    first = await answer(site.environ, "session", "announce", session["id"], envelope.hash_hex())
    assert (first["status"], first["reception"]) == ("processing", "taken")
    assert (first["tx_state"], first["ledger"], first["ended"]) == ("unknown", None, None)
    shown = await answer(site.environ, "session", "show", session["id"])
    assert (shown["status"], shown["announced_tx_hash"]) == ("processing", envelope.hash_hex())
    for_people = await command(site.environ, "session", "show", session["id"])
    assert envelope.hash_hex() in for_people.out
    (tx,) = await site.pay(envelope)
    by_envelope = ("session", "announce", session["id"], "--envelope", envelope.to_xdr())
    again = await answer(site.environ, *by_envelope)
    assert (again["status"], again["reception"], again["settled"]) == ("paid", "repeated", 1)
    assert (again["tx_state"], again["ledger"]) == ("succeeded", tx.ledger)
    shown = await answer(site.environ, "session", "show", session["id"])
    assert (shown["status"], shown["announced_tx_hash"]) == ("paid", None)
    told = await command(site.environ, *by_envelope)
    assert (told.code, told.err) == (0, "")
    assert f"It succeeded in ledger {tx.ledger}. The session is paid." in told.out


async def test_an_envelope_brings_its_time_bound(site: Site) -> None:
    session = await open_session(site)
    bounds = TimeBounds(0, 4_000_000_000)
    envelope = site.customer.build([], time_bounds=bounds)
    announced = ("session", "announce", session["id"], "--envelope", envelope.to_xdr())
    told = await command(site.environ, *announced)
    assert "It is not on the ledger yet; the daemon looks again. The session waits" in told.out
    rows = await query(site, "SELECT extract(epoch FROM announced_until) FROM checkout_sessions")
    assert [int(row[0]) for row in rows] == [4_000_000_000]


async def test_announce_says_that_horizon_is_away_and_succeeds(site: Site) -> None:
    session = await open_session(site)
    away = site.having(horizon_url="http://127.0.0.1:1")
    told = await command(away.environ, "session", "announce", session["id"], "ab" * 32)
    assert told.code == 0, told.err
    assert "Horizon could not be asked; the daemon looks again. The session waits" in told.out
    document = await answer(away.environ, "session", "announce", session["id"], "ab" * 32)
    assert (document["reception"], document["tx_state"]) == ("repeated", None)
    assert document["problem"]


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        ((NOBODY, "ab" * 32), 1, f"there is no session {NOBODY}"),
        ((NOBODY, "x"), 2, "tx_hash: must be a transaction's hash"),
        ((NOBODY,), 2, "tx_hash: give either"),
        ((NOBODY, "ab" * 32, "--envelope", "AAAA"), 2, "tx_hash: give either"),
        ((NOBODY, "--envelope", "AAAA"), 2, "envelope: must be a signed transaction"),
        (("x", "ab" * 32), 2, "session: must be an id"),
    ],
)
async def test_a_bad_announcement_is_told_in_a_sentence(
    site: Site, args: tuple[str, ...], code: int, says: str
) -> None:
    ended = await command(site.environ, "session", "announce", *args)
    assert (ended.code, ended.out) == (code, "")
    assert says in ended.err
    assert "Traceback" not in ended.err


async def test_audit_tells_a_broken_invariant_and_fails(site: Site) -> None:
    healthy = await answer(site.environ, "audit")
    assert healthy["healthy"]
    assert healthy["violations"] == []
    session = await open_session(site)
    await query(site, "UPDATE checkout_sessions SET received = 5")
    ended = await command(site.environ, "audit", "--json")
    assert ended.code == 1
    assert ended.document["healthy"] is False
    assert session["id"] in {v["subject"] for v in ended.document["violations"]}
    for_people = await command(site.environ, "audit")
    assert for_people.code == 1
    assert "received_is_the_sum_of_applied_credits" in for_people.out


async def read_on(site: Site) -> None:
    """The stream has read all that there is, and saw nothing."""
    end = Position.after_ledger(site.network.ledger.latest.sequence)
    await query(site, f"UPDATE cursors SET position = {int(end)}")


async def test_audit_settles_what_came_behind_the_stream_and_says_so_by_its_exit_code(
    site: Site,
) -> None:
    session = await open_session(site)
    (tx,) = await site.pay(site.payment(session))
    await site.network.wait_for_ledger(tx.ledger + 1)
    unread = await answer(site.environ, "audit", "--from", "1")
    assert (unread["horizon"]["spans"], unread["horizon"]["accounts"]) == ([], 0)
    assert "no stream has read" in (await command(site.environ, "audit", "--from", "1")).out
    await read_on(site)

    dry = await command(site.environ, "audit", "--from", "1", "--dry-run", "--json")
    assert (dry.code, dry.document["healthy"]) == (1, False)
    found = dry.document["horizon"]
    assert (found["missing"], found["settled"], found["healthy"]) == (1, 0, True)
    [missing] = found["findings"]
    assert (missing["kind"], missing["operation_id"]) == ("missing", str(tx.id + 1))
    assert missing["account"] == site.shop.account_id
    assert await query(site, "SELECT * FROM credits") == []

    before = await answer(site.environ, "audit", "--from", "1", "--to", str(tx.ledger - 1))
    assert before["horizon"]["missing"] == 0
    ended = await command(site.environ, "audit", "--from", f"{tx.closed_at.isoformat()}")
    assert ended.code == 1
    assert str(tx.id + 1) in ended.out
    assert "invariants hold" in ended.out
    shown = await answer(site.environ, "session", "show", session["id"])
    assert shown["status"] == "paid"
    again = await answer(
        site.environ, "audit", "--from", str(tx.ledger), "--account", site.shop.account_id
    )
    assert (again["horizon"]["missing"], again["horizon"]["read"]) == (0, 1)


async def test_audit_tells_a_credit_that_the_ledger_does_not_show_and_keeps_it(site: Site) -> None:
    session = await open_session(site)
    first = await site.pay(site.payment(session))
    await site.pay(site.customer.pay(site.shop.account_id, "1"))
    await answer(site.environ, "backfill")
    await read_on(site)
    site.network.horizon.view.hidden.add(first[0].id + 1)
    ended = await command(site.environ, "audit", "--from", "1", "--json")
    assert ended.code == 1
    found = ended.document["horizon"]
    assert (found["extra"], found["missing"], found["healthy"]) == (1, 0, False)
    assert [f["operation_id"] for f in found["findings"]] == [str(first[0].id + 1)]
    for_people = await command(site.environ, "audit", "--from", "1")
    assert "do not hand out goods" in for_people.out
    assert await query(site, "SELECT count(*) FROM credits") == [(2,)]


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("--dry-run",), 2, "from: must be given"),
        (("--to", "5"), 2, "from: must be given"),
        (("--account", STRANGER), 2, "from: must be given"),
        (("--from", "yesterday"), 2, "from: must be a ledger's number or a time"),
        (("--from", "900000"), 2, "from: is after the last ledger to read"),
        (("--from", "1", "--account", STRANGER), 1, "is not watched"),
    ],
)
async def test_a_bad_audit_is_told_in_a_sentence(
    site: Site, options: tuple[str, ...], code: int, says: str
) -> None:
    await register(site)
    ended = await command(site.environ, "audit", *options)
    assert (ended.code, ended.out) == (code, "")
    assert says in ended.err


@pytest.mark.parametrize("args", [("recover",), ("audit", "--from", "1")])
async def test_another_network_is_refused_although_nothing_has_to_be_looked_for(
    site: Site, args: tuple[str, ...]
) -> None:
    ended = await command(site.having(network_passphrase="Another").environ, *args, "--json")
    assert (ended.code, ended.out) == (1, "")
    assert "PAYWATCH_NETWORK_PASSPHRASE" in ended.err


async def test_recover_repairs_without_horizon_what_does_not_need_it(site: Site) -> None:
    away = site.having(horizon_url="http://127.0.0.1:9")
    assert (await answer(away.environ, "recover"))["healthy"]


async def capture(site: Site, directory: Path) -> Path:
    """The shop's payments, as anyone could save them."""
    path = directory / "page.json"
    url = f"{site.network.url}/accounts/{site.shop.account_id}/payments"
    async with (
        aiohttp.ClientSession() as http,
        http.get(url, params={"join": "transactions", "limit": "200"}) as response,
    ):
        await asyncio.to_thread(path.write_bytes, await response.read())
    return path


async def explained(site: Site, path: Path, *options: str) -> list[dict[str, Any]]:
    document = await answer(site.environ, "explain", str(path), *options)
    assert document["database"] == {"consulted": True, "why_not": None}
    return [credit for record in document["records"] for credit in record["credits"]]


async def test_explain_says_what_would_be_done_and_does_nothing(site: Site, tmp_path: Path) -> None:
    session = await open_session(site)
    late = await open_session(site, "--expires-in", "1s")
    await query(
        site,
        "UPDATE checkout_sessions SET created_at = created_at - interval '1 day',"
        " expires_at = expires_at - interval '1 hour',"
        f" accept_until = accept_until - interval '1 hour' WHERE id = '{late['id']}'",
    )
    shop = site.shop.account_id
    await site.pay(site.payment(session, "4"))
    await site.pay(site.payment(session, "8.5"))
    await site.pay(site.payment(session, "1"))
    await site.pay(site.payment(late))
    await site.pay(site.customer.pay(shop, "2", memo=IdMemo(7)))
    await site.pay(site.customer.pay(shop, "3", USD, IdMemo(int(session["memo"]))))
    path = await capture(site, tmp_path)
    credits_ = (await explained(site, path, "--account", shop))[-6:]
    assert [(c["does"], c["session_status"]) for c in credits_] == [
        ("applied", "partially_paid"),
        ("applied", "paid"),
        ("held", "paid"),
        ("held", "pending"),
        ("held", None),
        ("held", "paid"),
    ]
    reasons = [c["reason"].partition(":")[0] for c in credits_]
    assert reasons[2:] == ["duplicate", "late", "unmatched", "wrong_asset"]
    assert credits_[0]["session_id"] == session["id"]
    assert await query(site, "SELECT count(*) FROM credits") == [(0,)]
    await answer(site.environ, "backfill")
    known = [c["does"] for c in await explained(site, path)]
    assert known[-6:] == ["known"] * 6


async def test_explain_knows_accounts_that_nobody_watches(site: Site, tmp_path: Path) -> None:
    path = await capture(site, tmp_path)
    credits_ = await explained(site, path)
    assert {c["does"] for c in credits_} == {"ignored"}


async def wrong_of(site: Site) -> dict[str, dict[str, str]]:
    """What the doctor finds wrong, beside what is wrong with every test's cluster."""
    ended = await command(site.environ, "doctor", "--json")
    assert ended.code == 1
    wrong = [f for f in ended.document["findings"] if not f["well"]]
    assert "fsync is off" in wrong[0]["message"], "no test cuts the power, and the doctor says so"
    assert all(f["remedy"] for f in wrong)
    return {f["part"]: f for f in wrong[1:]}


async def test_doctor_finds_everything_else_well(site: Site) -> None:
    await open_session(site)
    assert await wrong_of(site) == {}
    ended = await command(site.environ, "doctor", "--json")
    assert {finding["part"] for finding in ended.document["findings"]} == {
        "settings", "database", "migrations", "webhooks", "secret key", "horizon", "clock",
        "streams",
    }  # fmt: skip
    messages = {finding["message"] for finding in ended.document["findings"]}
    one = {
        "1 endpoint, none disabled",
        "opens 1 webhook secret",
        f"1 stream can go on at {site.network.url.removeprefix('http://')}",
    }
    assert messages >= one, "one of a thing is one thing"


async def test_doctor_finds_a_pooler_that_shares_connections(
    site: Site, database_url: str, tmp_path: Path
) -> None:
    async with behind_pgbouncer(database_url, "transaction", tmp_path) as url:
        wrong = await wrong_of(site.having(database_url=url))
    assert "shares connections between transactions" in wrong["database"]["message"]
    assert "session mode" in wrong["database"]["remedy"]


async def test_doctor_tells_what_is_wrong_and_what_to_do(site: Site) -> None:
    await register(site)
    await query(site, "UPDATE endpoints SET disabled_at = now(), disabled_reason = '410 Gone'")
    other_key = site.having(
        secret_key="AQECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", network_passphrase="Another"
    )
    wrong = await wrong_of(other_key)
    assert set(wrong) == {"webhooks", "secret key", "horizon"}
    assert "410 Gone" in wrong["webhooks"]["message"]
    assert "PAYWATCH_SECRET_KEY" in wrong["secret key"]["remedy"]
    assert "PAYWATCH_NETWORK_PASSPHRASE" in wrong["horizon"]["message"]


async def test_doctor_compares_every_stream_with_the_history_kept(site: Site) -> None:
    await register(site)
    await site.network.wait_for_ledger(site.network.ledger.latest.sequence + 5)
    site.network.horizon.view.keep_from(site.network.ledger.latest.sequence)
    wrong = await wrong_of(site)
    assert set(wrong) == {"streams"}
    assert f"live:{site.shop.account_id}" in wrong["streams"]["message"]


async def test_doctor_reports_every_setting_and_goes_on(empty_database_url: str) -> None:
    async with open_site(empty_database_url) as site:
        unmigrated = await command(site.environ, "doctor", "--json")
        bad = site.having(http_port="x", horizon_url="ftp://x")
        settings = await command(bad.environ, "doctor", "--json")
        away = site.having(database_url="postgresql://u:hunter2@127.0.0.1:9/x")
        unreachable = await command(away.environ, "doctor", "--json")
    assert {f["part"]: f["well"] for f in unmigrated.document["findings"]}["migrations"] is False
    messages = [f["message"] for f in settings.document["findings"]]
    assert any("PAYWATCH_HTTP_PORT" in message for message in messages)
    assert any("PAYWATCH_HORIZON_URL" in message for message in messages)
    parts = {f["part"]: f["well"] for f in unreachable.document["findings"]}
    assert parts["database"] is False
    assert parts["horizon"] is True
    assert "hunter2" not in unreachable.out + unreachable.err
    assert [unmigrated.code, settings.code, unreachable.code] == [1, 1, 1]


async def test_a_database_that_is_away_is_a_sentence_without_its_password(site: Site) -> None:
    away = site.having(database_url="postgresql://u:hunter2@127.0.0.1:9/x")
    ended = await command(away.environ, "session", "list", "--json")
    assert (ended.code, ended.out) == (1, "")
    assert "PAYWATCH_DATABASE_URL" in ended.err
    assert "hunter2" not in ended.err
    assert "Traceback" not in ended.err


async def test_a_horizon_that_is_away_is_a_sentence(site: Site) -> None:
    away = site.having(horizon_url="http://127.0.0.1:9")
    names = ("--name", "Shop", "--account", site.shop.account_id)
    ended = await command(away.environ, "merchant", "create", *names)
    assert ended.code == 1
    assert "PAYWATCH_HORIZON_URL" in ended.err
    assert "Traceback" not in ended.err


async def test_bad_settings_are_told_all_at_once(site: Site) -> None:
    ended = await command(site.having(http_port="x", log_level="loud").environ, "session", "list")
    assert ended.code == 1
    assert "PAYWATCH_HTTP_PORT" in ended.err
    assert "PAYWATCH_LOG_LEVEL" in ended.err


async def test_json_is_one_document_whatever_the_log_says(site: Site) -> None:
    loud = site.having(log_level="debug")
    ended = await command(loud.environ, "recover", "--json")
    assert json.loads(ended.out)["healthy"]
    assert ended.err


async def test_a_policy_is_shown_and_changed_for_the_sessions_to_come(site: Site) -> None:
    before = await open_session(site)
    merchant = before["merchant_id"]
    default = {
        "merchant_id": merchant,
        "tolerance_percent": "0",
        "late": "hold",
        "late_grace_s": None,
        "text_for_id": True,
    }
    assert await answer(site.environ, "merchant", "policy", merchant) == default
    changed = await answer(
        site.environ, "merchant", "policy", merchant, "--tolerance", "0.5%", "--late", "24h"
    )
    assert changed == default | {
        "tolerance_percent": "0.5", "late": "accept", "late_grace_s": 86_400,
    }  # fmt: skip
    after = await open_session(site)
    assert (before["least_amount"], after["least_amount"]) == ("12.5000000", "12.4375000")
    assert before["accept_until"] == before["expires_at"]
    assert after["accept_until"] > after["expires_at"]
    held = await answer(site.environ, "merchant", "policy", merchant, "--late", "hold")
    assert (held["late"], held["tolerance_percent"]) == ("hold", "0.5")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--tolerance", "11"), "tolerance: must be between 0 and 10 percent"),
        (("--tolerance", "a lot"), "tolerance: must be a percentage"),
        (("--late", "31d"), "late_grace: must be longer than nothing and at most 30 days"),
        (("--late", "soon"), "late: must be a number and its unit"),
    ],
)
async def test_a_policy_that_is_none_is_refused(
    site: Site, options: tuple[str, ...], message: str
) -> None:
    merchant = (await open_session(site))["merchant_id"]
    ended = await command(site.environ, "merchant", "policy", merchant, *options)
    assert ended.code == 2
    assert message in ended.err


async def hold(site: Site, *txs: TransactionEnvelope) -> list[str]:
    """Pay what names no session, and read it; gives the credits, the newest first."""
    await site.pay(*txs)
    await answer(site.environ, "backfill")
    listed = await answer(site.environ, "credit", "list")
    return [credit["credit"] for credit in listed["credits"]]


async def test_a_held_credit_is_explained_applied_and_its_session_told_of(site: Site) -> None:
    session = await open_session(site)
    [name] = await hold(site, site.customer.pay(site.shop.account_id, "12.5"))

    shown = await answer(site.environ, "credit", "show", name)
    assert (shown["outcome"], shown["why"]) == ("unmatched", "names no session")
    assert (shown["payer"], shown["amount"]) == (site.customer.account_id, "12.5000000")
    assert shown["event"]["delivery"] == "pending"
    assert shown["can"][0] == f"paywatch credit apply {name} --session ID"
    people = await command(site.environ, "credit", "show", name)
    assert "What can be done:\n  paywatch credit apply" in people.out

    words = ("credit", "apply", name, "--session", session["id"])
    applied = await answer(site.environ, *words)
    assert (applied["outcome"], applied["held_as"]) == ("applied", "unmatched")
    assert applied["session"]["status"] == "paid"
    assert applied["can"] == []
    assert await answer(site.environ, *words) == applied
    told = (await answer(site.environ, "session", "show", session["id"]))["events"]
    assert [event["type"] for event in told] == ["checkout.session.paid"]
    assert (await answer(site.environ, "credit", "list"))["credits"] == []
    assert "No credit is held." in (await command(site.environ, "credit", "list")).out
    [listed] = (await answer(site.environ, "credit", "list", "--outcome", "applied"))["credits"]
    assert listed["credit"] == name
    assert (await answer(site.environ, "audit"))["healthy"]


async def test_a_held_credit_is_refunded_by_a_wallet_and_marked_by_either_hash(
    site: Site,
) -> None:
    await register(site)
    twice = [site.customer.pay(site.shop.account_id, "5", USD) for _ in range(2)]
    one, two = await hold(site, *twice)
    inner = pay_as_asked(site, await answer(site.environ, "credit", "refund", one))
    [refund] = await site.pay(site.network.root.fee_bump(inner))

    unknown = await command(site.environ, "credit", "return", one, "--tx", "ab" * 32)
    assert (unknown.code, unknown.out) == (2, "")
    assert "tx: is not on the ledger up to" in unknown.err
    for tx_hash in (inner.hash_hex(), refund.hash.upper()):
        marked = await answer(site.environ, "credit", "return", one, "--tx", tx_hash)
        assert (marked["outcome"], marked["returned_by_tx"]) == ("returned", refund.hash)
    spent = await command(site.environ, "credit", "return", two, "--tx", refund.hash)
    assert spent.code == 2
    assert "tx: has 0.0000000 left to return, the credit is 5.0000000" in spent.err
    again = await command(site.environ, "credit", "refund", one)
    assert again.code == 2
    assert f"credit: {one} was returned by {refund.hash}: it is not held" in again.err
    assert (await answer(site.environ, "audit"))["healthy"]


def pay_as_asked(site: Site, document: Document) -> TransactionEnvelope:
    """Do what a wallet does with a SEP-7 request."""
    uri = PayStellarUri.from_uri(document["payment_uri"])
    assert uri.network_passphrase == site.network.passphrase
    assert uri._asset is not None
    return site.shop.pay(uri.destination, str(uri.amount), uri._asset, uri._memo)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("show", "5:x"), "credit: must be OPERATION or OPERATION:i"),
        (("show", f"{2**63}"), "credit: must be OPERATION or OPERATION:i"),
        (("show", "5:32768"), "credit: must be OPERATION or OPERATION:i"),
        (("return", "5", "--tx", "5"), "tx: must be a transaction's hash"),
        (("apply", "5", "--session", "x"), "session: must be an id"),
        (("list", "--account", "x"), "account: must be a Stellar G… address"),
    ],
)
async def test_a_word_that_cannot_be_understood_is_a_usage_error(
    site: Site, args: tuple[str, ...], says: str
) -> None:
    ended = await command(site.environ, "credit", *args)
    assert (ended.code, ended.out) == (2, "")
    assert says in ended.err


async def test_a_credit_that_is_not_there_is_said_so(site: Site) -> None:
    ended = await command(site.environ, "credit", "show", "5:1")
    assert (ended.code, ended.out) == (1, "")
    assert "there is no credit 5:1" in ended.err


async def test_a_dead_letter_is_listed_and_sent_again(site: Site) -> None:
    session = await open_session(site)
    await site.pay(site.payment(session))
    await answer(site.environ, "backfill")
    assert await answer(site.environ, "delivery", "list") == {"deliveries": []}
    await query(
        site,
        "UPDATE deliveries SET state = 'dead', ended_at = now(), attempts_made = 10,"
        " dead_reason = 'attempt 10 of 10 failed: status 500'",
    )
    [letter] = (await answer(site.environ, "delivery", "list"))["deliveries"]
    assert (letter["type"], letter["attempts"]) == ("checkout.session.paid", 10)
    for_people = await command(site.environ, "delivery", "list")
    assert letter["event_id"] in for_people.out
    resent = await command(site.environ, "delivery", "resend", letter["event_id"])
    assert (resent.code, "by attempt 11" in resent.out) == (0, True)
    again = await command(site.environ, "delivery", "resend", letter["event_id"], "--json")
    assert (again.code, again.out) == (2, "")
    assert "is pending" in again.err
    enabled = await command(site.environ, "endpoint", "enable", session["merchant_id"])
    assert (enabled.code, "was not disabled" in enabled.out) == (0, True)
