"""Envelopes as wallets hand them over: what is read of them, and what is refused."""

import base64
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stellar_sdk import (
    Asset,
    HashMemo,
    Keypair,
    Payment,
    TimeBounds,
    TransactionEnvelope,
)

from paywatch.errors import InvalidInput
from paywatch.service.envelopes import LONGEST, SignedTx, read_envelope
from paywatch.sim import Wallet

TESTNET = "Test SDF Network ; September 2015"
PUBLIC = "Public Global Stellar Network ; September 2015"
ALICE = Wallet.named("alice", TESTNET, lambda _: 7)
BOB = Wallet.named("bob", TESTNET, lambda _: 9)
UNTIL = datetime(2026, 11, 20, 12, 5, tzinfo=UTC)


def payment(wallet: Wallet = ALICE, max_time: int = 0, **changes: Any) -> TransactionEnvelope:
    operation = Payment(BOB.account_id, Asset.native(), "1")
    return wallet.build([operation], time_bounds=TimeBounds(0, max_time), **changes)


def test_a_plain_envelope_gives_its_hash_and_its_time_bound() -> None:
    envelope = payment(max_time=int(UNTIL.timestamp()))
    assert read_envelope(envelope.to_xdr(), TESTNET) == SignedTx(envelope.hash_hex(), UNTIL)
    wrapped = "\n".join(envelope.to_xdr()[i : i + 64] for i in range(0, 300, 64))
    assert read_envelope(wrapped, TESTNET).tx_hash == envelope.hash_hex()


@pytest.mark.parametrize("max_time", [0, 253_402_300_800, 2**64 - 1])
def test_a_bound_that_is_none_or_beyond_all_calendars_is_none(max_time: int) -> None:
    assert read_envelope(payment(max_time=max_time).to_xdr(), TESTNET).until is None


def test_a_fee_bump_gives_its_outer_hash_and_the_inner_bound() -> None:
    bump = BOB.fee_bump(payment(max_time=int(UNTIL.timestamp())))
    assert read_envelope(bump.to_xdr(), TESTNET) == SignedTx(bump.hash_hex(), UNTIL)


def test_an_envelope_of_the_first_version_has_the_hash_that_the_network_gives_it() -> None:
    envelope = payment()
    envelope.transaction.v1 = False
    envelope.signatures.clear()
    envelope.sign(ALICE.keypair)
    assert base64.b64decode(envelope.to_xdr())[:4] == bytes(4), "type 0"
    assert read_envelope(envelope.to_xdr(), TESTNET).tx_hash == envelope.hash_hex()


def test_another_signer_of_the_account_cannot_be_checked_and_is_taken() -> None:
    envelope = payment()
    envelope.signatures.clear()
    envelope.sign(Keypair.random())
    assert read_envelope(envelope.to_xdr(), TESTNET).tx_hash == envelope.hash_hex()


def unsigned(envelope: Any) -> Any:
    envelope.signatures.clear()
    return envelope


def inner_unsigned() -> Any:
    bump = BOB.fee_bump(payment())
    bump.transaction.inner_transaction_envelope.signatures.clear()
    bump.signatures.clear()
    bump.sign(BOB.keypair)
    return bump


def changed() -> Any:
    envelope = payment()
    envelope.transaction.memo = HashMemo(bytes(32))
    return envelope


def by_an_operations_source() -> Any:
    operation = Payment(BOB.account_id, Asset.native(), "1", source=BOB.account_id)
    envelope = ALICE.build([operation])
    envelope.signatures.append(BOB.keypair.sign_decorated(bytes(32)))
    return envelope


@pytest.mark.parametrize(
    ("envelope", "says"),
    [
        (unsigned(payment()), "is not signed: "),
        (unsigned(BOB.fee_bump(payment())), "is not signed: "),
        (inner_unsigned(), "is not signed: "),
        (
            payment(Wallet.named("alice", PUBLIC, lambda _: 7)),
            f"not signed for the network '{TESTNET}'",
        ),
        (
            Wallet.named("bob", PUBLIC, lambda _: 9).fee_bump(
                payment(Wallet.named("alice", PUBLIC, lambda _: 7))
            ),
            "not signed for the network",
        ),
        (changed(), "was changed after it was signed"),
        (by_an_operations_source(), "not signed for the network"),
    ],
)
def test_what_this_network_would_never_take_is_refused(envelope: Any, says: str) -> None:
    with pytest.raises(InvalidInput, match="envelope: ") as caught:
        read_envelope(envelope.to_xdr(), TESTNET)
    assert says in str(caught.value)


ALMOST = base64.b64decode(payment().to_xdr())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ab" * 32,
        "AAAA",
        "not base64!",
        "\ud800",
        ALICE.keypair.secret,
        base64.b64encode(ALMOST[:-1]).decode(),
        base64.b64encode(ALMOST + bytes(4)).decode(),
    ],
)
def test_what_is_no_envelope_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(InvalidInput, match="must be a signed transaction") as caught:
        read_envelope(text, TESTNET)
    assert not text or text not in str(caught.value)


def test_an_envelope_has_a_limit() -> None:
    with pytest.raises(InvalidInput, match="longer than any transaction"):
        read_envelope("A" * (LONGEST + 1), TESTNET)


@given(st.data())
def test_no_bytes_crash_the_reader(data: st.DataObject) -> None:
    """Bytes of an envelope, some of them others: a parser's every branch, and hostile lengths."""
    raw = bytearray(ALMOST)
    for _ in range(data.draw(st.integers(0, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(raw)))
    for text in (base64.b64encode(raw).decode(), base64.b64encode(raw[:cut]).decode()):
        with suppress(InvalidInput):
            read_envelope(text, TESTNET)
