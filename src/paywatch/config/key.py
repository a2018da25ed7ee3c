"""The 32 bytes that encrypt webhook secrets at rest: from the settings, or a file of our own."""

import base64
import binascii
import contextlib
import os
import stat
from pathlib import Path

from paywatch.config.settings import Settings
from paywatch.errors import ConfigError

FILE_NAME = "secret_key"
_KEY_BYTES = 32


def ensure_secret_key(settings: Settings) -> bytes:
    """The key of the settings; with the embedded database, else the data directory's own.

    The key file is made once, readable by its owner only, and used from then on.

    Raises:
        ConfigError: the key file cannot be had, is open to other users, or is not a key.
    """
    if settings.secret_key is not None:
        return base64.b64decode(settings.secret_key.get_secret_value())
    path = settings.data_dir / FILE_NAME
    try:
        if not path.exists():
            _create(path)
        return _read(path)
    except OSError as error:
        problem = f"{path}: {error.strerror}; let paywatch's user write there, or set another "
        raise ConfigError([problem + "PAYWATCH_DATA_DIR"]) from error


def _create(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(base64.b64encode(os.urandom(_KEY_BYTES)) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    # A link appears whole or not at all, and never over the key of another process.
    with contextlib.suppress(FileExistsError):
        path.hardlink_to(draft)
    draft.unlink()


def _read(path: Path) -> bytes:
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise ConfigError([f"{path}: open to other users; run: chmod 600 {path}"])
    try:
        key = base64.b64decode(path.read_bytes().strip(), validate=True)
    except binascii.Error:
        key = b""
    if len(key) != _KEY_BYTES:
        problem = f"{path}: not base64 of 32 bytes; put it back from a back-up, "
        raise ConfigError([problem + "webhook secrets cannot be opened without it"])
    return key
