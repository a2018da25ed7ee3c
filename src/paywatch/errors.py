"""Every error that paywatch raises on purpose.

::

    PaywatchError
    ├── ConfigError              settings: all problems at once
    ├── InvalidInput             a value from outside: names the field and the remedy
    ├── NotFound                 no such merchant, session or event
    ├── RecordError              a Horizon record that cannot be read: quarantined
    ├── StoreError
    │   ├── CursorMoved          another instance moved the cursor: stand down
    │   ├── DatabaseAway         it was away when the work was to end: it is done again later
    │   └── MigrationError       the schema is not the program's
    ├── HorizonError
    │   ├── HorizonUnavailable   try again later, after `retry_after` seconds if given
    │   ├── WrongNetwork         not the network of the settings: refuse to start
    │   ├── HistoryGap           the cursor is older than the history kept
    │   └── NetworkReset         the ledger is behind the cursor: another history
    ├── WebhookRefused           a POST may not go there
    └── SealError                a sealed secret cannot be opened

An error's docstring is its default message.
"""

from collections.abc import Sequence


class PaywatchError(Exception):
    """Something in paywatch went wrong."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or type(self).__name__).strip())


class ConfigError(PaywatchError):
    """The settings are not usable."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


class InvalidInput(PaywatchError):
    """A value is not usable."""

    def __init__(self, field: str, problem: str) -> None:
        self.field = field
        super().__init__(f"{field}: {problem}")


class NotFound(PaywatchError):
    """There is no such thing."""


class RecordError(PaywatchError):
    """A Horizon record could not be read."""


class StoreError(PaywatchError):
    """The database refused."""


class CursorMoved(StoreError):
    """Another instance moved this cursor: it leads, this one stands down."""


class DatabaseAway(StoreError):
    """The database was away when the work was to end: it is done again later."""


class MigrationError(StoreError):
    """The database schema is not the one that this version needs: run `paywatch migrate`."""


class HorizonError(PaywatchError):
    """Horizon answered something that paywatch cannot go on with."""


class HorizonUnavailable(HorizonError):
    """Horizon could not be read just now.

    Args:
        reason: a short word for the metric's label (`timeout`, `status_503`, `malformed`, …).
        message: what happened, for the log.
        retry_after: seconds that Horizon asked to wait, if it did.
    """

    def __init__(self, reason: str, message: str, retry_after: float | None = None) -> None:
        self.reason = reason
        self.retry_after = retry_after
        super().__init__(message)


class WrongNetwork(HorizonError):
    """Horizon serves another network than PAYWATCH_NETWORK_PASSPHRASE names."""


class HistoryGap(HorizonError):
    """The cursor is older than the oldest ledger that this Horizon keeps.

    Args:
        message: what is missing.
        elder: the oldest ledger that is kept; None if that is not known.
    """

    def __init__(self, message: str | None = None, elder: int | None = None) -> None:
        self.elder = elder
        super().__init__(message or "The cursor is older than the oldest ledger kept.")


class NetworkReset(HorizonError):
    """Horizon's latest ledger is far behind the cursor: the network began again."""


class WebhookRefused(PaywatchError):
    """A webhook may not be sent there."""


class SealError(PaywatchError):
    """A sealed secret cannot be opened: wrong PAYWATCH_SECRET_KEY, or the row was changed."""
