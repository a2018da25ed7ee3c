"""Settings: where they come from, what is refused, and that no secret is ever echoed."""

import base64
import stat
from pathlib import Path

import pytest
from stellar_sdk import Keypair

from paywatch.config import Settings, ensure_secret_key, env_name, holds_seed, load
from paywatch.errors import ConfigError

SEED = Keypair.from_raw_ed25519_seed(bytes(range(32))).secret
KEY = base64.b64encode(bytes(range(32))).decode()
DATABASE = "postgresql://paywatch:hunter2-hunter2@db.example:5432/paywatch"


def problems(environ: dict[str, str], toml: Path | None = None, *secrets: str) -> tuple[str, ...]:
    """The problems of these settings, after a look that none of the secrets is in them."""
    with pytest.raises(ConfigError) as caught:
        load(environ, toml)
    said = str(caught.value) + repr(caught.value) + repr(caught.value.__cause__)
    for secret in (SEED, KEY, "hunter2", *secrets):
        assert secret not in said
    return caught.value.problems


def toml_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "paywatch.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_any_setting_it_is_testnet_on_loopback_with_an_embedded_database() -> None:
    settings = load({"HOME": "/home/m"})
    assert settings.database_url is None
    assert settings.data_dir == Path("/home/m/.local/share/paywatch")
    assert settings.horizon_url == "https://horizon-testnet.stellar.org"
    assert settings.network_passphrase == "Test SDF Network ; September 2015"
    assert (settings.http_host, settings.http_port) == ("127.0.0.1", 8480)
    assert settings.allow_private_webhooks is False


@pytest.mark.parametrize(
    ("data_home", "expected"),
    [("/data", "/data/paywatch"), ("data", "/home/m/.local/share/paywatch")],
)
def test_the_data_directory_follows_xdg(data_home: str, expected: str) -> None:
    settings = load({"HOME": "/home/m", "XDG_DATA_HOME": data_home})
    assert settings.data_dir == Path(expected)


def test_environment_wins_over_credential_wins_over_file(tmp_path: Path) -> None:
    toml = toml_file(
        tmp_path, 'http_port = 1\nlog_level = "error"\nstream_silence = 5\nhttp_host = "::1"\n'
    )
    (tmp_path / "paywatch_http_port").write_text("2\n")
    (tmp_path / "paywatch_log_level").write_text("warning\n")
    (tmp_path / "another_program").write_text(SEED)
    settings = load(
        {
            "PAYWATCH_HTTP_PORT": "3",
            "PAYWATCH_HTTP_HOST": "",
            "PAYWATCH_CONFIG": str(toml),
            "CREDENTIALS_DIRECTORY": str(tmp_path),
        }
    )
    assert settings.http_port == 3
    assert settings.log_level == "warning"
    assert settings.stream_silence == 5
    assert settings.http_host == "::1", "an empty variable counts as not set"


def test_the_argument_names_the_file_before_the_variable(tmp_path: Path) -> None:
    toml = toml_file(tmp_path, "http_port = 1")
    assert load({"PAYWATCH_CONFIG": "/nowhere"}, toml).http_port == 1


def test_built_directly_it_reads_no_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAYWATCH_HTTP_PORT", "1")
    assert Settings(data_dir=tmp_path).http_port == 8480


