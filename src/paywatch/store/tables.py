"""The tables, and in their constraints the promises that code alone would not keep.

Amounts are stroops (BIGINT). Memos, hashes and payloads are BYTEA: a NUL in a memo breaks text and
jsonb, and anyone can send one for a stroop. Times are `timestamptz`; a column named `closed_at` or
`read_through_at` is the ledger's clock, all others are the wall's.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    Connection,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.event import listens_for

from paywatch.domain.checkout import OPEN, PaidHow, SessionStatus
from paywatch.domain.ledger import MemoType
from paywatch.domain.settlement import Outcome

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _moment(name: str, *, nullable: bool = False) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


def _one_of(column: str, values: object, name: str) -> CheckConstraint:
    quoted = ", ".join(f"'{value}'" for value in values)  # type: ignore[attr-defined] # an enum class
    return CheckConstraint(f"{column} IN ({quoted})", name=name)


OPEN_STATUSES_SQL = ", ".join(f"'{status}'" for status in SessionStatus if status in OPEN)

merchants = Table(
    "merchants",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", Text, nullable=False),
    # The policy that new sessions get their terms from; it may change at any time.
    Column("tolerance_bps", SmallInteger, nullable=False, server_default=text("0")),
    Column("late_grace_s", Integer),  # none: what comes late is held
    Column("text_for_id", Boolean, nullable=False, server_default=text("true")),
    _moment("created_at"),
    CheckConstraint("length(name) BETWEEN 1 AND 200", name="name_length"),
    CheckConstraint("tolerance_bps BETWEEN 0 AND 1000", name="tolerance_range"),
    CheckConstraint("late_grace_s BETWEEN 1 AND 2592000", name="late_grace_range"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("merchant_id", ForeignKey("merchants.id"), nullable=False, index=True),
    # Only the hash: whoever reads the database cannot act as the merchant.
    Column("key_sha256", LargeBinary, nullable=False, unique=True),
    _moment("created_at"),
    _moment("revoked_at", nullable=True),
    CheckConstraint("octet_length(key_sha256) = 32", name="key_sha256_length"),
)

endpoints = Table(
    "endpoints",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("merchant_id", ForeignKey("merchants.id"), nullable=False, unique=True),
    Column("url", Text, nullable=False),
    Column("sealed_secret", LargeBinary, nullable=False),  # AES-GCM under PAYWATCH_SECRET_KEY
    _moment("created_at"),
    _moment("disabled_at", nullable=True),
    Column("disabled_reason", Text),
    CheckConstraint("(disabled_at IS NULL) = (disabled_reason IS NULL)", name="disabled_why"),
)

accounts = Table(
    "accounts",
    metadata,
    Column("account", Text, primary_key=True),
    Column("merchant_id", ForeignKey("merchants.id"), nullable=False, index=True),
    # Where watching began, a number from the root document: never `now`, which is another place
    # at each use.
    Column("start_position", BigInteger, nullable=False),
    # Whose cursor says how far it has been read: its own stream's, or the network-wide one's.
    Column("followed_by", Text, nullable=False, server_default=text("'account'")),
    _moment("created_at"),
    # The target of the sessions' key below: a session is always on its own merchant's account.
    UniqueConstraint("account", "merchant_id"),
    CheckConstraint("account ~ '^G[A-Z2-7]{55}$'", name="account_form"),
    CheckConstraint("start_position >= 0", name="start_position_range"),
    CheckConstraint("followed_by IN ('account', 'network')", name="followed_by_known"),
)

checkout_sessions = Table(
    "checkout_sessions",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("merchant_id", Uuid, nullable=False),
    Column("account", Text, nullable=False),
    Column("memo_type", Text, nullable=False),
    Column("memo", LargeBinary, nullable=False),
    Column("muxed_id", BigInteger, nullable=False),
    Column("asset", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("received", BigInteger, nullable=False, server_default=text("0")),
    Column("status", Text, nullable=False, server_default=text("'pending'")),
    Column("paid_how", Text),
    _moment("paid_at", nullable=True),  # the ledger's clock at the credit that completed it
    _moment("expires_at"),
    _moment("created_at"),
    _moment("updated_at"),
    # The stream's position when the session was made: no credit for it can lie before, in that
    # history of the network; in a later one, everything lies behind it.
    Column("opened_position", BigInteger, nullable=False),
    Column("opened_history", SmallInteger, nullable=False, server_default=text("0")),
    # The terms, fixed when the session was opened: what pays it, and until when.
    Column("least_amount", BigInteger, nullable=False),
    _moment("accept_until"),
    Column("text_for_id", Boolean, nullable=False),
    Column("announced_tx_hash", LargeBinary),
    _moment("announced_at", nullable=True),
    _moment("announced_until", nullable=True),  # the transaction's own time bound, if known
    Column("reference", Text),
    Column("metadata", JSONB, nullable=False, server_default=text("'{}'")),
    Column("success_url", Text),
    Column("cancel_url", Text),
    ForeignKeyConstraint(["account", "merchant_id"], ["accounts.account", "accounts.merchant_id"]),
    # One session per reference: two sessions with one memo would make a credit ambiguous.
    UniqueConstraint("account", "memo_type", "memo"),
    UniqueConstraint("account", "muxed_id"),
    _one_of("status", SessionStatus, "status_known"),
    CheckConstraint("memo_type IN ('id', 'text', 'hash')", name="memo_type_known"),
    CheckConstraint(
        "octet_length(memo) BETWEEN 1 AND 28 AND memo_type = 'text'"
        " OR octet_length(memo) = 8 AND memo_type = 'id'"
        " OR octet_length(memo) = 32 AND memo_type = 'hash'",
        name="memo_length",
    ),
    CheckConstraint("muxed_id >= 0", name="muxed_id_range"),
    CheckConstraint("amount > 0", name="amount_positive"),
    CheckConstraint("received >= 0", name="received_not_negative"),
    CheckConstraint("expires_at > created_at", name="expires_after_creation"),
    _one_of("paid_how", PaidHow, "paid_how_known"),
    CheckConstraint("least_amount BETWEEN 1 AND amount", name="least_amount_range"),
    CheckConstraint("accept_until >= expires_at", name="accept_until_range"),
    CheckConstraint(
        "(status = 'paid') = (paid_at IS NOT NULL) AND (status = 'paid') = (paid_how IS NOT NULL)",
        name="paid_says_how",
    ),
    CheckConstraint("octet_length(announced_tx_hash) = 32", name="announced_tx_hash_length"),
    CheckConstraint(
        "status <> 'processing' OR num_nulls(announced_tx_hash, announced_at) = 0",
        name="processing_says_what_and_since",
    ),
    CheckConstraint("length(reference) <= 200", name="reference_length"),
    # Expiry and recovery read only what is open.
    Index(
        "ix_checkout_sessions_open",
        "account",
        "expires_at",
        postgresql_where=text(f"status IN ({OPEN_STATUSES_SQL})"),
    ),
    Index(
        "ix_checkout_sessions_processing",
        "announced_at",
        postgresql_where=text("status = 'processing'"),
    ),
    # The invariants and recovery read what changed of late.
    Index("ix_checkout_sessions_updated_at", "updated_at"),
)

payments = Table(
    "payments",
    metadata,
    # One row per transaction, by the promise that its hash is the key. After a reset of a test
    # network the very same envelope can be valid again.
    Column("tx_hash", LargeBinary, primary_key=True),
    Column(
        "history",
        SmallInteger,
        primary_key=True,
        autoincrement=False,
        server_default=text("0"),
    ),
    Column("inner_tx_hash", LargeBinary),
    Column("ledger", BigInteger, nullable=False),
    _moment("closed_at"),
    Column("payer", Text, nullable=False),
    Column("memo_type", Text, nullable=False),
    Column("memo", LargeBinary, nullable=False),
    _moment("recorded_at"),
    CheckConstraint("octet_length(tx_hash) = 32", name="tx_hash_length"),
    CheckConstraint("octet_length(inner_tx_hash) = 32", name="inner_tx_hash_length"),
    _one_of("memo_type", MemoType, "memo_type_known"),
    Index("ix_payments_recorded_at", "recorded_at"),
)

credits = Table(  # noqa: A001 # the field's word; nothing here needs the builtin of site
    "credits",
    metadata,
    # The identity of money: a transaction may credit us by several operations, and one contract
    # call several times.
    Column("operation_id", BigInteger, primary_key=True, autoincrement=False),
    Column("change_index", SmallInteger, primary_key=True, autoincrement=False),
    # After a reset of a test network its ledgers, and so these positions, come again.
    Column(
        "history",
        SmallInteger,
        primary_key=True,
        autoincrement=False,
        server_default=text("0"),
    ),
    Column("account", ForeignKey("accounts.account"), nullable=False),
    Column("muxed_id", Numeric(20, 0)),  # unsigned 64 bits: more than BIGINT
    Column("asset", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("tx_hash", LargeBinary, nullable=False),
    Column("inner_tx_hash", LargeBinary),
    Column("payer", Text, nullable=False),
    Column("memo_type", Text, nullable=False),
    Column("memo", LargeBinary, nullable=False),
    _moment("closed_at"),
    Column("outcome", Text, nullable=False),
    Column("session_id", ForeignKey("checkout_sessions.id")),
    # An applied credit cannot exist without the payment of its transaction. Without an index: no
    # payment is ever deleted, and one more random key costs a page of the disk for each credit.
    Column(
        "payment_tx_hash",
        LargeBinary,
        Computed("CASE WHEN outcome = 'applied' THEN tx_hash END", persisted=True),
    ),
    # What the merchant's word made of a held credit, and what it was before.
    Column("held_as", Text),
    _moment("resolved_at", nullable=True),
    Column("returned_by_tx", LargeBinary),  # the hash of the refund
    _moment("recorded_at"),
    ForeignKeyConstraint(["payment_tx_hash", "history"], ["payments.tx_hash", "payments.history"]),
    CheckConstraint("amount > 0", name="amount_positive"),
    CheckConstraint("change_index >= 0", name="change_index_range"),
    CheckConstraint("octet_length(tx_hash) = 32", name="tx_hash_length"),
    _one_of("memo_type", MemoType, "memo_type_known"),
    _one_of("outcome", Outcome, "outcome_known"),
    CheckConstraint(
        "CASE outcome WHEN 'unmatched' THEN session_id IS NULL WHEN 'returned' THEN true"
        " ELSE session_id IS NOT NULL END",
        name="session_if_matched",
    ),
    CheckConstraint("held_as NOT IN ('applied', 'returned')", name="held_as_known"),
    CheckConstraint("(held_as IS NULL) = (resolved_at IS NULL)", name="resolved_whole"),
    CheckConstraint(
        "held_as IS NULL OR outcome IN ('applied', 'returned')", name="resolved_by_a_word"
    ),
    CheckConstraint(
        "(outcome = 'returned') = (returned_by_tx IS NOT NULL)"
        " AND (NOT (outcome = 'returned') OR held_as IS NOT NULL)",
        name="returned_says_how",
    ),
    CheckConstraint("octet_length(returned_by_tx) = 32", name="returned_by_tx_length"),
    Index(
        "ix_credits_session_id",
        "session_id",
        postgresql_where=text("session_id IS NOT NULL"),
    ),
    Index("ix_credits_recorded_at", "recorded_at"),
    # Held credits are listed by account, newest first, and waiting for a merchant's word.
    Index(
        "ix_credits_held",
        "account",
        "operation_id",
        postgresql_where=text("outcome NOT IN ('applied', 'returned')"),
    ),
    # Those that a word has resolved.
    Index(
        "ix_credits_resolved",
        "account",
        "operation_id",
        postgresql_where=text("held_as IS NOT NULL"),
    ),
    Index(
        "ix_credits_returned_by_tx",
        "returned_by_tx",
        postgresql_where=text("returned_by_tx IS NOT NULL"),
    ),
)

events = Table(
    "events",
    metadata,
    Column("id", Uuid, primary_key=True),  # UUIDv5 of type and subject: derived, never random
    Column("merchant_id", ForeignKey("merchants.id"), nullable=False),
    Column("type", Text, nullable=False),
    Column("subject", Uuid, nullable=False),  # the session, or derived from the credit, told of
    Column("operation_id", BigInteger),  # with the two below: the credit told of, if it is one
    Column("change_index", SmallInteger),
    Column("history", SmallInteger),
    Column("payload", LargeBinary, nullable=False),  # the exact bytes of every attempt's body
    _moment("occurred_at"),
    _moment("recorded_at"),
    # Nothing is told twice.
    UniqueConstraint("subject", "type"),
    ForeignKeyConstraint(
        ["operation_id", "change_index", "history"],
        ["credits.operation_id", "credits.change_index", "credits.history"],
    ),
    CheckConstraint(
        "num_nulls(operation_id, change_index, history) IN (0, 3)", name="credit_whole"
    ),
    Index(
        "ix_events_operation_id",
        "operation_id",
        postgresql_where=text("operation_id IS NOT NULL"),
    ),
    CheckConstraint("octet_length(payload) < 20480", name="payload_length"),
    Index("ix_events_recorded_at", "recorded_at"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("event_id", ForeignKey("events.id"), primary_key=True),
    Column("endpoint_id", ForeignKey("endpoints.id"), primary_key=True),
    Column("state", Text, nullable=False, server_default=text("'pending'")),
    _moment("due_at"),
    Column("attempts_made", SmallInteger, nullable=False, server_default=text("0")),
    Column("lease_token", Uuid),
    _moment("lease_until", nullable=True),
    _moment("ended_at", nullable=True),  # delivered, or given up
    Column("dead_reason", Text),
    CheckConstraint("state IN ('pending', 'delivered', 'dead')", name="state_known"),
    CheckConstraint("(lease_token IS NULL) = (lease_until IS NULL)", name="lease_whole"),
    CheckConstraint("lease_token IS NULL OR state = 'pending'", name="lease_while_pending"),
    CheckConstraint("(state = 'pending') = (ended_at IS NULL)", name="ended_says_when"),
    CheckConstraint("(state = 'dead') = (dead_reason IS NOT NULL)", name="dead_says_why"),
    Index(
        "ix_deliveries_due",
        "endpoint_id",
        "due_at",
        postgresql_where=text("state = 'pending'"),
    ),
    Index(
        "ix_deliveries_leased",
        "lease_until",
        postgresql_where=text("lease_token IS NOT NULL"),
    ),
    Index("ix_deliveries_dead", "ended_at", postgresql_where=text("state = 'dead'")),
)

attempts = Table(
    "attempts",
    metadata,
    Column("event_id", Uuid, primary_key=True),
    Column("endpoint_id", Uuid, primary_key=True),
    Column("number", SmallInteger, primary_key=True, autoincrement=False),
    _moment("started_at"),
    Column("duration_ms", Integer, nullable=False),
    Column("status_code", SmallInteger),  # none: no answer came
    Column("error", Text),
    Column("answer", LargeBinary, nullable=False),  # the first bytes of the answer's body
    ForeignKeyConstraint(
        ["event_id", "endpoint_id"], ["deliveries.event_id", "deliveries.endpoint_id"]
    ),
    CheckConstraint("number >= 1", name="number_from_one"),
    CheckConstraint("octet_length(answer) <= 4096", name="answer_length"),
)

cursors = Table(
    "cursors",
    metadata,
    Column("stream", Text, primary_key=True),
    # None: the network-wide stream, which reads for many accounts.
    Column("account", ForeignKey("accounts.account"), index=True),
    Column("history", SmallInteger, nullable=False, server_default=text("0")),
    Column("position", BigInteger, nullable=False),
    # Raised by each instance that takes the stream over: whoever led before can write no more.
    Column("epoch", Integer, nullable=False, server_default=text("0")),
    Column("end_position", BigInteger),  # of a backfill; the live stream has no end
    # The ledger's clock up to which all is read; what expires, expires by it.
    _moment("read_through_at", nullable=True),
    _moment("updated_at"),
    CheckConstraint("position >= 0", name="position_range"),
)

CURSOR_TRIGGER = (
    """
