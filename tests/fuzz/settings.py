"""Any lines as the environment, any text as the file: settings, or all that is wrong with them."""

import tempfile
from pathlib import Path
from typing import Final

from stellar_sdk import Keypair

from fuzz.target import Target
from paywatch.config import Settings, env_name, load
from paywatch.errors import ConfigError

SEED: Final = Keypair.from_raw_ed25519_seed(bytes(range(32))).secret
_FILE: Final = Path(tempfile.gettempdir()) / "paywatch-fuzz.toml"


def run(raw: bytes) -> None:
    """Read `NAME=value` lines; what stands behind a line of `---` is the file."""
    lines, _, toml = raw.partition(b"\n---\n")
    text = lines.decode(errors="surrogateescape").replace("\0", "")
    pairs = (line.partition("=") for line in text.split("\n"))
    environ = {name: value for name, _, value in pairs if name.startswith("PAYWATCH_")}
    environ.pop("PAYWATCH_CONFIG", None)  # no other files than ours
    if toml:
        _FILE.write_bytes(toml)
    try:
        settings = load(environ, _FILE if toml else None)
    except ConfigError as error:
        assert error.problems
        assert SEED not in str(error)
        return
    _check(settings)


def _check(settings: Settings) -> None:
    assert settings.horizon_urls
    assert settings.data_dir.is_absolute()
    assert settings.dispatch_per_endpoint <= settings.dispatch_in_flight
    assert settings.audit_interval <= settings.audit_window
    for secret in (settings.database_url, settings.secret_key):
        shown = secret and secret.get_secret_value()
        assert not shown or len(shown) < 8 or shown not in repr(settings)


_VALUES: Final = {
    "database_url": "postgresql://paywatch:pass%40word@db.example:5432/paywatch?sslmode=require",
    "data_dir": "/var/lib/paywatch",
    "secret_key": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
    "horizon_url": "https://horizon.stellar.org, https://[2001:db8::1]:8000/",
    "network_passphrase": "Public Global Stellar Network ; September 2015",
    "http_host": "::1",
    "allow_private_webhooks": "yes",
    "log_format": "JSON",
    "log_level": "Debug",
    "listen_mode": "network",
}


def _seeds() -> tuple[bytes, ...]:
    values = {name: _VALUES.get(name, "300") for name in Settings.model_fields}
    lines = [f"{env_name(name)}={value}" for name, value in values.items()]
    toml = "\n".join(f'{name} = "{value}"' for name, value in values.items())
    odd = (
        "PAYWATCH_HORIZON_URL=http://[::1", "PAYWATCH_HTTP_PORT=\uff11", "PAYWATCH_NOTHING=1",
        "PAYWATCH_AUDIT_INTERVAL=nan", "PAYWATCH_AUDIT_WINDOW=inf", f"PAYWATCH_HTTP_HOST={SEED}",
        "PAYWATCH_SERVICE_HOST=10.0.0.1", "PAYWATCH_STREAM_SILENCE=1e400", "PAYWATCH_=1",
        "PAYWATCH_DATABASE_URL=postgresql://u:p@[::1]:99999/d", "PAYWATCH_DATA_DIR=\ttmp",
        "PAYWATCH_RECOVER_INTERVAL=" + "9" * 5000,
    )  # fmt: skip
    whole = "\n".join(lines)
    files = (
        toml,
        "[paywatch]\nhttp_port = 1\n",
        "http_port = 0x1F\naudit_interval = 60.5\nlog_level = ['a', {b = 1}]",
    )
    texts = (*lines, *odd, whole, *(f"\n---\n{text}" for text in files))
    return tuple(text.encode() for text in texts)


TARGET = Target(run, _seeds(), is_slow=True)
