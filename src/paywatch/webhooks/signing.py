"""Standard Webhooks 1.0.0 signatures, version v1: HMAC-SHA256 with one secret per endpoint."""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from paywatch.errors import InvalidInput

SECRET_PREFIX = "whsec_"  # noqa: S105 - the public prefix of every secret, not a secret
_FIELD = "webhook_secret"
_MIN_BYTES = 24
_MAX_BYTES = 64
_NEW_BYTES = 32
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def generate_secret(token_bytes: Callable[[int], bytes] = secrets.token_bytes) -> str:
    """A fresh endpoint secret, in the form that merchants paste into their verifier."""
    return SECRET_PREFIX + base64.b64encode(token_bytes(_NEW_BYTES)).decode("ascii")


def parse_secret(secret: str) -> bytes:
    """The key bytes of a secret.

    Raises:
        InvalidInput: not `whsec_` and base64 of 24 to 64 bytes. The secret is not repeated.
    """
    encoded = secret.removeprefix(SECRET_PREFIX)
    if encoded == secret:
        raise InvalidInput(_FIELD, f"must start with {SECRET_PREFIX!r}")
    try:
        key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput(
            _FIELD, f"what follows {SECRET_PREFIX!r} must be standard base64 with its padding"
        ) from None
    if not _MIN_BYTES <= len(key) <= _MAX_BYTES:
        raise InvalidInput(
            _FIELD, f"holds {len(key)} bytes; use {_MIN_BYTES} to {_MAX_BYTES} random bytes"
        )
    return key


def sign(secrets_: Sequence[str], event_id: str, sent_at: datetime, body: bytes) -> dict[str, str]:
    """The three headers that let the merchant verify one attempt.

    Args:
        secrets_: the current secret first; during a rotation the old one too, so that a
            receiver that knows either of them verifies.
        event_id: the same on every attempt; receivers deduplicate by it.
        sent_at: the time of this attempt, aware, in any zone.
        body: the exact bytes that will be sent.

    Raises:
        InvalidInput: a secret is malformed.
        ValueError: no secret, or `sent_at` has no zone.
    """
    if not secrets_:
        raise ValueError("sign needs at least one secret")
    if sent_at.tzinfo is None:
        raise ValueError("sent_at must be an aware datetime")
    sent = str((sent_at - _EPOCH) // timedelta(seconds=1))
    content = b".".join((event_id.encode(), sent.encode(), body))
    return {
        "webhook-id": event_id,
        "webhook-timestamp": sent,
        "webhook-signature": " ".join(_v1(parse_secret(secret), content) for secret in secrets_),
    }


def _v1(key: bytes, content: bytes) -> str:
    mac = hmac.digest(key, content, hashlib.sha256)
    return "v1," + base64.b64encode(mac).decode("ascii")
