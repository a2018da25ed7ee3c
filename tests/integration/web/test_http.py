"""Health and metrics over real HTTP, by the server that the daemon runs."""

import asyncio
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from paywatch.errors import ConfigError
from paywatch.telemetry import Metrics
from paywatch.web import Finding, create_app, listen_on, serve, url_of
from paywatch.web.health import Check

FINE = Finding(ready=True, state="ok", message="fine")
BEHIND = Finding(ready=False, state="behind", message="wait")


class Health:
    """A source whose findings the test sets."""

    def __init__(self) -> None:
        self.stalled_loops: list[str] = []
        self.findings = dict.fromkeys(("database", "migrations", "upstream", "listen"), FINE)
        self.hanging: set[str] = set()
        self.asked = asyncio.Event()
        self.go_on = asyncio.Event()

    def stalled(self) -> Sequence[str]:
        return self.stalled_loops

    def checks(self) -> Mapping[str, Check]:
        return {part: self._check(part) for part in self.findings}

    def _check(self, part: str) -> Check:
        async def check() -> Finding:
            if part in self.hanging:
                self.asked.set()
                await self.go_on.wait()
            return self.findings[part]

        return check


class Daemon:
    """A running server and a client to ask it by."""

    def __init__(self, timeout_s: float) -> None:
        self.health = Health()
        self.metrics = Metrics()
        self.app = create_app(self.health, self.metrics, check_timeout_s=timeout_s)
        self.socket = listen_on("127.0.0.1", 0)
        self.url = url_of(self.socket)
        self.stopping = asyncio.Event()

    async def get(self, path: str) -> tuple[int, dict[str, object]]:
        async with aiohttp.request("GET", self.url + path) as response:
            assert response.headers["content-type"] == "application/json"
            assert response.headers["cache-control"] == "no-store"
            assert "server" not in response.headers
            return response.status, await response.json()


async def refused(daemon: Daemon) -> None:
    """Return when the daemon takes no connections any more."""
    port = int(daemon.url.rsplit(":", 1)[1])
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionError:
            return
        writer.close()


@asynccontextmanager
async def running(timeout_s: float = 10) -> AsyncIterator[Daemon]:
    daemon = Daemon(timeout_s)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(serve(daemon.app, daemon.socket, daemon.stopping))
        yield daemon
        daemon.stopping.set()


async def test_the_index_says_where_to_look() -> None:
    async with running() as daemon:
        status, body = await daemon.get("/")
    assert status == 200
    assert body["name"] == "paywatch"
    assert body["pages"] == ["/health/live", "/health/ready", "/metrics"]


async def test_live_while_the_loops_make_progress() -> None:
    async with running() as daemon:
        assert await daemon.get("/health/live") == (200, {"live": True, "stalled": []})
        daemon.health.stalled_loops = ["listen:G1"]
        assert await daemon.get("/health/live") == (503, {"live": False, "stalled": ["listen:G1"]})


async def test_live_does_not_depend_on_others() -> None:
    """Restarting does not bring a database or a Horizon back."""
    async with running() as daemon:
        daemon.health.findings = dict.fromkeys(daemon.health.findings, BEHIND)
        assert (await daemon.get("/health/live"))[0] == 200


async def test_ready_when_every_part_is() -> None:
    async with running() as daemon:
        status, body = await daemon.get("/health/ready")
    assert status == 200
    assert (body["ready"], body["not_ready"]) == (True, [])


@pytest.mark.parametrize("part", ["database", "migrations", "upstream", "listen"])
async def test_not_ready_names_the_part_its_state_and_the_remedy(part: str) -> None:
    async with running() as daemon:
        daemon.health.findings[part] = BEHIND
        status, body = await daemon.get("/health/ready")
    assert status == 503
    assert (body["ready"], body["not_ready"]) == (False, [part])
    parts = body["parts"]
    assert isinstance(parts, dict)
    assert parts[part] == {"ready": False, "state": "behind", "message": "wait"}
    assert sorted(parts) == ["database", "listen", "migrations", "upstream"]


async def test_a_part_that_hangs_is_not_ready() -> None:
    async with running(timeout_s=0.05) as daemon:
        daemon.health.hanging = {"database"}
        status, body = await daemon.get("/health/ready")
    assert status == 503
    assert body["not_ready"] == ["database"]


async def test_metrics_are_those_of_this_daemon() -> None:
    async with running() as daemon:
        daemon.metrics.credits.labels(outcome="applied").inc(3)
        async with aiohttp.request("GET", daemon.url + "/metrics") as response:
            assert response.status == 200
            assert response.headers["content-type"].startswith("text/plain")
            text = await response.text()
    samples = {
        (sample.name, sample.labels.get("outcome")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["paywatch_credits_total", "applied"] == 3
    assert samples["paywatch_credits_total", "duplicate"] == 0
    assert ("process_resident_memory_bytes", None) in samples


async def test_prometheus_can_have_openmetrics() -> None:
    accept = {"accept": "application/openmetrics-text;version=1.0.0"}
    async with (
        running() as daemon,
        aiohttp.request("GET", daemon.url + "/metrics", headers=accept) as response,
    ):
        assert response.headers["content-type"].startswith("application/openmetrics-text")
        assert (await response.text()).endswith("# EOF\n")


@pytest.mark.parametrize("path", ["/", "/health/live", "/health/ready", "/metrics"])
async def test_head_is_answered_like_get_without_a_body(path: str) -> None:
    async with running() as daemon, aiohttp.request("HEAD", daemon.url + path) as response:
        assert response.status == 200
        assert await response.read() == b""


@pytest.mark.parametrize(
    "path", ["/sessions", "/checkout", "/docs", "/openapi.json", "/redoc", "/health", "/.env"]
)
async def test_lesson_9_nothing_else_is_served(path: str) -> None:
    async with running() as daemon, aiohttp.request("GET", daemon.url + path) as response:
        assert response.status == 404


async def test_the_server_leaves_the_signals_to_the_daemon() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    async with running() as daemon:
        await daemon.get("/")  # it serves by now
        during = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    assert during == before


async def test_a_stop_finishes_the_request_in_flight_and_frees_the_port() -> None:
    async with running() as daemon:
        daemon.health.hanging = {"database"}
        answer = asyncio.create_task(daemon.get("/health/ready"))
        await daemon.health.asked.wait()
        daemon.stopping.set()
        await refused(daemon)
        assert not answer.done()
        daemon.health.go_on.set()
        status, _ = await answer
    assert status == 200


async def test_a_canceled_server_closes_its_connections_and_frees_the_port() -> None:
    daemon = Daemon(timeout_s=10)
    port = int(daemon.url.rsplit(":", 1)[1])
    task = asyncio.create_task(serve(daemon.app, daemon.socket, daemon.stopping))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(2):  # uvicorn itself keeps an idle connection for 5 s
        await reader.read()
    writer.close()
    listen_on("127.0.0.1", port).close()


def test_a_port_in_use_is_a_problem_of_the_setting() -> None:
    with listen_on("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"PAYWATCH_HTTP_PORT: .* port {port}: "):
            listen_on("127.0.0.1", port)


def test_a_host_that_is_not_ours_is_a_problem_of_the_setting() -> None:
    with pytest.raises(ConfigError, match="PAYWATCH_HTTP_HOST"):
        listen_on("192.0.2.1", 0)


def test_an_ipv6_address_has_its_brackets() -> None:
    with listen_on("::1", 0) as listening:
        assert url_of(listening) == f"http://[::1]:{listening.getsockname()[1]}"
