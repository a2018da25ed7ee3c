"""The settings: read once by `load`, passed on by hand, never looked up elsewhere."""

from paywatch.config.key import ensure_secret_key
from paywatch.config.seed import holds_seed
from paywatch.config.settings import Settings, env_name
from paywatch.config.sources import CONFIG_VARIABLE, load

__all__ = ["CONFIG_VARIABLE", "Settings", "ensure_secret_key", "env_name", "holds_seed", "load"]
