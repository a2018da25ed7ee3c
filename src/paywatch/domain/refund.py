"""Whether a transaction on the ledger has paid a held credit back."""

from dataclasses import dataclass
from typing import Self

from paywatch.domain.announcement import Trace, TxState
from paywatch.domain.ledger import Credit, format_stroops
from paywatch.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Refund:
    """What one transaction has paid back to the payer of a credit.

    Attributes:
        tx_hash: its outer hash, whichever it was looked up by.
        amount: stroops of the credit's asset that have arrived.
    """

    tx_hash: str
    amount: int

    @classmethod
    def of(cls, credit: Credit, trace: Trace) -> Self:
        """Take what the account that was credited has paid to the payer afterwards, by position.

        Args:
            credit: what is to be returned.
            trace: the transaction, looked up for credits to the payer.

        Raises:
            InvalidInput: it has returned nothing of this credit, or cannot be read.
        """
        if trace.state is TxState.UNKNOWN:
            tip = trace.tip_closed_at.isoformat()
            raise InvalidInput("tx", f"is not on the ledger up to {tip}; check it, or repeat later")
        if trace.state is TxState.FAILED:
            raise InvalidInput("tx", "has failed on the ledger: nothing was paid back by it")
        if problems := [record.problem for record in trace.records if record.problem is not None]:
            raise InvalidInput("tx", f"cannot be read: {problems[0]}")
        back = [
            paid
            for record in trace.records
            for paid in record.credits
            if (paid.payer, paid.account, paid.asset)
            == (credit.account, credit.payer, credit.asset)
            and paid.operation_id > credit.operation_id
        ]
        if not back:
            raise InvalidInput(
                "tx",
                f"has paid no {credit.asset} from {credit.account} to {credit.payer} after the"
                " credit: give the transaction that did",
            )
        return cls(back[0].tx_hash, sum(paid.amount for paid in back))

    def require_cover(self, credit: Credit, returned: int) -> None:
        """Refuse to return more than has been paid back.

        Args:
            credit: what is to be returned.
            returned: stroops of other credits of that payer that it has returned already.

        Raises:
            InvalidInput: naming what is left.
        """
        left = self.amount - returned
        if left < credit.amount:
            raise InvalidInput(
                "tx",
                f"has {format_stroops(left)} left to return, the credit is"
                f" {format_stroops(credit.amount)}: pay the whole of it back in one transaction",
            )
