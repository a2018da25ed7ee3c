"""HTTP: health and metrics."""

from paywatch.web.app import create_app
from paywatch.web.health import Finding, HealthSource, judge_listen, judge_upstream
from paywatch.web.server import listen_on, serve, url_of

__all__ = [
    "Finding",
    "HealthSource",
    "create_app",
    "judge_listen",
    "judge_upstream",
    "listen_on",
    "serve",
    "url_of",
]
