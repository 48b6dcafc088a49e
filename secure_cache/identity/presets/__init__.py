"""CI providers, one file each. A new provider is a new file here that defines `PRESET`."""

import importlib
import pkgutil
from collections.abc import Mapping
from types import MappingProxyType

from secure_cache.policy.preset import Preset


def load_presets() -> Mapping[str, Preset]:
    """Every preset by its name, found by looking through this package.

    A module defines `PRESET`, and may define `ALIASES`, a tuple of more presets that share its
    `classify`.

    Raises:
        ValueError: two presets have the same name.
    """
    presets: dict[str, Preset] = {}
    for found in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{found.name}")
        for preset in (module.PRESET, *getattr(module, "ALIASES", ())):
            if preset.name in presets:
                raise ValueError(f"two presets are called {preset.name}")
            presets[preset.name] = preset
    return MappingProxyType(presets)
