"""Recover: find sessions that stand where they should not, and set them right.

Every repair is guarded by the state that it repairs, in the statement or under a row lock: a
session that is paid between recovery's look and its write stays paid.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from random import Random
from typing import Protocol, TypeVar
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from paywatch.domain import events as domain_events
from paywatch.domain.checkout import TRANSITIONS, Cause, CheckoutSession, SessionStatus
from paywatch.domain.ledger import Batch, Credit, Position
from paywatch.domain.settlement import Outcome, Settlement, Transition, decide
from paywatch.errors import HorizonError
from paywatch.service.settle import Order, Settler
from paywatch.store import events, invariants, outbox, quarantine, recovery, sessions
from paywatch.store.invariants import Violation
from paywatch.store.recovery import Missing
from paywatch.store.retry import persistently
from paywatch.telemetry import Metrics

log = structlog.stdlib.get_logger(__name__)
T = TypeVar("T")
