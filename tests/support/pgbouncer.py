"""A real PgBouncer in front of a test's database."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from socket import socket

import pytest
from sqlalchemy import make_url

from support.proxy import database_proxy

SETTINGS = """
[databases]
* = host=127.0.0.1 port={port} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen_port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
server_tls_sslmode = disable
"""


def pgbouncer_path() -> str:
    """Where the program is; without it the test fails in CI, and is skipped elsewhere."""
    found = shutil.which("pgbouncer")
    if found is None and not os.environ.get("CI"):
        pytest.skip("pgbouncer is not installed: nothing is tried behind a pooler")
    assert found is not None, "pgbouncer is not installed: .ci/run takes it out of its package"
    return found


@asynccontextmanager
async def behind_pgbouncer(database_url: str, mode: str, directory: Path) -> AsyncIterator[str]:
    """Run one in a pooling mode; gives the URL that leads through it."""
    program, url = pgbouncer_path(), make_url(database_url)
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        listen_port = free.getsockname()[1]
    async with database_proxy(database_url) as (proxy, _):
        config = directory / "pgbouncer.ini"
        config.write_text(
            SETTINGS.format(port=proxy.port, user=url.username, listen_port=listen_port, mode=mode)
        )
        # It refuses to be root, and reads its settings before it is somebody else.
        user = ["-u", "nobody"] if os.getuid() == 0 else []
        process = await asyncio.create_subprocess_exec(
            program, *user, str(config), stderr=asyncio.subprocess.PIPE
        )
        assert process.stderr is not None
        try:
            async with asyncio.timeout(20):
                while b"process up" not in await process.stderr.readline():
                    assert process.returncode is None
            through = url.set(host="127.0.0.1", port=listen_port, query={"sslmode": "disable"})
            yield through.render_as_string(hide_password=False)
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()