CREATE FUNCTION refuse_lower_cursor() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'cursor of stream % may not go down from % to %',
        OLD.stream, OLD.position, NEW.position USING ERRCODE = 'check_violation';
END $$""",
    # In a new history of the network, and there alone, positions begin again.
    """
CREATE TRIGGER refuse_lower_cursor BEFORE UPDATE ON cursors
FOR EACH ROW WHEN (NEW.position < OLD.position AND NEW.history <= OLD.history
                   OR NEW.epoch < OLD.epoch OR NEW.history < OLD.history)
EXECUTE FUNCTION refuse_lower_cursor()""",
)
"""A cursor that can go down went unnoticed by every check until a trigger forbade it."""


@listens_for(cursors, "after_create")
def _guard_cursors(_table: Table, conn: Connection, **_: object) -> None:
    for statement in CURSOR_TRIGGER:
        conn.execute(text(statement))


histories = Table(
    "histories",
    metadata,
    # 0, the first, has no row; an operator begins each other one after a reset of the network.
    Column("number", SmallInteger, primary_key=True, autoincrement=False),
    Column("start_position", BigInteger, nullable=False),
    _moment("began_at"),
    CheckConstraint("number > 0", name="number_range"),
)

landmarks = Table(
    "landmarks",
    metadata,
    # A ledger that was seen in a history, and its hash: another hash there is another history.
    Column("history", SmallInteger, primary_key=True, autoincrement=False),
    Column("ledger", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    _moment("seen_at"),
    # The first ledger is the same in every history: it follows from the network's name.
    CheckConstraint("ledger > 1", name="ledger_range"),
    CheckConstraint("octet_length(hash) = 32", name="hash_length"),
)

accepted_gaps = Table(
    "accepted_gaps",
    metadata,
    # What an operator gave up: nothing after the one and up to the other was read.
    Column("stream", Text, primary_key=True),
    Column("history", SmallInteger, primary_key=True, autoincrement=False),
    Column("after_position", BigInteger, primary_key=True, autoincrement=False),
    Column("upto_position", BigInteger, nullable=False),
    _moment("accepted_at"),
    CheckConstraint("upto_position > after_position", name="gap_not_empty"),
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("stream", Text, primary_key=True),
    Column("operation_id", BigInteger, primary_key=True, autoincrement=False),
    Column(
        "history",
        SmallInteger,
        primary_key=True,
        autoincrement=False,
        server_default=text("0"),
    ),
    Column("raw", LargeBinary, nullable=False),
    Column("reason", Text, nullable=False),
    _moment("quarantined_at"),
)

session_transitions = Table(
    "session_transitions",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("session_id", ForeignKey("checkout_sessions.id"), nullable=False, index=True),
    Column("before", Text, nullable=False),
    Column("after", Text, nullable=False),
    Column("cause", Text, nullable=False),
    Column("by", Text, nullable=False),  # which stream or service
    Column("operation_id", BigInteger),
    Column("change_index", SmallInteger),
    _moment("recorded_at"),
)
