"""What is measured, by name; `deploy/alerts.yml` says which of it wakes somebody.

Labels are few and bounded: never a session, a merchant, an endpoint or a message. A `stream` is
a watched account or `network`, and there are only as many as Horizon's rate limit can bear. A
`horizon` is the host of an address of the settings, without user and path.
Amounts are not measured: they are the merchants' business.
"""

import platform
from importlib.metadata import version

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Enum,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
)

from paywatch.domain.checkout import SessionStatus
from paywatch.domain.settlement import Outcome

STREAM_STATES = (
    "catching_up",  # claimed, nothing read yet
    "live",
    "behind",
    "unfunded",  # waits for its account to be on the ledger
    "retrying",
    "stalled",
    "standby",
    "stopped",
)
BREAKER_STATES = ("closed", "half_open", "open", "excluded")  # the last: another network's
ATTEMPT_RESULTS = ("delivered", "retry", "dead", "gone")
REPAIRS = (
    "processing",
    "missing_payment",
    "unmarked_paid",
    "expired",
    "lease",
    "undeliverable",
    "missed_credit",
    "audit",
)

_FAST_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_ATTEMPT_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15)
# Horizon looks for a new ledger every 5 s; behind an outage there are hours.
_DETECTION_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 7.5, 10, 15, 30, 60, 300, 1_800, 7_200, 86_400)
_BATCH = (1, 2, 5, 10, 20, 50, 100, 150, 200)


class Metrics:
    """All metrics of one daemon, in a registry of its own (never the process-wide one)."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        build = Info("paywatch_build", "The running program.", registry=self.registry)
        build.info({"version": version("paywatch"), "python": platform.python_version()})
        self._add_position()
        self._add_settlement()
        self._add_webhooks()
        self._add_care()
        self._add_horizon()

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"paywatch_{name}", text, labels, registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"paywatch_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"paywatch_{name}", text, buckets=buckets, registry=self.registry)

    def _add_position(self) -> None:
        """Where we are, behind what: the tip (we are behind) or the clock (all are)."""
        self.position_ledger = self._gauge(
            # Of the 64 bits of a position a float keeps 53: the ledger alone is exact.
            "position_ledger",
            "Ledger of the committed cursor.",
            "stream",
        )
        self.lag_ledgers = self._gauge(
            "lag_ledgers", "Ledgers from the cursor to Horizon's latest: we are behind.", "stream"
        )
        self.lag_seconds = self._gauge(
            "lag_seconds",
            "Closing time of Horizon's latest ledger less that of the cursor's: we are behind.",
            "stream",
        )
        self.clock_lag_seconds = self._gauge(
            "clock_lag_seconds",
            "Our clock less the closing time of the cursor's ledger, whoever is behind.",
            "stream",
        )
        self.accounts = self._gauge(
            "accounts",
            "Watched accounts by whose position counts: their own stream's or the network's.",
            "by",
        )
        self.upstream_ledger = self._gauge("upstream_ledger", "Horizon's latest ledger.")
        self.upstream_lag_seconds = self._gauge(
            "upstream_lag_seconds",
            "Our clock less the closing time of Horizon's latest ledger: upstream is behind.",
        )

    def _add_settlement(self) -> None:
        self.credits = self._counter("credits", "Credits by what they did.", "outcome")
        self.payments = self._counter("payments", "Transactions that paid a session.")
        self.detection_latency = self._histogram(
            "detection_latency_seconds",
            "From the closing of a credit's ledger to the commit of its settlement.",
            _DETECTION_S,
        )
        self.settlement_duration = self._histogram(
            "settlement_duration_seconds", "One settling transaction, each try apart.", _FAST_S
        )
        self.batch_size = self._histogram("batch_records", "Records in a settled batch.", _BATCH)
        self.settlement_retries = self._counter(
            "settlement_retries", "Settling transactions run again.", "reason"
        )
        self.sessions = self._gauge("sessions", "Checkout sessions by status.", "status")
        for outcome in Outcome:
            self.credits.labels(outcome=outcome)
        for status in SessionStatus:
            self.sessions.labels(status=status)

    def _add_webhooks(self) -> None:
        self.attempts = self._counter("attempts", "Webhook attempts by verdict.", "result")
        self.attempt_duration = self._histogram(
            "attempt_duration_seconds", "One webhook attempt, the answer included.", _ATTEMPT_S
        )
        self.outbox_depth = self._gauge("outbox_deliveries", "Deliveries not finished.")
        self.outbox_oldest = self._gauge(
            "outbox_oldest_seconds",
            "How long a delivery is due at an endpoint where none is being made; 0 if none is.",
        )
        self.dead_letters = self._gauge(
            "dead_letters", "Deliveries that were given up and nobody has resent."
        )
        for result in ATTEMPT_RESULTS:
            self.attempts.labels(result=result)

    def _add_care(self) -> None:
        """Recovery, quarantine and what must always hold."""
        self.recovered = self._counter("recovered", "Repairs by recovery.", "repair")
        self.quarantined = self._counter("quarantined", "Records put into quarantine.")
        self.quarantine = self._gauge("quarantine_records", "Records in quarantine now.")
        self.invariant_violations = self._gauge(
            "invariant_violations", "Broken invariants at the last check: 0 is the only good value."
        )
        self.invariants_checked_at = self._gauge(
            "invariants_checked_timestamp_seconds", "Unix time of the last check of invariants."
        )
        self.audit_mismatches = self._gauge(
            "audit_mismatches",
            "Credits that Horizon did not show, or not as we hold them, at the last audit.",
        )
        self.audited_at = self._gauge(
            "audited_timestamp_seconds",
            "Unix time of the last audit that was finished, or of the start before the first.",
        )
        for repair in REPAIRS:
            self.recovered.labels(repair=repair)

    def _add_horizon(self) -> None:
        self.horizon_requests = self._counter(
            "horizon_requests", "Requests to Horizon by status code, or why there was none.", "code"
        )
        self.stream_leader = self._gauge(
            "stream_leader", "1 if this process leads the stream, 0 if it stands by.", "stream"
        )
        # Not `instance`: Prometheus has that for whom it scrapes.
        self.horizon_tip = self._gauge(
            "horizon_tip_ledger", "Latest ledger of one Horizon.", "horizon"
        )
        self.horizon_lag = self._gauge(
            "horizon_lag_seconds", "Our clock less that ledger's closing time.", "horizon"
        )
        self.horizon_elder = self._gauge(
            "horizon_elder_ledger", "Oldest ledger that one Horizon keeps.", "horizon"
        )
        self.horizon_budget = self._gauge(
            "horizon_budget_requests", "Requests that one Horizon still allows.", "horizon"
        )
        self.horizon_breaker = Enum(
            "paywatch_horizon_breaker",
            "Whether one Horizon is asked.",
            ["horizon"],
            registry=self.registry,
            states=BREAKER_STATES,
        )
        self.horizon_changes = self._counter(
            "horizon_changes", "Changes of the live streams to one Horizon.", "horizon"
        )
        self.reconnects = self._counter("reconnects", "Streams opened again.", "reason")
        self.rebuilds = self._counter(
            "stream_rebuilds", "Streams that stalled and were begun anew.", "stream"
        )
        self.stream_state = Enum(
            "paywatch_stream_state",
            "What a stream is doing.",
            ["stream"],
            registry=self.registry,
            states=STREAM_STATES,
        )
