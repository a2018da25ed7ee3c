"""The README's ways to verify a webhook, run against a delivery that paywatch signed."""

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from standardwebhooks import WebhookVerificationError

from paywatch.domain.checkout import CheckoutSession, SessionStatus
from paywatch.domain.events import event_id, payment_unapplied, session_expired, session_paid
from paywatch.domain.ledger import Asset, Credit, Memo, Position
from paywatch.domain.policy import Policy
from paywatch.domain.settlement import HeldCredit, Outcome
from paywatch.webhooks.signing import generate_secret, sign
from support import address
from support.documents import ROOT, blocks, examples

README = ROOT / "README.md"
SECRET = generate_secret()

# Of the official library's interface, what the example uses. The library itself is not here: a
# test may not fetch it.
LIBRARY = """
import { createHmac } from "node:crypto";
export class Webhook {
  constructor(secret) { this.key = Buffer.from(secret.slice("whsec_".length), "base64"); }
  verify(payload, headers) {
    const id = headers["webhook-id"], sent = headers["webhook-timestamp"];
    const mac = createHmac("sha256", this.key).update(`${id}.${sent}.${payload}`).digest("base64");
    if (Math.abs(Date.now() / 1000 - sent) > 300) throw new Error("too old or too new");
    const given = headers["webhook-signature"].split(" ");
    if (!given.includes(`v1,${mac}`)) throw new Error("no matching signature");
    return JSON.parse(payload);
  }
}
"""
MAIN = """
import { readFileSync } from "node:fs";
import { verified } from "./example.mjs";
for (const { headers, body } of JSON.parse(readFileSync(0, "utf8"))) {
  try {
    console.log(JSON.stringify(verified(process.argv[2], headers, Buffer.from(body, "base64"))));
  } catch (error) {
    console.log(JSON.stringify(`refused: ${error.message}`));
  }
}
"""


@dataclass(frozen=True)
class Delivered:
    """One attempt as it arrives."""

    headers: dict[str, str]
    body: bytes

    def having(self, **headers: str) -> "Delivered":
        changed = {f"webhook-{name}": value for name, value in headers.items()}
        return replace(self, headers=self.headers | changed)


def make_session() -> CheckoutSession:
    return CheckoutSession(
        id=UUID("01a1f861-4dbf-71e6-956c-ac9408a4d553"),
        merchant_id=UUID(int=1),
        account=address("shop"),
        memo=Memo.of_id(5205104722034325248),
        muxed_id=5205104722034325248,
        asset=Asset.native(),
        amount=125_000_000,
        received=125_000_000,
        status=SessionStatus.PAID,
        expires_at=datetime(2026, 11, 20, 10, 30, tzinfo=UTC),
        opened_position=Position(0),
        terms=Policy().terms(125_000_000, datetime(2026, 11, 20, 10, 30, tzinfo=UTC)),
        reference="order-1",
    )


def make_credit(session: CheckoutSession) -> Credit:
    return Credit(
        operation_id=Position.of(1204301, 7, 1),
        change_index=0,
        account=session.account,
        muxed_id=None,
        asset=session.asset,
        amount=session.amount,
        tx_hash="7e8ddc8a252cde17f880a2cbf40d2b5f71c828f7db9fa42f0d3423f9b93a461d",
        inner_tx_hash=None,
        payer=address("payer"),
        memo=session.memo,
        closed_at=datetime(2026, 11, 20, 10, 1, 5, tzinfo=UTC),
    )


def deliver(sent_at: datetime, reference: str = "café №1") -> Delivered:
    """Sign a real event's body, with a reference that is more than ASCII."""
    session = replace(make_session(), reference=reference)
    event = session_paid(session, make_credit(session))
    return Delivered(sign([SECRET], str(event.id), sent_at, event.payload), event.payload)


def now() -> datetime:
    return datetime.now(UTC)


def forgeries() -> dict[str, Delivered]:
    """Deliveries that nobody may take for ours."""
    ours = deliver(now())
    later = str(int(time.time()) + 1)
    other = sign([generate_secret()], ours.headers["webhook-id"], now(), ours.body)
    return {
        "body": replace(ours, body=ours.body.replace(b"12.5", b"99.5")),
        "id": ours.having(id=str(event_id_of_another())),
        "timestamp": ours.having(timestamp=later),
        "another secret": replace(ours, headers=other),
        "too old": deliver(now() - timedelta(minutes=6)),
        "too new": deliver(now() + timedelta(minutes=6)),
        "no timestamp": ours.having(timestamp=""),
        "no number": ours.having(timestamp="yesterday"),
        "no signature": ours.having(signature=""),
        "another version": ours.having(
            signature=ours.headers["webhook-signature"].replace("v1,", "v2,")
        ),
    }


