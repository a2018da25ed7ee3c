"""What a merchant tolerates, and what it comes to for one session."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from paywatch.domain.checkout import Terms
from paywatch.errors import InvalidInput

BASIS_POINTS: Final = 10_000
MOST_TOLERANCE_BPS: Final = 1_000  # a tenth: above that it is a discount
LONGEST_GRACE: Final = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Policy:
    """One merchant's policy; the defaults give nothing away.

    Attributes:
        tolerance_bps: how much may be missing of an amount, in hundredths of a percent.
        late_grace: how long after the deadline a payment still counts; None holds it.
        text_for_id: whether a text memo of an id's digits names the session: some wallets offer
            no other kind.
    """

    tolerance_bps: int = 0
    late_grace: timedelta | None = None
    text_for_id: bool = True

    def __post_init__(self) -> None:
        """Refuse what is no policy.

        Raises:
            InvalidInput: a value is out of its bounds.
        """
        if not 0 <= self.tolerance_bps <= MOST_TOLERANCE_BPS:
            raise InvalidInput("tolerance", "must be between 0 and 10 percent")
        if self.late_grace is not None and not timedelta(0) < self.late_grace <= LONGEST_GRACE:
            raise InvalidInput("late_grace", "must be longer than nothing and at most 30 days")

    def terms(self, amount: int, expires_at: datetime) -> Terms:
        """Fix what this policy means for a session over `amount` stroops.

        What may be missing is rounded down: the merchant never gets less than the policy says,
        and never nothing.
        """
        missing = amount * self.tolerance_bps // BASIS_POINTS
        return Terms(
            least_amount=amount - missing,
            accept_until=expires_at + (self.late_grace or timedelta(0)),
            text_for_id=self.text_for_id,
        )
