"""`python -m bench.posting URL BODY COUNT ENDPOINTS CONCURRENCY`: a loop that only POSTs.

aiohttp with one session; BODY is a file. No database, no signature, nothing to remember.
"""

import asyncio
import sys
from pathlib import Path

import aiohttp


async def post_all(url: str, body: bytes, count: int, endpoints: int, concurrency: int) -> None:
    """POST a body so many times, to the endpoints in turn."""
    numbers = iter(range(count))
    connector = aiohttp.TCPConnector(limit=concurrency)
    async with aiohttp.ClientSession(connector=connector) as http:

        async def keep_posting() -> None:
            for number in numbers:
                headers = {"Content-Type": "application/json", "webhook-id": str(number)}
                to = f"{url}/{number % endpoints}"
                async with http.post(to, data=body, headers=headers) as response:
                    await response.read()
                    response.raise_for_status()

        async with asyncio.TaskGroup() as posting:
            for _ in range(concurrency):
                posting.create_task(keep_posting())


if __name__ == "__main__":
    to, file, *numbers = sys.argv[1:]
    asyncio.run(post_all(to, Path(file).read_bytes(), *map(int, numbers)))
