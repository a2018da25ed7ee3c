"""What an operator can choose, with bounds. A field's description says what to give."""

import base64
import binascii
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

PREFIX = "PAYWATCH_"
MOST_HORIZONS = 8  # each is a label of metrics, and is looked at every 15 s
KEY_COMMAND = "head -c 32 /dev/urandom | base64"


def env_name(setting: str) -> str:
    """The environment variable of a setting: `http_port` -> `PAYWATCH_HTTP_PORT`."""
    return PREFIX + setting.upper()


def _wrong(problem: str) -> PydanticCustomError:
    """An error whose text is ours alone: pydantic adds neither a prefix nor the value."""
    return PydanticCustomError("setting", problem)


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # parsed only when asked for
    except ValueError:
        raise _wrong("not a URL (in a password, percent-encode each of @ : / ? # [ ])") from None
    return parts


def _database_url(value: SecretStr) -> SecretStr:
    """Libpq's scheme, whichever spelling was given; SQLAlchemy's driver is not the operator's."""
    scheme, _, rest = value.get_secret_value().partition("://")
    if scheme not in {"postgresql", "postgres", "postgresql+psycopg"}:
        raise _wrong("not a PostgreSQL URL")
    if _split(f"postgresql://{rest}").path in {"", "/"}:
        raise _wrong("names no database")
    return SecretStr(f"postgresql://{rest}")


