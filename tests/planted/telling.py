"""Wrong changes to how merchants are told."""

from typing import Final

from planted.bug import Bug

DISPATCH: Final = "service/dispatch.py"
OUTBOX: Final = "store/outbox.py"
JUDGE: Final = "domain/delivery.py"

BUGS: Final = (
    Bug(
        "marked-before-the-post",
        DISPATCH,
        "        attempt = await self._attempt(claimed)\n",
        "        said = Answer(status=200)\n"
        "        verdict = judge(said, claimed.attempt, self.clock(), self.rng)\n"
        "        await self._recorder.record([Attempt(claimed, self.clock(), said, verdict)])\n"
        "        attempt = await self._attempt(claimed)\n",
        "A delivery is marked as made, and then made: a crash in between loses it.",
    ),
    Bug(
        "a-fresh-webhook-id",
        DISPATCH,
        "headers = self.sign([secret], str(claimed.event_id), sent_at, claimed.payload)",
        "fresh = UUID(int=self.rng.getrandbits(128), version=4)\n"
        "        headers = self.sign([secret], str(fresh), sent_at, claimed.payload)",
        "Each attempt has an id of its own: the merchant cannot drop the second.",
    ),
    Bug(
        "signed-another-body",
        DISPATCH,
        "return await self.sender.post(claimed.url, headers, claimed.payload)",
        'return await self.sender.post(claimed.url, headers, claimed.payload + b"\\n")',
        "What is signed is not what is sent.",
    ),
    Bug(
        "the-lease-is-no-fence",
        OUTBOX,
        "       AND d.lease_token = made.lease_token\n    RETURNING",
        "    RETURNING",
        "A dispatcher that was frozen writes over what another one has done since.",
        "integration/service/test_dispatch.py",
    ),
    Bug(
        "a-lease-for-an-hour",
        DISPATCH,
        "lease: timedelta = timedelta(seconds=60)",
        "lease: timedelta = timedelta(hours=1)",
        "A dead dispatcher keeps its deliveries for long.",
        "integration/service/test_races.py::test_what_a_dead_dispatcher_has_claimed_is_anybodys_after_a_minute",
    ),
    Bug(
        "leases-are-taken",
        OUTBOX,
        """\
              AND d.ended_at IS NULL AND (d.lease_token IS NULL OR d.lease_until <= :now)
              FOR UPDATE SKIP LOCKED) free""",
        """\
              AND d.ended_at IS NULL FOR UPDATE SKIP LOCKED) free""",
        "Two that claim in the same instant both have the delivery (lesson 4).",
        "integration/service/test_races.py::test_claims_of_the_same_instant_never_share_a_delivery",
    ),
    Bug(
        "a-redirect-is-a-success",
        JUDGE,
        "200 <= answer.status <= 299",
        "200 <= answer.status <= 399",
        "A merchant that redirects has it.",
    ),
    Bug(
        "half-an-answer-is-a-success",
        JUDGE,
        "if answer.failure is None and answer.status is not None and",
        "if answer.status is not None and",
        "An answer that broke off is as good as a whole one.",
        "unit/domain/test_delivery.py",
    ),
    Bug(
        "silence-is-a-success",
        JUDGE,
        "    at = next_attempt_at(attempt, now, rng, answer)\n",
        "    if answer.status is None:\n        return Delivered()\n"
        "    at = next_attempt_at(attempt, now, rng, answer)\n",
        "A merchant that does not answer in time has it.",
    ),
    Bug(
        "slow-down-kills",
        JUDGE,
        "    if answer.status == _GONE:\n",
        "    if answer.status in {_GONE, 429}:\n",
        "A merchant that asks for patience is given up (lesson 8).",
    ),
    Bug(
        "three-attempts",
        JUDGE,
        "    if attempt >= MAX_ATTEMPTS:\n        return None\n",
        "    if attempt >= 3:\n        return None\n",
        "Three failures make a dead letter.",
        "unit/domain/test_delivery.py",
    ),
    Bug(
        "gone-but-not-disabled",
        OUTBOX,
        "        await disable(conn, gone, now)\n",
        "",
        "An endpoint that is gone is told of everything that comes.",
        "integration/service/test_dispatch.py",
    ),
    Bug(
        "redirects-are-followed",
        "webhooks/sender.py",
        "allow_redirects=False",
        "allow_redirects=True",
        "A merchant's server says where the POST goes (lesson 8).",
        "integration/webhooks/test_sender.py",
    ),
    Bug(
        "a-random-event-id",
        "domain/events.py",
        '    return uuid5(EVENT_NAMESPACE, f"{event_type}:{subject}")\n',
        '    return uuid5(subject, f"{event_type}:{subject}")\n',
        "Every merchant is told everything again, by other ids.",
        "unit/domain/test_events.py",
    ),
)
