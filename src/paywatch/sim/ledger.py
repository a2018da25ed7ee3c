"""The simulated ledger: it takes signed envelopes and closes ledgers on command.

It has no clock and no randomness: the same envelopes at the same times give the same ledgers, to
the last hash. Transactions are applied in the order they came in.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from fractions import Fraction
from typing import Final

from stellar_sdk import Asset, Operation, xdr

from paywatch.sim import operations
from paywatch.sim.envelopes import (
    Moment,
    SignedTx,
    read_envelope,
    refusal,
    root_keypair,
)
from paywatch.sim.exchange import Rates
from paywatch.sim.headers import Totals, genesis, next_ledger
from paywatch.sim.history import AppliedTx, ClosedLedger, History
from paywatch.sim.ingest import Application, AppliedStep, ingest_operations, ingest_tx
from paywatch.sim.operations import Surroundings
from paywatch.sim.results import fee_bump_result, succeeded, tx_result
from paywatch.sim.state import Account, AccountKey, Change, State

NETWORK: Final = "Simulated paywatch network ; 2026"  # its passphrase
TOTAL_COINS: Final = 1_000_000_000_000_000_000  # stroops: a hundred thousand million lumens
_Code = xdr.TransactionResultCode


class TxRefused(Exception):
    """A transaction may not enter the ledger; `result` says why, as the network would."""

    def __init__(self, signed: SignedTx, result: xdr.TransactionResult) -> None:
        super().__init__(f"{signed.hash.hex()}: {result.result.code.name}")
        self.signed = signed
        self.result = result


@dataclass(frozen=True, slots=True)
class Settings:
    """What a ledger begins with.

    Args:
        passphrase: the network's name; every signature is bound to it.
        first_ledger: the number of the genesis ledger. Above 1 gives positions as long as real
            ones, as if the network had run for years.
        rates: what the market maker gives for one unit: (given, got) -> units got. Give them here
            rather than later where a journal is kept: it does not remember them.
    """

    passphrase: str = NETWORK
    first_ledger: int = 1
    rates: Mapping[tuple[Asset, Asset], Fraction] | None = None


class Ledger:
    """State, history, and the transactions that wait for the next ledger.

    Args:
        started_at: when the genesis ledger closed, aware and UTC.
        settings: the network's name, first number and rates.
    """

    def __init__(self, started_at: datetime, settings: Settings | None = None) -> None:
        settings = settings or Settings()
        self.passphrase = settings.passphrase
        self.rates = Rates(settings.rates)
        self.state = State()
        self.history = History()
        self._totals = Totals(TOTAL_COINS, fee_pool=0)
        self._pending: dict[str, SignedTx] = {}
        self._waiting: Counter[str] = Counter()  # of each source, among the pending
        self._assets: dict[str, Asset] = {}  # by the id of the asset's contract
        self._contracts: dict[Asset, str] = {}
        self._know(Asset.native())
        self.state.sequence = settings.first_ledger
        root = root_keypair(self.passphrase).public_key
        self.state.put(AccountKey(root), Account(TOTAL_COINS, sequence=0))
        self.state.commit()
        self.history.ledgers.append(genesis(settings.first_ledger, started_at, self._totals))

    @property
    def latest(self) -> ClosedLedger:
        """The ledger that closed last."""
        return self.history.ledgers[-1]

    def next_sequence(self, account_id: str) -> int:
        """The sequence number for an account's next transaction, behind those that wait.

        Raises:
            LookupError: there is no such account.
        """
        account = self.state.account(account_id)
        if account is None:
            raise LookupError(f"{account_id}: no such account; create it first")
        return account.sequence + 1 + self._waiting[account_id]

    def submit(self, envelope_xdr: str) -> SignedTx:
        """Take a transaction for the next ledger; one that waits already is taken once.

        Raises:
            MalformedEnvelope: it cannot be read.
            TxRefused: the network would not take it.
        """
        signed = read_envelope(envelope_xdr, self.passphrase)
        key = signed.hash.hex()
        if key in self._pending:
            return self._pending[key]
        closed_at = int(self.latest.closed_at.timestamp())
        refused = self._refusal(signed, self._waiting[signed.source], closed_at)
        if refused is not None:
            raise TxRefused(signed, refused)
        self._pending[key] = signed
        self._waiting[signed.source] += 1
        return signed

    def pending(self) -> list[str]:
        """The envelopes that wait for the next ledger, in order."""
        return [signed.envelope_xdr for signed in self._pending.values()]

    def close(self, closed_at: datetime) -> ClosedLedger:
        """Apply everything that waits, as one ledger.

        Raises:
            ValueError: the time is not aware, or before the last ledger's.
        """
        if closed_at.tzinfo is None or closed_at < self.latest.closed_at:
            raise ValueError(f"closed_at: must be aware and not before {self.latest.closed_at}")
        self.state.sequence = self.latest.sequence + 1
        waiting, self._pending = self._pending, {}
        self._waiting.clear()
        refused: dict[str, xdr.TransactionResult] = {}
        applied: list[AppliedTx] = []
        for key, signed in waiting.items():
            result = self._refusal(signed, 0, int(closed_at.timestamp()))
            if result is not None:
                refused[key] = result
            else:
                applied.append(self._apply(signed, len(applied) + 1, closed_at))
        fees = sum(tx.fee_charged for tx in applied)
        self._totals = replace(self._totals, fee_pool=self._totals.fee_pool + fees)
        closed = next_ledger(self.latest, closed_at, applied, self._totals)
        self.history.ledgers.append(replace(closed, refused=refused))
        return self.latest

    def asset_of_contract(self, contract_id: str) -> Asset | None:
        """The asset whose own contract this is, if anybody ever held it."""
        return self._assets.get(contract_id)

    def _refusal(
        self, signed: SignedTx, ahead: int, closed_at: int
    ) -> xdr.TransactionResult | None:
        account = self.state.account(signed.source)
        next_sequence = (account.sequence if account else 0) + 1 + ahead
        ledger = self.latest.sequence + 1
        return refusal(signed, Moment(self.state, ledger, closed_at, next_sequence))

    def _apply(self, signed: SignedTx, order: int, closed_at: datetime) -> AppliedTx:
        start = self.state.mark()
        self._charge(signed)
        fee_changes = self.state.changes_since(start)
        used = self.state.mark()
        self._use_sequence(signed, closed_at)
        sequence_changes = self.state.changes_since(used)
        steps = self._try_operations(signed)
        results = [step.outcome.result for step in steps]
        ok = all(succeeded(result) for result in results)
        done = Application(
            signed=signed,
            ledger=self.state.sequence,
            order=order,
            closed_at=closed_at,
            result=_result(signed, results, ok=ok),
            successful=ok,
            fee_changes=fee_changes,
            sequence_changes=sequence_changes,
            steps=steps,
        )
        tx = ingest_tx(done)
        self.history.append(tx, ingest_operations(done, tx))
        self.state.commit()
        return tx

    def _charge(self, signed: SignedTx) -> None:
        payer = signed.fee_source.account_id
        account = self.state.account(payer)
        if account is not None:  # checked a moment ago
            rest = replace(account, balance=account.balance - signed.fee_charged)
            self.state.put(AccountKey(payer), rest)

    def _use_sequence(self, signed: SignedTx, closed_at: datetime) -> None:
        account = self.state.account(signed.source)
        if account is not None:
            used = replace(
                account,
                sequence=signed.tx.sequence,
                sequence_ledger=self.state.sequence,
                sequence_time=int(closed_at.timestamp()),
            )
            self.state.put(AccountKey(signed.source), used)

    def _try_operations(self, signed: SignedTx) -> Sequence[AppliedStep]:
        """Try every operation, also behind one that failed; a failure takes all of them back."""
        at = Surroundings(self.state, self.rates, self.state.sequence, self.asset_of_contract)
        begin = self.state.mark()
        steps = [self._try(at, operation, signed) for operation in signed.tx.operations]
        if not all(succeeded(step.outcome.result) for step in steps):
            self.state.roll_back(begin)
        return steps

    def _try(self, at: Surroundings, operation: Operation, signed: SignedTx) -> AppliedStep:
        source = operation.source or signed.tx.source
        mark = self.state.mark()
        outcome = operations.apply(at, operation, source.account_id)
        changes = self.state.changes_since(mark)
        self._learn(changes)
        return AppliedStep(operation, source, outcome, changes)

    def _learn(self, changes: Sequence[Change]) -> None:
        for change in changes:
            asset = getattr(change.key, "asset", None)
            if asset is not None:
                self._know(asset)

    def _know(self, asset: Asset) -> None:
        if asset not in self._contracts:
            self._contracts[asset] = asset.contract_id(self.passphrase)
            self._assets[self._contracts[asset]] = asset


def _result(
    signed: SignedTx, results: list[xdr.OperationResult], *, ok: bool
) -> xdr.TransactionResult:
    code = _Code.txSUCCESS if ok else _Code.txFAILED
    plain = tx_result(code, signed.fee_charged, results)
    if signed.inner_hash is None:
        return plain
    return fee_bump_result(signed.inner_hash, plain, signed.fee_charged)