def test_all_problems_are_reported_at_once_by_name_with_the_remedy(tmp_path: Path) -> None:
    toml = toml_file(tmp_path, 'http_prot = 1\nlog_format = "xml"\n')
    found = problems(
        {
            "PAYWATCH_DATABASE_URL": "mysql://paywatch:hunter2@db/paywatch",
            "PAYWATCH_HTTP_PORT": "hunter2",
            "PAYWATCH_HORIZN_URL": "https://horizon.stellar.org",
            "PAYWATCH_DISPATCH_IN_FLIGHT": "10",
            "PAYWATCH_STREAM_SILENCE": "nan",
        },
        toml,
    )
    text = "\n".join(found)
    assert "PAYWATCH_DATABASE_URL: not a PostgreSQL URL; give postgresql://" in text
    assert "PAYWATCH_SECRET_KEY: missing" in text
    assert "head -c 32 /dev/urandom | base64" in text
    assert "PAYWATCH_HTTP_PORT: input should be a valid integer" in text
    assert "0 to 65535" in text
    assert "PAYWATCH_LOG_FORMAT (in the file of PAYWATCH_CONFIG)" in text
    assert "PAYWATCH_HTTP_PROT (in the file of PAYWATCH_CONFIG): no such setting" in text
    assert "PAYWATCH_HORIZN_URL: no such setting; did you mean PAYWATCH_HORIZON_URL?" in text
    assert "PAYWATCH_DISPATCH_PER_ENDPOINT: more than PAYWATCH_DISPATCH_IN_FLIGHT" in text
    assert "PAYWATCH_STREAM_SILENCE: input should be a finite number" in text
    assert len(found) == 8


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("http_port", "65536"),
        ("http_port", "-1"),
        ("recover_interval", "4.9"),
        ("processing_timeout", "9"),
        ("dispatch_in_flight", "5001"),
        ("dispatch_per_endpoint", "501"),
        ("stream_silence", "56"),
        ("horizon_timeout", "0"),
        ("horizon_timeout", "inf"),
        ("horizon_hourly_requests", "59"),
        ("horizon_hourly_requests", "1e9"),
        ("network_passphrase", "x" * 201),
        ("log_level", "verbose"),
        ("allow_private_webhooks", "perhaps"),
        ("horizon_url", "ftp://horizon.example"),
        ("horizon_url", "https://"),
        ("horizon_url", "https://me:hunter2@horizon.example"),
        ("horizon_url", "https://horizon.example/?token=hunter2"),
        ("horizon_url", "https://horizon.example:port"),
        ("horizon_url", "https://a.example,ftp://b.example"),
        ("horizon_url", "https://a.example,,https://b.example"),
        ("horizon_url", "https://a.example, https://me:hunter2@b.example"),
        ("horizon_url", "https://a.example,https://a.example/"),
        ("horizon_url", ",".join(f"https://h{n}.example" for n in range(9))),
        ("database_url", "postgresql://paywatch:hunter2@db"),
        ("database_url", "postgresql://paywatch:hunter2/x@db/paywatch"),
        ("database_url", "hunter2"),
        ("audit_interval", "-1"),
        ("audit_interval", "59"),
        ("audit_interval", "7201"),
        ("audit_window", "299"),
        ("audit_window", "1799"),  # less than lies between two audits
        ("secret_key", "hunter2"),
        ("secret_key", base64.b64encode(bytes(31)).decode()),
        ("secret_key", KEY + "!"),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_name_and_not_echoed(setting: str, value: str) -> None:
    name = env_name(setting)
    keys = {} if setting == "secret_key" else {"PAYWATCH_SECRET_KEY": KEY}
    (problem,) = problems({**keys, name: value}, None, *([value] if len(value) > 5 else []))
    assert problem.startswith(f"{name}: ")


def test_audits_can_be_switched_off_whatever_their_window() -> None:
    off = load({"PAYWATCH_AUDIT_INTERVAL": "0", "PAYWATCH_AUDIT_WINDOW": "300"})
    assert off.audit_interval == 0


def test_several_horizons_are_tried_in_the_order_in_which_they_are_named() -> None:
    settings = load({"PAYWATCH_HORIZON_URL": "https://b.example/, http://a.example:8000"})
    assert settings.horizon_urls == ("https://b.example", "http://a.example:8000")
    assert load({}).horizon_urls == ("https://horizon-testnet.stellar.org",)
    (problem,) = problems({"PAYWATCH_HORIZON_URL": "https://b.example,ftp://x"})
    assert "PAYWATCH_HORIZON_URL: address 2 is not an HTTP URL" in problem


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_any_spelling_of_the_database_scheme_becomes_libpqs(scheme: str) -> None:
    url = DATABASE.replace("postgresql", scheme)
    settings = load({"PAYWATCH_DATABASE_URL": url, "PAYWATCH_SECRET_KEY": KEY})
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == DATABASE


def test_a_database_behind_a_unix_socket_is_accepted() -> None:
    url = "postgresql:///paywatch?host=/run/postgresql"
    settings = load({"PAYWATCH_DATABASE_URL": url, "PAYWATCH_SECRET_KEY": KEY})
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == url


def test_a_database_of_ones_own_needs_a_key() -> None:
    (problem,) = problems({"PAYWATCH_DATABASE_URL": DATABASE})
    assert problem.startswith("PAYWATCH_SECRET_KEY: missing")
    assert "head -c 32 /dev/urandom | base64" in problem


def test_secrets_hide_themselves() -> None:
    settings = load({"PAYWATCH_DATABASE_URL": DATABASE, "PAYWATCH_SECRET_KEY": KEY})
    for shown in (
        repr(settings),
        str(settings),
        str(settings.model_dump()),
        settings.model_dump_json(),
    ):
        assert "hunter2" not in shown
        assert KEY not in shown


def test_the_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load({}).http_port = 1


@pytest.mark.parametrize(
    "text",
    [SEED, f"x{SEED}x", f"S{SEED}", f"https://h.example/?s={SEED}", SEED.lower(), "S" * 60 + SEED],
)
def test_a_seed_is_found_anywhere_in_a_text(text: str) -> None:
    assert holds_seed(text)


@pytest.mark.parametrize(
    "text",
    [
        Keypair.from_secret(SEED).public_key,
        "S" * 56,
        SEED[:-1] + ("A" if SEED[-1] != "A" else "B"),
        SEED[:-1],
        SEED[:20] + " " + SEED[20:],
        KEY,
        "",
    ],
)
def test_what_only_looks_like_a_seed_is_none(text: str) -> None:
    assert not holds_seed(text)


