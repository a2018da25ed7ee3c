import base64
import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from paywatch.errors import InvalidInput
from paywatch.webhooks.signing import generate_secret, parse_secret, sign

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
EVENT_ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
SENT_AT = datetime.fromtimestamp(1614265330, UTC)
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def secret_of(key: bytes) -> str:
    return "whsec_" + base64.b64encode(key).decode()


def test_the_published_vector_is_reproduced_byte_for_byte() -> None:
    assert sign([SECRET], EVENT_ID, SENT_AT, BODY) == {
        "webhook-id": EVENT_ID,
        "webhook-timestamp": "1614265330",
        "webhook-signature": SIGNATURE,
    }


@pytest.mark.parametrize("hours", [-11, 2, 14])
def test_the_zone_of_the_time_changes_nothing(hours: int) -> None:
    elsewhere = SENT_AT.astimezone(timezone(timedelta(hours=hours)))
    assert sign([SECRET], EVENT_ID, elsewhere, BODY)["webhook-signature"] == SIGNATURE


def test_fractions_of_a_second_are_cut_off() -> None:
    late = SENT_AT + timedelta(microseconds=999_999)
    assert sign([SECRET], EVENT_ID, late, BODY)["webhook-signature"] == SIGNATURE


def test_a_time_without_a_zone_is_a_bug_of_ours() -> None:
    with pytest.raises(ValueError, match="aware"):
        sign([SECRET], EVENT_ID, SENT_AT.replace(tzinfo=None), BODY)


def test_no_secret_is_a_bug_of_ours() -> None:
    with pytest.raises(ValueError, match="secret"):
        sign([], EVENT_ID, SENT_AT, BODY)


def test_rotation_signs_with_each_secret_and_either_verifies() -> None:
    new, old = generate_secret(), generate_secret()
    now = datetime.now(UTC)
    headers = sign([new, old], EVENT_ID, now, BODY)
    first, second = headers["webhook-signature"].split(" ")
    assert first == sign([new], EVENT_ID, now, BODY)["webhook-signature"]
    assert second == sign([old], EVENT_ID, now, BODY)["webhook-signature"]
    for secret in (new, old):
        assert Webhook(secret).verify(BODY, headers) == json.loads(BODY)


@given(
    key=st.binary(min_size=24, max_size=64),
    event_id=st.uuids().map(str),
    body=st.dictionaries(st.text(), st.text() | st.integers()).map(json.dumps),
    hours=st.integers(-12, 14),
)
def test_the_official_verifier_accepts_what_we_sign(
    key: bytes, event_id: str, body: str, hours: int
) -> None:
    now = datetime.now(timezone(timedelta(hours=hours)))
    headers = sign([secret_of(key)], event_id, now, body.encode())
    assert Webhook(secret_of(key)).verify(body, headers) == json.loads(body)


def test_a_generated_secret_is_32_random_bytes() -> None:
    assert len(parse_secret(generate_secret())) == 32
    assert generate_secret() != generate_secret()
    assert generate_secret(lambda n: b"\x07" * n) == secret_of(b"\x07" * 32)


@pytest.mark.parametrize("size", [24, 32, 64])
def test_24_to_64_bytes_are_accepted(size: int) -> None:
    assert parse_secret(secret_of(b"k" * size)) == b"k" * size


@pytest.mark.parametrize(
    ("secret", "problem"),
    [
        ("", "whsec_"),
        (base64.b64encode(b"k" * 32).decode(), "whsec_"),
        ("whsk_" + base64.b64encode(b"k" * 32).decode(), "whsec_"),
        ("whsec_", "0 bytes"),
        (secret_of(b"k"), "1 bytes"),
        (secret_of(b"k" * 23), "23 bytes"),
        (secret_of(b"k" * 65), "65 bytes"),
        (secret_of(b"k" * 32).rstrip("="), "base64"),
        (secret_of(b"k" * 32) + "\n", "base64"),
        ("whsec_____________________________________________", "base64"),
        ("whsec_ünïcödé", "base64"),
    ],
)
def test_other_secrets_are_refused_and_not_repeated(secret: str, problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem) as caught:
        parse_secret(secret)
    assert caught.value.field == "webhook_secret"
    key = secret.removeprefix("whsec_").strip("_\n")
    assert not key or key not in str(caught.value)
