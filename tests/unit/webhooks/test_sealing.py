import base64
from uuid import UUID

import pytest

from paywatch.errors import SealError
from paywatch.webhooks.sealing import Vault, generate_key
from paywatch.webhooks.signing import generate_secret

ENDPOINT = UUID("0a6f4d0e-0000-4000-8000-000000000001")
OTHER_ENDPOINT = UUID("0a6f4d0e-0000-4000-8000-000000000002")
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def new_key() -> bytes:
    return base64.b64decode(generate_key(), validate=True)


@pytest.fixture
def vault() -> Vault:
    return Vault(new_key())


def test_what_is_sealed_opens_for_its_endpoint(vault: Vault) -> None:
    secret = generate_secret()
    assert vault.open(vault.seal(secret, ENDPOINT), ENDPOINT) == secret


def test_sealed_bytes_hold_no_secret_and_never_repeat(vault: Vault) -> None:
    first, second = vault.seal(SECRET, ENDPOINT), vault.seal(SECRET, ENDPOINT)
    assert first[:1] == second[:1] == b"\x01"
    assert first[1:13] != second[1:13]
    assert SECRET.encode() not in first
    assert len(first) == 1 + 12 + len(SECRET) + 16


def test_another_endpoint_does_not_open_it(vault: Vault) -> None:
    sealed = vault.seal(SECRET, ENDPOINT)
    with pytest.raises(SealError, match=str(OTHER_ENDPOINT)):
        vault.open(sealed, OTHER_ENDPOINT)


def test_another_key_does_not_open_it(vault: Vault) -> None:
    with pytest.raises(SealError, match="PAYWATCH_SECRET_KEY") as caught:
        Vault(new_key()).open(vault.seal(SECRET, ENDPOINT), ENDPOINT)
    assert SECRET not in str(caught.value)


def test_a_change_of_any_byte_is_noticed(vault: Vault) -> None:
    sealed = vault.seal(SECRET, ENDPOINT)
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(SealError):
            vault.open(bytes(changed), ENDPOINT)


@pytest.mark.parametrize("length", [0, 1, 12, 28])
def test_a_cut_value_is_not_a_sealed_secret(vault: Vault, length: int) -> None:
    with pytest.raises(SealError, match="not a sealed secret"):
        vault.open(vault.seal(SECRET, ENDPOINT)[:length], ENDPOINT)


def test_a_vault_shows_no_key() -> None:
    key = new_key()
    assert repr(Vault(key)) == str(Vault(key)) == "Vault(**********)"


def test_a_generated_key_is_base64_of_32_random_bytes() -> None:
    assert len(new_key()) == 32
    assert generate_key() != generate_key()
    assert generate_key(lambda n: b"\0" * n) == "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