def _horizon_url(value: str) -> str:
    """One address or several, as a list without spaces."""
    urls = [url.strip().rstrip("/") for url in value.split(",")]
    if len(urls) > MOST_HORIZONS:
        raise _wrong(f"more than {MOST_HORIZONS} addresses")
    for number, url in enumerate(urls, 1):
        prefix = f"address {number} is " if len(urls) > 1 else ""
        parts = _split(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise _wrong(f"{prefix}not an HTTP URL")
        if parts.username is not None or parts.query or parts.fragment:
            subject = f"address {number} has" if prefix else "has"
            raise _wrong(f"{subject} a user, a query or a fragment, which would end up in logs")
        if url in urls[: number - 1]:
            raise _wrong(f"address {number} is there twice")
    return ",".join(urls)


def _secret_key(value: SecretStr) -> SecretStr:
    try:
        key = base64.b64decode(value.get_secret_value(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != 32:
        raise _wrong("not base64 of 32 bytes")
    return value


Seconds = Annotated[float, Field(allow_inf_nan=False)]


class Settings(BaseSettings):
    """The settings of one daemon or command.

    Built by `load`; built directly (in tests), it reads no environment and no file.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", frozen=True, hide_input_in_errors=True
    )

    database_url: Annotated[SecretStr, AfterValidator(_database_url)] | None = Field(
        default=None,
        description="postgresql://USER:PASSWORD@HOST:PORT/DATABASE; "
        "without it, an embedded PostgreSQL in the data directory is used",
    )
    data_dir: Annotated[Path, AfterValidator(Path.absolute)] = Field(
        description="a directory of paywatch's own, for the embedded database and its key"
    )
    secret_key: Annotated[SecretStr, AfterValidator(_secret_key)] | None = Field(
        default=None,
        description="base64 of 32 random bytes, which encrypts webhook secrets at rest; "
        f"make one with: {KEY_COMMAND}",
    )
    horizon_url: Annotated[str, AfterValidator(_horizon_url)] = Field(
        default="https://horizon-testnet.stellar.org",
        description="the http(s) address of a Horizon, or several of one network with commas "
        "between, the preferred one first",
    )
    network_passphrase: str = Field(
        default="Test SDF Network ; September 2015",
        min_length=1,
        max_length=200,
        description="the passphrase of that Horizon's network",
    )
    http_host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="the address that health and metrics listen on",
    )
    http_port: int = Field(
        default=8480, ge=0, le=65535, description="their TCP port, 0 to 65535; 0 takes any free one"
    )
    allow_private_webhooks: bool = Field(
        default=False,
        description="true to allow webhooks to loopback and private addresses "
        "and by plain http: for development only",
    )
    log_format: Annotated[Literal["auto", "json", "console"], BeforeValidator(_lower)] = Field(
        default="auto", description="json, console, or auto: console on a terminal, else json"
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = (
        Field(default="info", description="debug, info, warning or error")
    )
    recover_interval: Seconds = Field(
        default=300, ge=5, le=86_400, description="seconds between two runs of recovery, 5 to 86400"
    )
    audit_interval: Seconds = Field(
        default=1800,
        ge=0,
        le=7_200,
        description="seconds between two audits of the recent ledgers, 60 to 7200; 0 for none",
    )
    audit_window: Seconds = Field(
        default=3600,
        ge=300,
        le=604_800,
        description="seconds of the ledger that each audit reads again, 300 to 604800, and no less "
        "than PAYWATCH_AUDIT_INTERVAL",
    )
    processing_timeout: Seconds = Field(
        default=300,
        ge=10,
        le=86_400,
        description="seconds that an announced transaction may stay unseen before its session "
        "is pending again, 10 to 86400",
    )
    dispatch_in_flight: int = Field(
        default=500, ge=1, le=5_000, description="webhook attempts at the same time, 1 to 5000"
    )
    dispatch_per_endpoint: int = Field(
        default=32,
        ge=1,
        description="how many of these may go to one endpoint, 1 to PAYWATCH_DISPATCH_IN_FLIGHT",
    )
    stream_silence: Seconds = Field(
        default=15,
        ge=1,
        le=55,
        description="seconds of silence on a stream before it is checked by a page, 1 to 55",
    )
    listen_mode: Annotated[Literal["auto", "account", "network"], BeforeValidator(_lower)] = Field(
        default="auto",
        description="account: a stream for each account; network: one for all of them, filtered "
        "here; or auto: by their number",
    )
    horizon_timeout: Seconds = Field(
        default=30, ge=1, le=300, description="seconds for a whole request to Horizon, 1 to 300"
    )

    horizon_hourly_requests: int = Field(
        default=3600,
        ge=60,
        le=10_000_000,
        description="requests an hour that a Horizon allows to this machine, 60 to 10000000",
    )

    @property
    def horizon_urls(self) -> tuple[str, ...]:
        """The address of each Horizon, the preferred one first."""
        return tuple(self.horizon_url.split(","))

    @field_validator("secret_key", mode="after")
    @classmethod
    def _key_is_ours_or_given(
        cls, value: SecretStr | None, info: ValidationInfo
    ) -> SecretStr | None:
        """A key file beside the embedded database is ours to make; a server's key is not."""
        # A database_url that was refused is not in `data`; it was given all the same.
        if value is None and info.data.get("database_url", "refused") is not None:
            raise _wrong("missing: a database of your own needs it")
        return value

    @field_validator("audit_interval", mode="after")
    @classmethod
    def _no_storm_of_audits(cls, value: float) -> float:
        if 0 < value < 60:
            raise _wrong("less than a minute")
        return value

    @field_validator("audit_window", mode="after")
    @classmethod
    def _no_ledger_between_two_audits(cls, value: float, info: ValidationInfo) -> float:
        if value < info.data.get("audit_interval", value):
            raise _wrong("less than PAYWATCH_AUDIT_INTERVAL, so that ledgers would be left out")
        return value

    @field_validator("dispatch_per_endpoint", mode="after")
    @classmethod
    def _no_more_than_in_flight(cls, value: int, info: ValidationInfo) -> int:
        if value > info.data.get("dispatch_in_flight", value):
            raise _wrong("more than PAYWATCH_DISPATCH_IN_FLIGHT")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the same
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the same
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the same
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what the caller passes: the environment is an argument of `load`."""
        return (init_settings,)