def event_id_of_another() -> UUID:
    event = session_expired(make_session())
    return event_id(event.type, event.subject)


def genuine() -> dict[str, Delivered]:
    """Deliveries that everybody must take, a rotation of secrets among them."""
    ours = deliver(now())
    both = sign([generate_secret(), SECRET], ours.headers["webhook-id"], now(), ours.body)
    return {
        "ours": ours,
        "four minutes late": deliver(now() - timedelta(minutes=4)),
        "two secrets": replace(ours, headers=both),
    }


def python_example(number: int) -> Callable[[str, dict[str, str], bytes], Any]:
    example: dict[str, Any] = {}
    exec(examples(README, "python")[number], example)  # noqa: S102 - our own document
    verified: Callable[[str, dict[str, str], bytes], Any] = example["verified"]
    return verified


@pytest.mark.parametrize("number", [0, 1], ids=["library", "by hand"])
class TestPython:
    @pytest.mark.parametrize("which", genuine())
    def test_takes_what_is_ours(self, number: int, which: str) -> None:
        delivered = genuine()[which]
        event = python_example(number)(SECRET, delivered.headers, delivered.body)
        assert event == json.loads(delivered.body)
        assert event["data"]["reference"] == "café №1"

    @pytest.mark.parametrize("which", forgeries())
    def test_refuses_what_is_not(self, number: int, which: str) -> None:
        forged = forgeries()[which]
        with pytest.raises((ValueError, WebhookVerificationError)):
            python_example(number)(SECRET, forged.headers, forged.body)


@pytest.fixture
def node() -> str:
    found = shutil.which("node")
    if found is None and not os.environ.get("CI"):
        pytest.skip("node is not installed: the JavaScript examples are not run")
    assert found is not None, "node is not installed: `apt-get install nodejs`, as .ci/run does"
    return found


@pytest.mark.parametrize("number", [0, 1], ids=["library", "by hand"])
def test_javascript(node: str, number: int, tmp_path: Path) -> None:
    library = tmp_path / "node_modules" / "standardwebhooks"
    library.mkdir(parents=True)
    (library / "package.json").write_text('{"type": "module", "main": "index.js"}')
    (library / "index.js").write_text(LIBRARY)
    (tmp_path / "example.mjs").write_text(examples(README, "javascript")[number])
    (tmp_path / "main.mjs").write_text(MAIN)
    ours, forged = genuine(), forgeries()
    answers = run_node(node, tmp_path / "main.mjs", [*ours.values(), *forged.values()])
    assert answers[: len(ours)] == [json.loads(delivered.body) for delivered in ours.values()]
    refused = dict(zip(forged, answers[len(ours) :], strict=True))
    assert {which: str(answer)[:8] for which, answer in refused.items()} == dict.fromkeys(
        forged, "refused:"
    )


def run_node(node: str, script: Path, deliveries: list[Delivered]) -> list[Any]:
    """Have a script verify deliveries, and read what it made of each."""
    given = [{"headers": d.headers, "body": base64_of(d.body)} for d in deliveries]
    done = subprocess.run(  # noqa: S603 - our own script
        [node, script, SECRET],
        input=json.dumps(given).encode(),
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.decode().splitlines()]


def base64_of(body: bytes) -> str:
    return base64.b64encode(body).decode()


def test_the_events_that_are_shown_are_the_events_that_are_sent() -> None:
    session = make_session()
    again = replace(
        make_credit(session),
        operation_id=Position.of(1204341, 3, 1),
        tx_hash="66d9ad1f7abc5a2e28f3a1cbb37c0f2ea19b9f2f9a60a67d2c1a05e0ec2b9bb1",
        closed_at=datetime(2026, 11, 20, 10, 5, 10, tzinfo=UTC),
    )
    held = HeldCredit(again, 0, Outcome.DUPLICATE, session.id, session.reference)
    sent = [session_paid(session, make_credit(session)), payment_unapplied(held)]
    shown = [block.text for block in blocks(README) if block.language == "json"]
    assert shown == [json.dumps(json.loads(event.payload), indent=2) + "\n" for event in sent]


def test_the_expired_event_has_the_same_fields_without_the_payment() -> None:
    paid = json.loads(session_paid(make_session(), make_credit(make_session())).payload)
    expired = json.loads(session_expired(make_session()).payload)
    assert set(paid) == set(expired)
    assert set(paid["data"]) - set(expired["data"]) == {"payment"}
    assert set(expired["data"]) < set(paid["data"])
    assert expired["timestamp"] == expired["data"]["expires_at"]
