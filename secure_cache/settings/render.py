"""The settings file that `init` writes: every setting, its meaning, its default."""

import json
from collections.abc import Iterator, Mapping
from textwrap import wrap

from msgspec import NODEFAULT, Struct
from msgspec.structs import fields

from secure_cache.settings.schema import Settings, meaning

WIDTH = 96

_HEAD = """\
# Settings of secure-cache. Relative paths are relative to this file.
# A line that is commented out shows the default. An environment variable overrides a setting:
# SECURE_CACHE_SERVER__PORT=9000 sets port in [server].
"""


def default_toml(values: Mapping[str, str | int | float | bool]) -> str:
    """Render the file.

    Args:
        values: what is set, by dotted name, such as {"policy": "policy.yaml",
            "keys": "keys", "storage.path": "data"}. Everything else is written as a comment
            with its default.

    Raises:
        KeyError: `values` names something that is no setting.
    """
    left = dict(values)
    lines = [_HEAD, *_plain(Settings, "", left), *_sections(Settings, "", left)]
    if left:
        raise KeyError(", ".join(left))
    return "\n".join(lines)


def _sections(
    struct: type[Struct], prefix: str, left: dict[str, str | int | float | bool]
) -> Iterator[str]:
    for info in fields(struct):
        if isinstance(info.type, type) and issubclass(info.type, Struct):
            name = prefix + info.encode_name
            yield f"[{name}]"
            yield from _plain(info.type, f"{name}.", left)
            yield from _sections(info.type, f"{name}.", left)


def _plain(
    struct: type[Struct], prefix: str, left: dict[str, str | int | float | bool]
) -> Iterator[str]:
    for info in fields(struct):
        if isinstance(info.type, type) and issubclass(info.type, Struct):
            continue
        yield from wrap(meaning(info), WIDTH, initial_indent="# ", subsequent_indent="# ")
        if prefix + info.encode_name in left:
            yield f"{info.encode_name} = {_toml(left.pop(prefix + info.encode_name))}\n"
        elif info.default is NODEFAULT or info.default is None:
            yield f"# {info.encode_name} =\n"
        else:
            yield f"# {info.encode_name} = {_toml(info.default)}\n"


def _toml(value: str | float) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return repr(value)
    # TOML knows JSON's escapes but no surrogate pairs, and wants DEL escaped too.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
