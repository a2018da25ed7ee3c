"""A procrastinate worker that POSTs webhooks: run by the Python of its own environment.

`python procrastinate_worker.py defer DATABASE URL BODY COUNT ENDPOINTS` fills its queue, `work
DATABASE CONCURRENCY CONNECTIONS` works until it is empty. A job's arguments hold the whole POST.
"""

import asyncio
import sys
from pathlib import Path

import aiohttp
import procrastinate

_AT_ONCE = 1000  # jobs deferred by one statement


def open_app(database: str, connections: int) -> procrastinate.App:
    """Make an application without tasks."""
    connector = procrastinate.PsycopgConnector(
        conninfo=database, min_size=connections, max_size=connections
    )
    return procrastinate.App(connector=connector)


async def defer(app: procrastinate.App, url: str, body: str, count: int, endpoints: int) -> None:
    """Make the tables, and a job for each POST."""
    jobs = [
        {"url": f"{url}/{number % endpoints}", "id_": str(number), "body": body}
        for number in range(count)
    ]
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        for start in range(0, count, _AT_ONCE):
            deferrer = app.configure_task("post", allow_unknown=True)
            await deferrer.batch_defer_async(*jobs[start : start + _AT_ONCE])


async def work(app: procrastinate.App, concurrency: int) -> None:
    """Do all jobs."""
    connector = aiohttp.TCPConnector(limit=concurrency)
    async with app.open_async(), aiohttp.ClientSession(connector=connector) as http:

        async def post(url: str, id_: str, body: str) -> None:
            headers = {"Content-Type": "application/json", "webhook-id": id_}
            async with http.post(url, data=body.encode(), headers=headers) as response:
                await response.read()
                response.raise_for_status()

        app.task(name="post")(post)
        await app.run_worker_async(concurrency=concurrency, wait=False, listen_notify=False)


if __name__ == "__main__":
    verb, database, *rest = sys.argv[1:]
    if verb == "defer":
        to, file, *numbers = rest
        body_ = Path(file).read_text()
        asyncio.run(defer(open_app(database, 1), to, body_, *map(int, numbers)))
    else:
        asyncio.run(work(open_app(database, int(rest[1])), int(rest[0])))
