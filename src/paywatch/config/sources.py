"""Reading the settings, from three places.

The first one that names a setting wins:

1. the environment: `PAYWATCH_HTTP_PORT=8480`; an empty value counts as not set;
2. systemd's credentials: a file `paywatch_http_port` in `$CREDENTIALS_DIRECTORY`;
3. a TOML file of flat keys: `http_port = 8480`; its path is an argument or `PAYWATCH_CONFIG`.

Every problem is reported at once, by the name of the setting, with what to do. No message ever
contains a value, which may be a secret that went to the wrong place.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from paywatch.config.seed import holds_seed
from paywatch.config.settings import PREFIX, Settings, env_name
from paywatch.errors import ConfigError

CONFIG_VARIABLE = "PAYWATCH_CONFIG"
_FILE_LIMIT = 1024 * 1024  # bytes

# Kubernetes sets these in every pod beside a Service that is named paywatch (or paywatch-…).
_SERVICE_LINK = re.compile(
    r"PAYWATCH_(\w+_)?(SERVICE_(HOST|PORT\w*)=|PORT=(tcp|udp)://|PORT_\d+_(TCP|UDP)\w*=).*",
    re.DOTALL,
)


class _Item(NamedTuple):
    """One value as it was found: where, for which setting if there is one, and what."""

    name: str
    setting: str
    value: object


def load(environ: Mapping[str, str], toml_path: Path | None = None) -> Settings:
    """The settings of an environment, its credentials and, if there is one, a TOML file.

    Args:
        environ: usually `os.environ`.
        toml_path: wins over `PAYWATCH_CONFIG`.

    Raises:
        ConfigError: with every problem at once.
    """
    problems: list[str] = []
    items = [
        *_toml_items(toml_path or environ.get(CONFIG_VARIABLE), problems),
        *_credential_items(environ.get("CREDENTIALS_DIRECTORY"), problems),
        *_environ_items(environ),
    ]
    problems += [problem for problem in map(_problem, items) if problem]
    found = {item.setting: item for item in items if _is_setting(item.setting) and item.value != ""}
    values = {setting: item.value for setting, item in found.items()}
    try:
        settings = Settings.model_validate({"data_dir": _default_data_dir(environ), **values})
    except ValidationError as error:
        problems += _sentences(error, found)
    if problems:
        raise ConfigError(problems)
    return settings


def _default_data_dir(environ: Mapping[str, str]) -> Path:
    """`$XDG_DATA_HOME/paywatch`; a relative one counts as not set (XDG base directories)."""
    base = Path(environ.get("XDG_DATA_HOME") or "")
    home = Path(environ.get("HOME") or "/")
    return (base if base.is_absolute() else home / ".local" / "share") / "paywatch"


def _environ_items(environ: Mapping[str, str]) -> Iterator[_Item]:
    for variable, text in sorted(environ.items()):
        if variable.startswith(PREFIX):
            setting = variable.removeprefix(PREFIX)
            # Upper case only: `PAYWATCH_http_port` is no setting.
            yield _Item(variable, setting.lower() if setting.isupper() else setting, text)


def _credential_items(directory: str | None, problems: list[str]) -> Iterator[_Item]:
    prefix = PREFIX.lower()
    for path in sorted(Path(directory).glob(f"{prefix}*")) if directory else []:
        name = f"credential {path.name}"
        text = _read_text(path, name, problems)
        if text is not None:
            yield _Item(name, path.name.removeprefix(prefix), text.strip())


def _toml_items(path: str | Path | None, problems: list[str]) -> Iterator[_Item]:
    text = _read_text(Path(path), CONFIG_VARIABLE, problems) if path else None
    if text is None:
        return
    if holds_seed(text):  # in a comment, or in what is not TOML, too
        problems.append(_seed_problem(f"{CONFIG_VARIABLE}: the file"))
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        place = re.search(r"\(at [^()]*\)$", str(error))  # the rest may quote the file
        where = f" {place[0]}" if place else ""
        problems.append(f"{CONFIG_VARIABLE}: the file is not TOML{where}; correct it there")
        return
    for key, value in table.items():
        yield _Item(f"{env_name(key)} (in the file of {CONFIG_VARIABLE})", key, value)


def _read_text(path: Path, name: str, problems: list[str]) -> str | None:
    try:
        with path.open("rb") as file:
            raw = file.read(_FILE_LIMIT + 1)
        text = raw.decode()
    except OSError as error:
        problems.append(f"{name}: cannot be read: {error.strerror}; check its path and its owner")
    except UnicodeDecodeError:
        problems.append(f"{name}: not UTF-8 text; write it as text")
    else:
        if len(raw) <= _FILE_LIMIT:
            return text
        problems.append(f"{name}: larger than 1 MiB; give a file of settings")
    return None


def _problem(item: _Item) -> str | None:
    """What is wrong with an item whatever the model thinks of its value."""
    if holds_seed(item.name):
        return _seed_problem("the name of a setting")
    if any(map(holds_seed, _texts(item.value))):
        return _seed_problem(item.name)
    if _is_setting(item.setting) or item.name == CONFIG_VARIABLE:
        return None
    if _SERVICE_LINK.fullmatch(f"{item.name}={item.value}"):
        return None
    return f"{item.name}: no such setting; {_suggestion(item)}"


def _is_setting(name: str) -> bool:
    return name in Settings.model_fields


def _suggestion(item: _Item) -> str:
    if isinstance(item.value, Mapping):
        return "the keys are flat, take them out of their table"
    close = get_close_matches(item.setting.lower(), Settings.model_fields, n=1)
    return f"did you mean {env_name(close[0])}?" if close else "remove it"


def _seed_problem(where: str) -> str:
    return (
        f"{where}: holds a Stellar secret key (S…); take it out, paywatch never needs one, "
        "and treat that key as exposed"
    )


def _texts(value: object) -> Iterator[str]:
    """Every string in a value of TOML, however deep, keys included."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield str(key)
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
    else:
        yield str(value)


def _sentences(error: ValidationError, found: Mapping[str, _Item]) -> Iterator[str]:
    """What the model says against the values, in the operator's words."""
    for entry in error.errors(include_url=False, include_context=False, include_input=False):
        setting = str(entry["loc"][0])
        name = found[setting].name if setting in found else env_name(setting)
        message = entry["msg"][0].lower() + entry["msg"][1:]
        yield f"{name}: {message}; give {Settings.model_fields[setting].description}"
