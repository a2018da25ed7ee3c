"""The Horizons of the settings, as one pool."""

from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import urlsplit

from paywatch.config import Settings
from paywatch.horizon.budget import Budget
from paywatch.horizon.continuity import ReadHistory, first_history
from paywatch.horizon.instance import Instance
from paywatch.horizon.pool import HorizonPool
from paywatch.horizon.source import HorizonSource
from paywatch.horizon.timing import Timing
from paywatch.horizon.transport import HorizonTransport, at_once
from paywatch.telemetry import Metrics
from paywatch.wiring.outside import Outside


def open_pool(
    settings: Settings,
    metrics: Metrics | None = None,
    read_history: ReadHistory = first_history,
    outside: Outside | None = None,
    before_parsing: Callable[[], Awaitable[None]] = at_once,
) -> HorizonPool:
    """Build the pool of the settings; an async context manager that closes itself.

    `read_history` tells which history of the network we are in; `before_parsing` waits until a
    document may take the processor.
    """
    counted = metrics or Metrics()
    outside = outside or Outside()
    timing = Timing(
        get_s=settings.horizon_timeout,
        reconcile_s=settings.stream_silence,
        # A quarter of the budget: full pages, and the root, are asked for besides.
        poll_s=min(60.0, max(0.5, 4 * 3600 / settings.horizon_hourly_requests)),
    )

    def build(name: str, url: str) -> Instance:
        transport = HorizonTransport(
            timing,
            lambda code: counted.horizon_requests.labels(code=code).inc(),
            budget=Budget(settings.horizon_hourly_requests, outside.ticks),
            now=outside.clock,
            before_parsing=before_parsing,
        )
        source = HorizonSource(
            url, settings.network_passphrase, transport, timing=timing, read_history=read_history
        )
        return Instance(name, source, outside.rng, timing.first_event_s, outside.ticks)

    urls = settings.horizon_urls
    return HorizonPool(
        [build(name, url) for name, url in zip(name_horizons(urls), urls, strict=True)],
        timing,
        rng=outside.rng,
        clock=outside.ticks,
        on_reconnect=lambda reason: counted.reconnects.labels(reason=reason).inc(),
        on_change=lambda name: counted.horizon_changes.labels(horizon=name).inc(),
    )


def name_horizons(urls: Sequence[str]) -> list[str]:
    """Name each by its host, and its port if the address has one: never by its path.

    Two behind one host are told apart by a number.
    """
    names: list[str] = []
    for url in urls:
        host = urlsplit(url).netloc.lower()
        same = sum(name.partition("#")[0] == host for name in names)
        names.append(f"{host}#{same + 1}" if same else host)
    return names
