"""Seeing it run: logs, metrics, heartbeats, and what systemd is told."""

from paywatch.telemetry.logging import bound, configure_logging
from paywatch.telemetry.metrics import Metrics
from paywatch.telemetry.notify import Notifier, keep_watchdog_fed
from paywatch.telemetry.progress import Progress

__all__ = ["Metrics", "Notifier", "Progress", "bound", "configure_logging", "keep_watchdog_fed"]
