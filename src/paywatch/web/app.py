"""The HTTP application: health for the machine that runs it, metrics for the one that watches."""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client.exposition import choose_encoder

from paywatch.telemetry import Metrics
from paywatch.web.health import CHECK_TIMEOUT_S, HealthSource, examine

_METHODS = ["GET", "HEAD"]  # load balancers ask by HEAD


def create_app(
    health: HealthSource, metrics: Metrics, *, check_timeout_s: float = CHECK_TIMEOUT_S
) -> FastAPI:
    """The application of one daemon.

    Args:
        health: what it is asked about.
        metrics: what it exports.
        check_timeout_s: after how many seconds a part that does not answer is not ready.
    """
    app = FastAPI(title="paywatch", openapi_url=None)

    @app.api_route("/", methods=_METHODS)
    async def index() -> Response:
        pages = ["/health/live", "/health/ready", "/metrics"]
        return _json({"name": "paywatch", "version": version("paywatch"), "pages": pages})

    @app.api_route("/health/live", methods=_METHODS)
    async def live() -> Response:
        stalled = list(health.stalled())
        return _json({"live": not stalled, "stalled": stalled}, ok=not stalled)

    @app.api_route("/health/ready", methods=_METHODS)
    async def ready() -> Response:
        findings = await examine(health.checks(), check_timeout_s)
        not_ready = [part for part, finding in findings.items() if not finding.ready]
        parts = {part: asdict(finding) for part, finding in findings.items()}
        body = {"ready": not not_ready, "not_ready": not_ready, "parts": parts}
        return _json(body, ok=not not_ready)

    @app.api_route("/metrics", methods=_METHODS)
    async def scrape(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        # Off the event loop: reading the process's figures touches /proc.
        text = await asyncio.to_thread(encode, metrics.registry)
        return Response(text, headers={"content-type": content_type})

    return app


def _json(body: Mapping[str, object], *, ok: bool = True) -> Response:
    return JSONResponse(body, 200 if ok else 503, headers={"cache-control": "no-store"})