@pytest.mark.parametrize(
    "variable",
    [
        "PAYWATCH_SECRET_KEY",
        "PAYWATCH_HORIZON_URL",
        "PAYWATCH_NETWORK_PASSPHRASE",
        "PAYWATCH_SEED",
        "PAYWATCH_CONFIG",
        "PAYWATCH_SERVICE_HOST",
    ],
)
def test_a_seed_in_any_variable_refuses_to_start(variable: str) -> None:
    found = problems({variable: f"see {SEED} there"})
    assert any(p.startswith(f"{variable}: holds a Stellar secret key") for p in found)


def test_a_seed_as_a_variables_name_is_not_echoed() -> None:
    (problem,) = problems({f"PAYWATCH_{SEED}": "1"})
    assert problem.startswith("the name of a setting: holds a Stellar secret key")


@pytest.mark.parametrize(
    "text",
    [
        f'http_host = "{SEED}"',
        f'[merchant]\nkeys = [["a", {{ k = "{SEED}" }}]]',
        f"{SEED} = 1",
        f"# {SEED}\n",
        f"this is no toml {SEED}",
        f'http_host = "\\u0053{SEED[1:]}"',
    ],
)
def test_a_seed_anywhere_in_the_file_refuses_to_start(tmp_path: Path, text: str) -> None:
    found = problems({}, toml_file(tmp_path, text))
    assert any("holds a Stellar secret key" in p for p in found)


def test_a_seed_in_a_credential_refuses_to_start(tmp_path: Path) -> None:
    (tmp_path / "paywatch_secret_key").write_text(SEED + "\n")
    found = problems({"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert any(
        p.startswith("credential paywatch_secret_key: holds a Stellar secret key") for p in found
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"http_port = [\n", "the file is not TOML"),
        (b"http_host = '\xff'", "not UTF-8"),
        (b"#" * (1024 * 1024 + 1), "larger than 1 MiB"),
        (b"[paywatch]\nhttp_port = 1", "the keys are flat"),
        (b"a = " + b"[" * 5_000, "the file is not TOML"),
    ],
)
def test_a_file_that_is_no_settings_is_refused(tmp_path: Path, text: bytes, said: str) -> None:
    path = tmp_path / "paywatch.toml"
    path.write_bytes(text)
    (problem,) = problems({"PAYWATCH_CONFIG": str(path)})
    assert said in problem


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    (problem,) = problems({"PAYWATCH_CONFIG": str(tmp_path / "none.toml")})
    assert problem.startswith("PAYWATCH_CONFIG: cannot be read: No such file")


def test_an_unknown_credential_of_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "paywatch_secretkey").write_text(KEY)
    (problem,) = problems({"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert problem.endswith("did you mean PAYWATCH_SECRET_KEY?")


def test_variables_that_kubernetes_sets_beside_a_service_are_not_ours() -> None:
    load(
        {
            "PAYWATCH_SERVICE_HOST": "10.0.0.1",
            "PAYWATCH_SERVICE_PORT_HTTP": "8480",
            "PAYWATCH_PORT": "tcp://10.0.0.1:8480",
            "PAYWATCH_PORT_8480_TCP_ADDR": "10.0.0.1",
            "PAYWATCH_WEB_PORT_80_TCP": "tcp://10.0.0.1:80",
        }
    )
    (problem,) = problems({"PAYWATCH_PORT": "8481"})
    assert problem.endswith("did you mean PAYWATCH_HTTP_PORT?")


def test_a_key_of_the_settings_is_used_and_no_file_made(tmp_path: Path) -> None:
    settings = load({"PAYWATCH_SECRET_KEY": KEY, "PAYWATCH_DATA_DIR": str(tmp_path)})
    assert ensure_secret_key(settings) == bytes(range(32))
    assert list(tmp_path.iterdir()) == []


def test_the_embedded_database_gets_a_key_file_that_stays(tmp_path: Path) -> None:
    settings = load({"PAYWATCH_DATA_DIR": str(tmp_path / "new" / "data")})
    key = ensure_secret_key(settings)
    assert len(key) == 32
    assert ensure_secret_key(settings) == key
    (path,) = settings.data_dir.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(settings.data_dir.stat().st_mode) & 0o077 == 0
    assert ensure_secret_key(load({"PAYWATCH_DATA_DIR": str(tmp_path / "other")})) != key


@pytest.mark.parametrize(
    ("mode", "content", "said"),
    [
        (0o640, KEY, "chmod 600"),
        (0o600, "short", "not base64 of 32 bytes"),
        (0o600, "", "not base64 of 32 bytes"),
    ],
)
def test_a_key_file_that_is_open_or_broken_is_refused(
    tmp_path: Path, mode: int, content: str, said: str
) -> None:
    path = tmp_path / "secret_key"
    path.write_text(content)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=said):
        ensure_secret_key(load({"PAYWATCH_DATA_DIR": str(tmp_path)}))
    assert path.read_text() == content


def test_a_data_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="PAYWATCH_DATA_DIR"):
        ensure_secret_key(load({"PAYWATCH_DATA_DIR": str(tmp_path / "file" / "data")}))
