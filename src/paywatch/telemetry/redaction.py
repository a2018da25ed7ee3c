"""Keeping secrets out of the log, even if somebody logs them.

Three nets, one behind the other: fields whose name says that they are secret; the very secrets
of this process, known by value; and the shapes that secrets have. The last two work on the
rendered line, so that they see tracebacks, nested values and other libraries' messages too.
"""

import json
import re
from collections.abc import Iterable, Mapping

from structlog.types import EventDict, WrappedLogger

REDACTED = "[redacted]"

_SECRET_NAME = re.compile(
    r"(^|_)(secret|secret_key|webhook_secret|private_key|api_key|password|seed|authorization)$",
    re.IGNORECASE,
)

# A line for a batch has 50 KB. Each pattern begins with letters that the engine looks for at once;
# what has to stand before them is asked behind them. The one that begins with none, for it ignores
# case, is tried only where its word is.
_SHAPES = (
    # A Stellar secret seed, of whatever checksum: better one word too many than one seed.
    (re.compile(r"S[A-Z2-7]{55}(?<![A-Z0-9]S[A-Z2-7]{55})(?![A-Z0-9])"), REDACTED),
    # Standard Webhooks: a symmetric secret, and the private half of an Ed25519 key.
    (re.compile(r"(whs(?<!\wwhs)(?:ec|k)_)[A-Za-z0-9+/=_-]+"), rf"\1{REDACTED}"),
    # Up to the last @ before a space: an unescaped @ in a password is common.
    (re.compile(r"(postgres(?:ql)?(?:\+\w+)?://[^\s:/@]*:)\S+@"), rf"\1{REDACTED}@"),
)
# libpq's `password=…`, in a connection string or a URL's query.
_PASSWORD = re.compile(r"(?i)\b((?:ssl)?password\s*=\s*)('[^']*'|[^\s&\"'\\]+)")
# Behind that one: it could take a password's name for the key, and leave the password.
_KEY = re.compile(r"(PAYWATCH_SECRET_KEY\W{1,8}?)[A-Za-z0-9+/_-]+=*")

# A shorter "secret" would redact half the log and say more than it hides.
_SHORTEST_SECRET = 6


def redact_named(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Structlog's processor for fields that are secret by name, however deep."""
    return {name: _redact_field(name, value) for name, value in event.items()}


def _redact_field(name: object, value: object) -> object:
    if isinstance(name, str) and _SECRET_NAME.search(name):
        return REDACTED
    if isinstance(value, Mapping):
        return {inner: _redact_field(inner, item) for inner, item in value.items()}
    return value


class Redactor:
    """Takes secrets out of a rendered line.

    Args:
        secrets: the secrets of this process, such as the database's password.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = {secret for secret in secrets if len(secret) >= _SHORTEST_SECRET}
        # As they stand, as repr shows them, and both as JSON writes them.
        shown = known | {repr(secret)[1:-1] for secret in known}
        spellings = shown | {json.dumps(secret)[1:-1] for secret in shown}
        # The longest first: one may contain another.
        self._known = sorted(spellings, key=len, reverse=True)

    def redact(self, line: str) -> str:
        """The line without its secrets."""
        for secret in self._known:
            line = line.replace(secret, REDACTED)
        for shape, instead in _SHAPES:
            line = shape.sub(instead, line)
        if "password" in line.casefold():
            line = _PASSWORD.sub(rf"\1{REDACTED}", line)
        return _KEY.sub(rf"\1{REDACTED}", line)

    def __call__(self, _logger: WrappedLogger, _method: str, line: str) -> str:
        """Structlog's processor, after the renderer."""
        return self.redact(line)
