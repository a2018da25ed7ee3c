"""Ledger headers: real XDR, chained by hash."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from stellar_sdk import xdr

from paywatch.sim.envelopes import BASE_FEE
from paywatch.sim.history import AppliedTx, ClosedLedger
from paywatch.sim.state import BASE_RESERVE

PROTOCOL: Final = 25
MAX_TX_SET_SIZE: Final = 1000
_NO_HASH: Final = "0" * 64


@dataclass(frozen=True, slots=True)
class Totals:
    """All lumens there are, and those paid in fees so far, in stroops."""

    coins: int
    fee_pool: int


def genesis(sequence: int, closed_at: datetime, totals: Totals) -> ClosedLedger:
    """The first ledger, which holds no transactions.

    Its header knows no time: after a reset it is the same again, to the hash, as the testnet's is.
    """
    made = _ledger(sequence, datetime.fromtimestamp(0, UTC), _NO_HASH, (), totals)
    return replace(made, closed_at=closed_at)


def next_ledger(
    previous: ClosedLedger, closed_at: datetime, applied: Sequence[AppliedTx], totals: Totals
) -> ClosedLedger:
    """The ledger after `previous`."""
    return _ledger(previous.sequence + 1, closed_at, previous.hash, applied, totals)


def _ledger(
    sequence: int,
    closed_at: datetime,
    previous_hash: str,
    applied: Sequence[AppliedTx],
    totals: Totals,
) -> ClosedLedger:
    header = _header(sequence, closed_at, previous_hash, applied, totals)
    successful = [tx for tx in applied if tx.successful]
    return ClosedLedger(
        sequence=sequence,
        closed_at=closed_at,
        hash=hashlib.sha256(header.to_xdr_bytes()).hexdigest(),
        previous_hash=previous_hash,
        header_xdr=header.to_xdr(),
        successful=len(successful),
        failed=len(applied) - len(successful),
        operations=sum(tx.operation_count for tx in successful),
        tx_set_operations=sum(tx.operation_count for tx in applied),
        total_coins=totals.coins,
        fee_pool=totals.fee_pool,
    )


def _header(
    sequence: int,
    closed_at: datetime,
    previous_hash: str,
    applied: Sequence[AppliedTx],
    totals: Totals,
) -> xdr.LedgerHeader:
    tx_set = hashlib.sha256("".join(tx.hash for tx in applied).encode()).digest()
    results = hashlib.sha256("".join(tx.result_xdr for tx in applied).encode()).digest()
    zero = xdr.Hash(bytes(32))
    close_time = xdr.TimePoint(xdr.Uint64(int(closed_at.timestamp())))
    basic = xdr.StellarValueExt(xdr.StellarValueType.STELLAR_VALUE_BASIC)
    return xdr.LedgerHeader(
        ledger_version=xdr.Uint32(PROTOCOL),
        previous_ledger_hash=xdr.Hash(bytes.fromhex(previous_hash)),
        scp_value=xdr.StellarValue(xdr.Hash(tx_set), close_time, [], basic),
        tx_set_result_hash=xdr.Hash(results),
        bucket_list_hash=zero,  # the state's own hash is not simulated
        ledger_seq=xdr.Uint32(sequence),
        total_coins=xdr.Int64(totals.coins),
        fee_pool=xdr.Int64(totals.fee_pool),
        inflation_seq=xdr.Uint32(0),
        id_pool=xdr.Uint64(0),
        base_fee=xdr.Uint32(BASE_FEE),
        base_reserve=xdr.Uint32(BASE_RESERVE),
        max_tx_set_size=xdr.Uint32(MAX_TX_SET_SIZE),
        skip_list=[zero] * 4,
        ext=xdr.LedgerHeaderExt(0),
    )
