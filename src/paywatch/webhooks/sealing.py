"""Webhook secrets at rest: AES-256-GCM, bound to the endpoint that they belong to.

A sealed secret is `version (1 byte) | nonce (12) | ciphertext and tag (16)`. Version and
endpoint id are authenticated, so a row copied to another endpoint does not open.
"""

import base64
import secrets
from collections.abc import Callable
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from paywatch.errors import SealError

SETTING = "PAYWATCH_SECRET_KEY"
_KEY_BYTES = 32
_NONCE_BYTES = 12
_TAG_BYTES = 16
_VERSION = b"\x01"


def generate_key(token_bytes: Callable[[int], bytes] = secrets.token_bytes) -> str:
    """A fresh value for `PAYWATCH_SECRET_KEY`."""
    return base64.b64encode(token_bytes(_KEY_BYTES)).decode("ascii")


class Vault:
    """Seals and opens webhook secrets with one key. Its repr shows no key.

    Args:
        key: 32 bytes; `PAYWATCH_SECRET_KEY` decoded.
        token_bytes: the source of nonces; must never repeat under one key.
    """

    __slots__ = ("_aead", "_token_bytes")

    def __init__(
        self, key: bytes, token_bytes: Callable[[int], bytes] = secrets.token_bytes
    ) -> None:
        self._aead = AESGCM(key)
        self._token_bytes = token_bytes

    def __repr__(self) -> str:
        return "Vault(**********)"

    def seal(self, secret: str, endpoint_id: UUID) -> bytes:
        """Encrypt `secret` for the endpoint; two seals of one secret differ."""
        nonce = self._token_bytes(_NONCE_BYTES)
        return _VERSION + nonce + self._aead.encrypt(nonce, secret.encode(), _aad(endpoint_id))

    def open(self, sealed: bytes, endpoint_id: UUID) -> str:
        """Decrypt what `seal` made for this endpoint.

        Raises:
            SealError: another key, another endpoint, another version, or changed bytes.
        """
        if len(sealed) < len(_VERSION) + _NONCE_BYTES + _TAG_BYTES or sealed[:1] != _VERSION:
            raise SealError(f"the webhook secret of endpoint {endpoint_id} is not a sealed secret")
        nonce, ciphertext = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            return self._aead.decrypt(nonce, ciphertext, _aad(endpoint_id)).decode()
        except InvalidTag:
            raise SealError(
                f"the webhook secret of endpoint {endpoint_id} does not open: "
                f"was {SETTING} changed since it was sealed? Put the old key back, "
                "or give the endpoint a new secret"
            ) from None


def _aad(endpoint_id: UUID) -> bytes:
    return _VERSION + endpoint_id.bytes
