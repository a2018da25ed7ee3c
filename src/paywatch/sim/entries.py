"""Ledger entries and their changes as XDR, for a transaction's meta.

Balances of contracts are left out of the changes: their entries are the contract's own business.
"""

from collections.abc import Sequence
from typing import Final

from stellar_sdk import Keypair, xdr

from paywatch.sim import contracts
from paywatch.sim.contracts import Transfer
from paywatch.sim.state import (
    Account,
    AccountKey,
    Change,
    DataEntry,
    DataKey,
    Entry,
    Key,
    LineKey,
    TrustLine,
)

AUTHORIZED: Final = 1  # TrustLineFlags.AUTHORIZED_FLAG
_Type = xdr.LedgerEntryChangeType


def changes_xdr(changes: Sequence[Change], ledger: int) -> xdr.LedgerEntryChanges:
    """State and what became of it, entry by entry, as core writes them."""
    written: list[xdr.LedgerEntryChange] = []
    for change in changes:
        data = _data(change.key, change.before)
        if data is not None:
            before = _entry(data, change.modified_before)
            written.append(xdr.LedgerEntryChange(_Type.LEDGER_ENTRY_STATE, state=before))
        after = _data(change.key, change.after)
        if after is None and data is not None:
            gone = _ledger_key(change.key)
            written.append(xdr.LedgerEntryChange(_Type.LEDGER_ENTRY_REMOVED, removed=gone))
        elif after is not None and data is None:
            new = _entry(after, ledger)
            written.append(xdr.LedgerEntryChange(_Type.LEDGER_ENTRY_CREATED, created=new))
        elif after is not None:
            new = _entry(after, ledger)
            written.append(xdr.LedgerEntryChange(_Type.LEDGER_ENTRY_UPDATED, updated=new))
    return xdr.LedgerEntryChanges(written)


def operation_meta(
    changes: Sequence[Change], transfer: Transfer | None, ledger: int
) -> xdr.OperationMetaV2:
    """What one operation changed, and the event of its contract call."""
    events = [contracts.event(transfer)] if transfer else []
    return xdr.OperationMetaV2(xdr.ExtensionPoint(0), changes_xdr(changes, ledger), events)


def tx_meta(
    before: Sequence[Change],
    operations: list[xdr.OperationMetaV2],
    ledger: int,
    *,
    soroban: bool,
) -> str:
    """A transaction's meta (version 4, protocol 23 and later) in base64."""
    none = xdr.LedgerEntryChanges([])
    called = xdr.SorobanTransactionMetaV2(xdr.SorobanTransactionMetaExt(0), None)
    v4 = xdr.TransactionMetaV4(
        xdr.ExtensionPoint(0),
        changes_xdr(before, ledger),
        operations,
        none,
        called if soroban else None,
        [],
        [],
    )
    return xdr.TransactionMeta(4, v4=v4).to_xdr()


def _entry(data: xdr.LedgerEntryData, modified: int) -> xdr.LedgerEntry:
    return xdr.LedgerEntry(xdr.Uint32(modified), data, xdr.LedgerEntryExt(0))


def _data(key: Key, entry: Entry | None) -> xdr.LedgerEntryData | None:
    if isinstance(key, AccountKey) and isinstance(entry, Account):
        return xdr.LedgerEntryData(
            xdr.LedgerEntryType.ACCOUNT, account=_account_entry(key.account_id, entry)
        )
    if isinstance(key, LineKey) and isinstance(entry, TrustLine):
        return xdr.LedgerEntryData(xdr.LedgerEntryType.TRUSTLINE, trust_line=_line(key, entry))
    if isinstance(key, DataKey) and isinstance(entry, DataEntry):
        data = xdr.DataEntry(
            _account(key.account_id),
            xdr.String64(key.name.encode()),
            xdr.DataValue(entry.value),
            xdr.DataEntryExt(0),
        )
        return xdr.LedgerEntryData(xdr.LedgerEntryType.DATA, data=data)
    return None


def _account_entry(account_id: str, account: Account) -> xdr.AccountEntry:
    return xdr.AccountEntry(
        account_id=_account(account_id),
        balance=xdr.Int64(account.balance),
        seq_num=xdr.SequenceNumber(xdr.Int64(account.sequence)),
        num_sub_entries=xdr.Uint32(account.subentries),
        inflation_dest=None,
        flags=xdr.Uint32(0),
        home_domain=xdr.String32(account.home_domain.encode()),
        thresholds=xdr.Thresholds(b"\x01\x00\x00\x00"),  # the master key alone
        signers=[],
        ext=xdr.AccountEntryExt(0),
    )


def _line(key: LineKey, line: TrustLine) -> xdr.TrustLineEntry:
    return xdr.TrustLineEntry(
        account_id=_account(key.account_id),
        asset=key.asset.to_trust_line_asset_xdr_object(),
        balance=xdr.Int64(line.balance),
        limit=xdr.Int64(line.limit),
        flags=xdr.Uint32(AUTHORIZED),
        ext=xdr.TrustLineEntryExt(0),
    )


def _ledger_key(key: Key) -> xdr.LedgerKey:
    kind = xdr.LedgerEntryType
    if isinstance(key, AccountKey):
        return xdr.LedgerKey(kind.ACCOUNT, account=xdr.LedgerKeyAccount(_account(key.account_id)))
    if isinstance(key, LineKey):
        line = xdr.LedgerKeyTrustLine(
            _account(key.account_id), key.asset.to_trust_line_asset_xdr_object()
        )
        return xdr.LedgerKey(kind.TRUSTLINE, trust_line=line)
    if isinstance(key, DataKey):
        data = xdr.LedgerKeyData(_account(key.account_id), xdr.String64(key.name.encode()))
        return xdr.LedgerKey(kind.DATA, data=data)
    raise TypeError(f"{type(key).__name__} is not described in meta")


def _account(account_id: str) -> xdr.AccountID:
    return Keypair.from_public_key(account_id).xdr_account_id()
