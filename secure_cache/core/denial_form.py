"""One object of counts: what one process refused in one hour. Pure."""

import re
from collections.abc import Mapping
from typing import Literal

import msgspec

from secure_cache.core.denials import HOUR_SECONDS, METHODS, Denial
from secure_cache.model.clock import parse_rfc3339, rfc3339
from secure_cache.model.errors import CorruptObject
from secure_cache.model.strict_json import load_strict_object
from secure_cache.storage import layout

MAX_BYTES = 512 * 1024

_NAME = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})T([0-9]{2})/([0-9a-f]{16})\.json")
_WORD = re.compile(r"[A-Za-z0-9_-]{0,64}")
_MAX_COUNT = 2**53


class _Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    v: Literal[1]
    hour: str
    counts: tuple[tuple[int, str, str, str, str, str, str, str], ...]


def encode_counts(number: int, counts: Mapping[Denial, int]) -> bytes:
    """One object: the counts of one process in one hour."""
    hour = rfc3339(number * HOUR_SECONDS)
    rows = tuple((count, *denial) for denial, count in sorted(counts.items()))
    return msgspec.json.encode(_Document(v=1, hour=hour, counts=rows)) + b"\n"


def decode_counts(number: int, data: bytes) -> Mapping[Denial, int]:
    """The inverse of `encode_counts`.

    Raises:
        CorruptObject: anything that it would not write for this hour.
    """
    try:
        read = load_strict_object(data, max_bytes=MAX_BYTES)
        document = msgspec.convert(read, _Document)
    except ValueError as error:
        raise CorruptObject(f"stored counts are not well formed: {error}") from error
    if document.hour != rfc3339(number * HOUR_SECONDS):
        raise CorruptObject("stored counts are of another hour")
    found: dict[Denial, int] = {}
    for count, *words in document.counts:
        denial = Denial(*words)
        good = all(map(_WORD.fullmatch, words)) and denial.method in METHODS
        if not good or not 0 < count <= _MAX_COUNT or denial in found:
            raise CorruptObject("stored counts hold what nobody counts")
        found[denial] = count
    return found


def hour_of(name: str) -> int | None:
    """Hours since 1970; None for a name that no process gives."""
    found = _NAME.fullmatch(name.removeprefix(layout.DENIALS_PREFIX))
    if found is None:
        return None
    year, month, day, hour, _ = found.groups()
    try:
        return parse_rfc3339(f"{year}-{month}-{day}T{hour}:00:00Z") // HOUR_SECONDS
    except ValueError:
        return None
