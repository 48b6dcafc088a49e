"""From secure-cache.toml and the environment to `Settings`, or one line that says what to mend."""

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import NODEFAULT, Struct
from msgspec.structs import FieldInfo, fields

from secure_cache.model.errors import Misconfigured
from secure_cache.settings.schema import Settings, meaning
from secure_cache.settings.storage import check_storage

PREFIX = "SECURE_CACHE_"
MAX_FILE_BYTES = 1 << 20
SHOWN_CHARACTERS = 80

S = TypeVar("S", bound=Struct)


def load_settings(path: Path, environ: Mapping[str, str]) -> Settings:
    """Read, override, check. `environ` is `os.environ` in the program.

    Raises:
        Misconfigured: names the file or variable, the setting, its value and what to do.
    """
    source = _Source(path.absolute(), _overrides(environ))
    settings = source.read(Settings, _document(path), "")
    source.refuse_unused()
    check_storage(settings.storage, path)
    return settings


def _document(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        reason = error.strerror or "not readable"
        raise Misconfigured(
            f"{path}: {reason}: give the settings file with --config, or make one with"
            " 'secure-cache init DIR'"
        ) from None
    if len(text) > MAX_FILE_BYTES:
        raise Misconfigured(f"{path}: larger than {MAX_FILE_BYTES} bytes: not a settings file")
    try:
        return tomllib.loads(text.decode())
    except UnicodeDecodeError:
        raise Misconfigured(f"{path}: not UTF-8: save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise Misconfigured(f"{path}: not valid TOML: {error}") from None


def _overrides(environ: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Dotted lower-case name -> (variable, value)."""
    single = {info.name for info in fields(Settings) if _section(info) is None}
    found: dict[str, tuple[str, str]] = {}
    for variable, value in sorted(environ.items()):
        name = variable.removeprefix(PREFIX).lower()
        if not variable.startswith(PREFIX) or ("__" not in name and name not in single):
            continue
        found[name.replace("__", ".")] = (variable, value)
    return found


def _section(info: FieldInfo) -> type[Struct] | None:
    kind = info.type
    return kind if isinstance(kind, type) and issubclass(kind, Struct) else None


def _names(struct: type[Struct], prefix: str) -> Iterator[str]:
    for info in fields(struct):
        section = _section(info)
        name = prefix + info.encode_name
        if section is None:
            yield name
        else:
            yield from _names(section, name + ".")


def _suggest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    return f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"


@dataclass
class _Source:
    """One file and the overrides of it, converted field by field so that each error can name
    the setting, its value and where it came from."""

    path: Path
    overrides: dict[str, tuple[str, str]]

    def read(self, struct: type[S], document: object, prefix: str) -> S:
        where = prefix.removesuffix(".") or "the file"
        if not isinstance(document, dict):
            raise Misconfigured(f"{self.path}: {where} is a section: write [{where}]")
        by_name = {info.encode_name: info for info in fields(struct)}
        for name in document:
            if name not in by_name:
                known = [prefix + other for other in by_name]
                raise Misconfigured(
                    f"{self.path}: unknown setting {_shown(prefix + name)}: "
                    + _suggest(prefix + name, known)
                )
        values = {
            info.name: self._field(info, document, prefix + info.encode_name)
            for info in by_name.values()
        }
        return struct(**values)

    def _field(self, info: FieldInfo, document: dict[str, Any], dotted: str) -> object:
        section = _section(info)
        if section is not None:
            return self.read(section, document.get(info.encode_name, {}), dotted + ".")
        override = self.overrides.pop(dotted.lower(), None)
        if override is not None:
            variable, text = override
            return self._convert(info, text, f"{variable}: {dotted}", strict=False)
        if info.encode_name in document:
            value = document[info.encode_name]
            return self._convert(info, value, f"{self.path}: {dotted}", strict=True)
        if info.default is NODEFAULT:
            raise Misconfigured(
                f"{self.path}: {dotted} is missing and has no safe default: {meaning(info)}"
            )
        return info.default

    def _convert(self, info: FieldInfo, value: object, where: str, *, strict: bool) -> object:
        try:
            return msgspec.convert(value, info.type, strict=strict, dec_hook=self._path)
        except msgspec.ValidationError as error:
            raise Misconfigured(f"{where} = {_shown(value)}: {error}: {meaning(info)}") from None

    def _path(self, kind: type, value: object) -> Path:
        if kind is not Path or not isinstance(value, str) or not value or "\0" in value:
            raise ValueError("Expected a path")
        return self.path.parent / value

    def refuse_unused(self) -> None:
        """A variable that names no setting is a typing error, not a wish to be ignored."""
        for dotted, (variable, _) in self.overrides.items():
            raise Misconfigured(
                f"{variable}: unknown setting {_shown(dotted)}: "
                + _suggest(dotted, list(_names(Settings, "")))
            )


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."
