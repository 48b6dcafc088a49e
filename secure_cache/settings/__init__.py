"""Settings, read once. Only `compose` and `cli` import it."""

from secure_cache.settings.load import load_settings
from secure_cache.settings.render import default_toml
from secure_cache.settings.schema import (
    Containers,
    Limits,
    LocalTier,
    Log,
    Logging,
    Metrics,
    Server,
    Settings,
    Storage,
    Tokens,
    Witnesses,
)

__all__ = [
    "Containers",
    "Limits",
    "LocalTier",
    "Log",
    "Logging",
    "Metrics",
    "Server",
    "Settings",
    "Storage",
    "Tokens",
    "Witnesses",
    "default_toml",
    "load_settings",
]
