"""A transaction's meta: every entry that it touched, before and after."""

from stellar_sdk import AccountMerge, ChangeTrust, ManageData, StrKey, xdr

from paywatch.sim.history import AppliedTx
from support.sim_town import Town

Change = xdr.LedgerEntryChange
Kind = xdr.LedgerEntryChangeType


def operation_changes(tx: AppliedTx) -> list[Change]:
    meta = xdr.TransactionMeta.from_xdr(tx.meta_xdr).v4
    assert meta is not None
    (operation,) = meta.operations
    return operation.changes.ledger_entry_changes


def balances(changes: list[Change]) -> list[tuple[str, str, int]]:
    """Account, kind of change and balance of each account entry."""
    found = []
    for change in changes:
        entry = change.state or change.updated or change.created
        if entry is not None and entry.data.account is not None:
            account = entry.data.account
            key = account.account_id.account_id.ed25519
            assert key is not None
            address = StrKey.encode_ed25519_public_key(key.uint256)
            found.append((address, change.type.name, account.balance.int64))
    return found


def kinds(changes: list[Change]) -> list[str]:
    return [change.type.name.removeprefix("LEDGER_ENTRY_") for change in changes]


def test_a_payment_shows_both_accounts_before_and_after(town: Town) -> None:
    alice, bob = town.lumens(town.alice), town.lumens(town.bob)

    tx = town.settle(town.alice.pay(town.bob.account_id, "1"))

    assert balances(operation_changes(tx)) == [
        (town.bob.account_id, Kind.LEDGER_ENTRY_STATE.name, bob),
        (town.bob.account_id, Kind.LEDGER_ENTRY_UPDATED.name, bob + 10_000_000),
        (town.alice.account_id, Kind.LEDGER_ENTRY_STATE.name, alice - 100),
        (town.alice.account_id, Kind.LEDGER_ENTRY_UPDATED.name, alice - 100 - 10_000_000),
    ]
    fee = xdr.LedgerEntryChanges.from_xdr(tx.fee_meta_xdr).ledger_entry_changes
    assert [balance for _, _, balance in balances(fee)] == [alice, alice - 100]


def test_entries_are_created_and_removed(town: Town) -> None:
    usd, eur = town.issuer.asset("USD"), town.issuer.asset("EUR")
    made = town.settle(town.bob.build([ChangeTrust(eur)]))
    noted = town.settle(town.bob.build([ManageData("note", b"x")]))
    gone = town.settle(town.bob.build([ChangeTrust(usd, "0")]))
    merged = town.settle(town.alice.build([AccountMerge(town.bob.account_id)]))
    assert kinds(operation_changes(made)) == ["STATE", "UPDATED", "CREATED"]
    assert kinds(operation_changes(noted)) == ["STATE", "UPDATED", "CREATED"]
    assert kinds(operation_changes(gone)) == ["STATE", "UPDATED", "STATE", "REMOVED"]
    assert kinds(operation_changes(merged)) == ["STATE", "REMOVED", "STATE", "UPDATED"]


def test_a_failed_transaction_changed_nothing_but_fee_and_sequence(town: Town) -> None:
    tx = town.settle(town.alice.pay(town.bob.account_id, "999999"))
    meta = xdr.TransactionMeta.from_xdr(tx.meta_xdr).v4
    assert meta is not None
    assert meta.operations == []
    assert kinds(meta.tx_changes_before.ledger_entry_changes) == ["STATE", "UPDATED"]
