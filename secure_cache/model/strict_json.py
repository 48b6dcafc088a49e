"""JSON from strangers: one document has one meaning, or it is refused.

`json` keeps the last of two equal keys, reads UTF-16 and `NaN`, and lets lone surrogates in: with
each of these, two readers can see two things in one signed document. Every reader of hostile
JSON uses this loader.
"""

import json
import math
from typing import Any, NoReturn, TypeAlias

JsonValue: TypeAlias = "str | int | float | bool | list[JsonValue] | dict[str, JsonValue] | None"

MAX_DEPTH = 8


def load_strict_json(data: bytes, *, max_bytes: int, max_depth: int = MAX_DEPTH) -> JsonValue:
    """Read one RFC 8259 document.

    Args:
        data: UTF-8 without a byte order mark.
        max_bytes: a longer document is refused unread.
        max_depth: how deep arrays and objects may nest; a scalar has depth 0.

    Raises:
        ValueError: too long, too deep, not UTF-8, duplicate keys, NaN, Infinity or a number
            that would become one, a lone surrogate, or not JSON. The text never quotes `data`.
    """
    if len(data) > max_bytes:
        raise ValueError(f"JSON document of more than {max_bytes} bytes")
    try:
        value: JsonValue = _DECODER.decode(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise ValueError("JSON document is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: error at character {error.pos}") from None
    except RecursionError:
        raise ValueError("JSON document is nested too deeply") from None
    _check(value, max_depth)
    return value


def load_strict_object(
    data: bytes, *, max_bytes: int, max_depth: int = MAX_DEPTH
) -> dict[str, JsonValue]:
    """As `load_strict_json`, and the document is an object.

    Raises:
        ValueError: as `load_strict_json`, or not an object.
    """
    value = load_strict_json(data, max_bytes=max_bytes, max_depth=max_depth)
    if not isinstance(value, dict):
        raise ValueError("JSON document is not an object")  # noqa: TRY004 - one error for callers
    return value


def has_surrogate(text: str) -> bool:
    """A lone surrogate can not be encoded; it becomes an error far from here."""
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("JSON object with a duplicate key")
    return members


def _finite(literal: str) -> float:
    number = float(literal)
    if not math.isfinite(number):
        raise ValueError("JSON number out of range")
    return number


def _integer(literal: str) -> int:
    # int() is quadratic in the digits, and no field of ours needs more than these.
    if len(literal) > 32:
        raise ValueError("JSON number out of range")
    return int(literal)


def _no_constant(_: str) -> NoReturn:
    raise ValueError("JSON has no NaN and no Infinity")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=_finite, parse_int=_integer, parse_constant=_no_constant
)


def _check(document: JsonValue, max_depth: int) -> None:
    waiting: list[tuple[JsonValue, int]] = [(document, 0)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, str):
            if has_surrogate(value):
                raise ValueError("JSON string with a lone surrogate")
        elif isinstance(value, dict | list):
            if depth == max_depth:
                raise ValueError("JSON document is nested too deeply")
            if isinstance(value, dict):
                waiting.extend((key, depth + 1) for key in value)
                waiting.extend((member, depth + 1) for member in value.values())
            else:
                waiting.extend((item, depth + 1) for item in value)
