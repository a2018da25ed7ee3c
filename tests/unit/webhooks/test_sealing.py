import base64
from uuid import UUID

import pytest

from paywatch.errors import ConfigError, SealError
from paywatch.webhooks.sealing import Vault, generate_key, parse_key
from paywatch.webhooks.signing import generate_secret

ENDPOINT = UUID("0a6f4d0e-0000-4000-8000-000000000001")
OTHER_ENDPOINT = UUID("0a6f4d0e-0000-4000-8000-000000000002")
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
def vault() -> Vault:
    return Vault(parse_key(generate_key()))


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
        Vault(parse_key(generate_key())).open(vault.seal(SECRET, ENDPOINT), ENDPOINT)
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
    key = parse_key(generate_key())
    assert repr(Vault(key)) == str(Vault(key)) == "Vault(**********)"


def test_a_generated_key_is_a_valid_setting() -> None:
    assert len(parse_key(generate_key())) == 32
    assert generate_key() != generate_key()
    assert parse_key(generate_key() + "\n")  # as `openssl rand` and credential files end


@pytest.mark.parametrize(
    "text",
    ["", "secret", base64.b64encode(b"k" * 31).decode(), base64.b64encode(b"k" * 33).decode(), "ü"],
)
def test_a_bad_key_names_the_setting_and_the_remedy(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_key(text)
    assert "PAYWATCH_SECRET_KEY" in str(caught.value)
    assert "openssl rand -base64 32" in str(caught.value)
    assert not text or text not in str(caught.value)
