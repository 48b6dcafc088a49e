"""What an auditor asks for: a filter in types, and how it is read from text.

All conditions must hold; of several values of one condition any will do. Values are compared
exactly, as in the policy's revocations, whose names the conditions share. Both ends of a range
are inside it.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self, TypeVar

from secure_cache.audit.row import EVENTS, Row
from secure_cache.model.clock import parse_rfc3339
from secure_cache.model.digest import Digest
from secure_cache.model.errors import WrongFilter
from secure_cache.model.names import Namespace, check_project, parse_key
from secure_cache.model.strict_json import has_surrogate
from secure_cache.model.tiers import Tier
from secure_cache.provenance.statement import MAX_SAFE_INTEGER, check_entry_id

_T = TypeVar("_T")

MAX_VALUES = 64
MAX_VALUE_CHARACTERS = 1024
_DAY_SECONDS = 86_400
_SIZE = re.compile(r"(0|[1-9][0-9]{0,15})(|KiB|MiB|GiB)")
_UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


@dataclass(frozen=True, slots=True)
class Condition:
    """One of `columns` has one of `values`."""

    columns: tuple[str, ...]
    values: frozenset[str]

    def holds(self, row: Row) -> bool:
        return any(getattr(row, column) in self.values for column in self.columns)


@dataclass(frozen=True, slots=True)
class Range:
    """The number in `column` is there, and between the two, both inside; None is no end."""

    column: str
    low: int | None
    high: int | None

    def holds(self, row: Row) -> bool:
        number: int | None = getattr(row, self.column)
        if number is None:
            return False
        return (self.low is None or self.low <= number) and (
            self.high is None or number <= self.high
        )


@dataclass(frozen=True, slots=True)
class Filter:
    """Which entries. Empty means all of them.

    Raises (from `parse`):
        WrongFilter: says which filter is wrong, and what is allowed.
    """

    conditions: tuple[Condition, ...] = ()
    ranges: tuple[Range, ...] = ()

    def matches(self, row: Row) -> bool:
        return all(condition.holds(row) for condition in self.conditions) and all(
            range_.holds(row) for range_ in self.ranges
        )

    @classmethod
    def parse(cls, given: Mapping[str, Sequence[str]]) -> Self:
        """From names and their values, such as the parameters of a query."""
        unknown = sorted(set(given) - set(NAMES))
        if unknown:
            raise WrongFilter(
                f"there is no filter {_shown(unknown[0])}; there are: {', '.join(NAMES)}"
            )
        conditions = [
            Condition(_TEXTS[name].columns, frozenset(_values(name, given[name], given)))
            for name in _TEXTS
            if given.get(name)
        ]
        ranges = [
            Range("at", _number(given, "since", _since), _number(given, "until", _until)),
            Range("size", _number(given, "min_size", _size), _number(given, "max_size", _size)),
        ]
        for range_, problem in zip(ranges, _BACKWARDS, strict=True):
            if range_.low is not None and range_.high is not None and range_.high < range_.low:
                raise WrongFilter(problem)
        return cls(
            tuple(conditions),
            tuple(r for r in ranges if r.low is not None or r.high is not None),
        )


_BACKWARDS = ("until: before since", "max_size: less than min_size")


@dataclass(frozen=True, slots=True)
class _Text:
    """A filter by text: where it looks, what a value is read with, and what is allowed."""

    columns: tuple[str, ...]
    read: Callable[[str], str]
    allowed: str


def _digest(text: str) -> str:
    return str(Digest.parse(text.removeprefix("sha256:")))


def _one_of(names: Iterable[str]) -> Callable[[str], str]:
    known = frozenset(names)

    def read(text: str) -> str:
        if text not in known:
            raise ValueError("not one of them")
        return text

    return read


def _any_text(text: str) -> str:
    if not 0 < len(text) <= MAX_VALUE_CHARACTERS:
        raise ValueError("empty or too long")
    return text


_KIND = re.compile(r"[a-z][a-z0-9-]{0,31}")


def _kind(text: str) -> str:
    if _KIND.fullmatch(text) is None:
        raise ValueError("not a kind")
    return text


_TIERS = [str(tier) for tier in sorted(Tier, reverse=True)]
_HEX = "64 lower-case hex digits"
_EXACTLY = f"the exact text, 1 to {MAX_VALUE_CHARACTERS} characters"

_TEXTS: Mapping[str, _Text] = {
    "event": _Text(("event",), _one_of(EVENTS), f"one of {', '.join(EVENTS)}"),
    "project": _Text(("project",), check_project, "a project's name in the policy"),
    "namespace": _Text(
        ("namespace",),
        lambda text: str(Namespace.parse(text)),
        "project:kind/id, or kind/id beside one project, such as demo:branch/main",
    ),
    "kind": _Text(("kind",), _kind, "a namespace's kind, such as branch, pr, mr or queue"),
    "tier": _Text(("tier",), _one_of(_TIERS), f"one of {', '.join(_TIERS)}"),
    "key": _Text(("key",), parse_key, "a cache key: 1 to 128 letters, digits, '_' or '-'"),
    "digest": _Text(("digest",), _digest, f"a SHA-256: {_HEX}, with or without sha256: before it"),
    "entry_id": _Text(("entry_id",), check_entry_id, "a ULID: 26 upper-case characters"),
    "issuer": _Text(("issuer", "iss"), _any_text, f"an issuer's name or its iss: {_EXACTLY}"),
    "subject": _Text(("subject",), _any_text, f"a token's sub: {_EXACTLY}"),
    "repository_id": _Text(("repository_id",), _any_text, f"the CI's id: {_EXACTLY}"),
    "repository": _Text(("repository", "repository_id"), _any_text, f"a name or an id: {_EXACTLY}"),
    "run_id": _Text(("run_id",), _any_text, f"the CI's id of a run: {_EXACTLY}"),
    "commit": _Text(("commit",), _any_text, f"a whole commit hash: {_EXACTLY}"),
    "actor_id": _Text(("actor_id",), _any_text, f"the CI's id: {_EXACTLY}"),
    "actor": _Text(("actor", "actor_id"), _any_text, f"a name or an id: {_EXACTLY}"),
    "rule": _Text(("rule",), _any_text, f"a rule's name in the policy: {_EXACTLY}"),
    "policy_sha256": _Text(("policy_sha256",), _digest, f"a SHA-256: {_HEX}"),
    "jti_sha256": _Text(("jti_sha256",), _digest, f"a SHA-256: {_HEX}"),
    "tid": _Text(("tid",), _any_text, f"a family of tokens: {_EXACTLY}"),
    "keyid": _Text(("keyid",), _digest, f"an entry key's id: {_HEX}"),
}

_TIME = "a time such as 2026-01-02T03:04:05Z, or a day such as 2026-01-02 (UTC)"
_BYTES = "bytes, such as 4096, 64KiB or 1GiB"
_RANGES = {"since": _TIME, "until": _TIME, "min_size": _BYTES, "max_size": _BYTES}

NAMES = (*_RANGES, *_TEXTS)
"""What a filter can be called."""


def allowed(name: str) -> str:
    """What a filter takes, in words."""
    return _RANGES[name] if name in _RANGES else _TEXTS[name].allowed


def _values(name: str, texts: Sequence[str], given: Mapping[str, Sequence[str]]) -> list[str]:
    if len(texts) > MAX_VALUES:
        raise WrongFilter(f"{name}: at most {MAX_VALUES} values")
    projects = given.get("project", ())
    if name == "namespace" and len(projects) == 1:
        texts = [
            text if ":" in text.partition("/")[0] else f"{projects[0]}:{text}" for text in texts
        ]
    return [_read(name, text, _TEXTS[name].read) for text in texts]


def _number(
    given: Mapping[str, Sequence[str]], name: str, read: Callable[[str], int]
) -> int | None:
    texts = given.get(name, ())
    if not texts:
        return None
    if len(texts) > 1:
        raise WrongFilter(f"{name}: exactly one value")
    return _read(name, texts[0], read)


def _read(name: str, text: str, read: Callable[[str], _T]) -> _T:
    try:
        if has_surrogate(text):
            # A byte of a command line that is no UTF-8: SQLite would not take it.
            raise ValueError("not UTF-8")  # noqa: TRY301 - one error for whatever is wrong
        return read(text)
    except ValueError:
        raise WrongFilter(f"{name}: {_shown(text)} is not {allowed(name)}") from None


def _since(text: str) -> int:
    return _moment(text, end_of_day=False)


def _until(text: str) -> int:
    return _moment(text, end_of_day=True)


def _moment(text: str, *, end_of_day: bool) -> int:
    if "T" in text:
        return parse_rfc3339(text)
    day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    if day.strftime("%Y-%m-%d") != text:
        raise ValueError("not a day")
    return int(day.timestamp()) + (_DAY_SECONDS - 1 if end_of_day else 0)


def _size(text: str) -> int:
    found = _SIZE.fullmatch(text)
    if found is None:
        raise ValueError("not a number of bytes")
    number = int(found[1]) * _UNITS[found[2]]
    if number > MAX_SAFE_INTEGER:
        raise ValueError("too large")
    return number


def _shown(text: str) -> str:
    return ascii(text[:80])
