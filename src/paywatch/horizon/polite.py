"""Reading for work that can wait: it leaves a reserve of the budget to the live streams."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final, NoReturn

from stellar_sdk.client.base_async_client import BaseAsyncClient

from paywatch.errors import HorizonUnavailable
from paywatch.horizon.budget import Budget
from paywatch.horizon.transport import RATE_LIMITED, HorizonTransport, JsonResponse

RESERVE: Final = 0.5  # of the budget, for the live streams
# However busy the streams are, background work goes on, slowly: recovery that waits without end
# would repair nothing, and look like a loop that hangs.
LONGEST_WAIT_S: Final = 60.0
MOST_REFUSALS: Final = 4  # of one request, each with its wait, before it fails


class PoliteTransport(BaseAsyncClient):
    """A transport that waits before each request while the reserve is touched.

    Args:
        transport: what it asks by, with the budget; not closed with this.
        sleep: waits that many seconds.
    """

    def __init__(
        self,
        transport: HorizonTransport,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._transport = transport
        self._sleep = sleep

    @property
    def budget(self) -> Budget:
        """The transport's."""
        return self._transport.budget

    async def get(
        self,
        url: str,
        params: dict[str, str] | None = None,
        max_content_size: int | None = None,
    ) -> JsonResponse:
        """Read one JSON object in its turn, and again where Horizon refused it for the rate.

        Raises:
            HorizonUnavailable: as `HorizonTransport.get`.
        """
        for _ in range(MOST_REFUSALS):
            await self._wait()
            try:
                return await self._transport.get(url, params, max_content_size)
            except HorizonUnavailable as error:
                if error.reason != RATE_LIMITED:
                    raise
        await self._wait()
        return await self._transport.get(url, params, max_content_size)

    async def _wait(self) -> None:
        left_s = LONGEST_WAIT_S
        while left_s > 0 and (wait_s := self.budget.wait_s(RESERVE)) > 0:
            pause_s = min(wait_s, left_s)
            await self._sleep(pause_s)  # others may have spent what it waited for
            left_s -= pause_s

    def stream(
        self, url: str, params: dict[str, str] | None = None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Read a stream as the transport does: it waits for nothing."""
        return self._transport.stream(url, params)

    async def post(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse, as the transport does."""
        await self._transport.post()

    async def close(self) -> None:
        """Leave the connections to their owner."""
