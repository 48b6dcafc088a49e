"""What is derived from a full segment of rows: for each value of each facet the rows that have it,
the times and sizes in slices, and the groups with their counts. Pure.

A segment is made once, when it is full, and never changes: following the log costs no random
writes however large the index is. Rows after the last full segment are few, and are searched one
by one.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

import msgspec

from secure_cache.audit.bits import Slices, encode_codes, encode_places
from secure_cache.audit.row import COLUMNS, Row
from secure_cache.model.errors import DamagedIndex

FACETS = (
    "event",
    "project",
    "namespace",
    "kind",
    "tier",
    "key",
    "digest",
    "entry_id",
    "issuer",
    "iss",
    "subject",
    "repository_id",
    "repository",
    "run_id",
    "commit",
    "actor_id",
    "actor",
    "rule",
    "policy_sha256",
    "jti_sha256",
    "tid",
    "keyid",
)
"""The columns that are searched for a value. Their places here are stored: append only."""

NUMBERS = ("at", "size")
"""The columns that are searched for a range. As above."""

_DAY_SECONDS = 86_400


@lru_cache(maxsize=4096)
def day_name(day: int) -> str:
    """`2026-01-02`, from days since 1970."""
    return datetime.fromtimestamp(day * _DAY_SECONDS, tz=UTC).strftime("%Y-%m-%d")


def _day(row: Row) -> str | None:
    return None if row.at is None else day_name(row.at // _DAY_SECONDS)


def _writer(row: Row) -> str | None:
    return None if row.issuer is None else f"{row.issuer} {row.subject}"


GROUPS: Mapping[str, Callable[[Row], str | None]] = {
    "namespace": lambda row: row.namespace,
    "writer": _writer,
    "rule": lambda row: row.rule,
    "day": _day,
    "project": lambda row: row.project,
    "tier": lambda row: row.tier,
    "event": lambda row: row.event,
    "issuer": lambda row: row.issuer,
}
"""What is counted by. Their order is stored: append only."""


@dataclass(frozen=True, slots=True)
class Group:
    """One grouping of a segment.

    Attributes:
        labels: the distinct values.
        counts: how many rows have each.
        codes: for each row the place of its value in `labels`.
    """

    labels: tuple[str | None, ...]
    counts: tuple[int, ...]
    codes: bytes

    @property
    def summary(self) -> bytes:
        return msgspec.msgpack.encode(list(zip(self.labels, self.counts, strict=True)))


def read_summary(data: bytes) -> list[tuple[str | None, int]]:
    """Labels with their counts, from `Group.summary`. Raises: DamagedIndex."""
    try:
        return _SUMMARY.decode(data)
    except msgspec.MsgspecError as error:
        raise DamagedIndex("the counts of a segment are not well formed") from error


_SUMMARY = msgspec.msgpack.Decoder(list[tuple[str | None, int]])


def postings(rows: Sequence[Row]) -> Iterator[tuple[int, str, bytes]]:
    """Facet, value, and the rows that have it; in the order of facet and value."""
    count = len(rows)
    for facet, name in enumerate(FACETS):
        found: dict[str, list[int]] = defaultdict(list)
        column = COLUMNS.index(name)
        for place, row in enumerate(rows):
            value = row[column]
            if value is not None:
                found[value].append(place)  # type: ignore[index]  # every facet is a text
        # SQLite orders texts by their UTF-8, and appends fastest in its own order.
        for value in sorted(found, key=str.encode):
            yield facet, value, encode_places(found[value], rows=count)


def slices(rows: Sequence[Row]) -> Iterator[tuple[int, Slices]]:
    """For each of `NUMBERS` its column."""
    for number, name in enumerate(NUMBERS):
        column = COLUMNS.index(name)
        yield number, Slices.of([row[column] for row in rows])  # type: ignore[misc]


def groups(rows: Sequence[Row]) -> Iterator[tuple[int, Group]]:
    """For each of `GROUPS` its values and counts."""
    for number, label_of in enumerate(GROUPS.values()):
        codes: dict[str | None, int] = {}
        column = [codes.setdefault(label_of(row), len(codes)) for row in rows]
        counts = [0] * len(codes)
        for code in column:
            counts[code] += 1
        yield number, Group(tuple(codes), tuple(counts), encode_codes(column))
