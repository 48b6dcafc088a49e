"""Answering a filter: sets of rows from the full segments, SQL over the few rows after them.

A page is collected segment by segment in the direction of reading, so that the first hits of a
frequent value are found at once, and the absence of a rare combination costs a few operations on
sets for each segment, however many rows each of its conditions has.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from secure_cache.audit.bits import (
    Slices,
    blob,
    decode_codes,
    decode_places,
    everything,
    places_down,
    places_of,
    select,
)
from secure_cache.audit.building import rows_between
from secure_cache.audit.filters import Condition, Filter, Range
from secure_cache.audit.row import Row
from secure_cache.audit.schema import SELECTED
from secure_cache.audit.segment import FACETS, GROUPS, NUMBERS, read_summary
from secure_cache.audit.state import IndexState
from secure_cache.model.errors import DamagedIndex

MAX_PAGE = 1000


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page of the answer; pages are told apart by log indexes, so they are stable while the
    log grows.

    Attributes:
        limit: rows at most, 1 to `MAX_PAGE`.
        after: only entries with a larger index.
        before: only entries with a smaller one.
        newest_first: the order, and the end at which the page begins.
    """

    limit: int = 100
    after: int | None = None
    before: int | None = None
    newest_first: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """Part of an answer.

    Attributes:
        rows: in the order that was asked for.
        size: how many entries were indexed when it was answered.
        more: there are further rows in that direction.
    """

    rows: tuple[Row, ...]
    size: int
    more: bool


@dataclass(frozen=True, slots=True)
class Counts:
    """A grouping.

    Attributes:
        counts: value and number of entries; the most frequent first, days in their order. None
            stands for the entries that have no such value.
        distinct: how many values there are in all.
        total: how many entries match.
        size: how many entries were indexed when it was answered.
    """

    counts: tuple[tuple[str | None, int], ...]
    distinct: int
    total: int
    size: int


class Query:
    """One filter over one state of the index, on one connection with an open transaction."""

    def __init__(self, connection: sqlite3.Connection, state: IndexState, wanted: Filter) -> None:
        self._connection = connection
        self._state = state
        self._wanted = wanted
        self._rows = state.segment

    @property
    def size(self) -> int:
        """How many entries are indexed."""
        return self._state.size

    @property
    def segments(self) -> int:
        """How many segments are full."""
        return self._state.segments

    def page(self, request: PageRequest) -> Page:
        """Raises: DamagedIndex."""
        numbers: list[int] = []
        for number in self._numbers(request):
            numbers.append(number)
            if len(numbers) > request.limit:
                break
        shown = numbers[: request.limit]
        return Page(self._read(shown), self._state.size, len(numbers) > request.limit)

    def count(self) -> int:
        """How many entries match."""
        if self._wanted == Filter():
            return self._state.size
        full = sum(self.members(segment).bit_count() for segment in range(self.segments))
        where, values = _where(self._wanted)
        sql = f"SELECT count(*) FROM entries WHERE number >= ?{where}"  # noqa: S608 - our names
        (tail,) = self._connection.execute(sql, (self._tail, *values)).fetchone()
        return full + int(tail)

    def counts(self, group: str, *, limit: int) -> Counts:
        """By one of `GROUPS`."""
        found: Counter[str | None] = Counter()
        for segment in range(self.segments):
            self._count_segment(segment, group, found)
        label_of = GROUPS[group]
        for row in self._tail_rows():
            if self._wanted.matches(row):
                found[label_of(row)] += 1
        ordered = sorted(found.items(), key=_by_value if group == "day" else _by_count)
        return Counts(tuple(ordered[:limit]), len(ordered), sum(found.values()), self._state.size)

    @property
    def _tail(self) -> int:
        """The first entry after the last full segment."""
        return self.segments * self._rows

    def _tail_rows(self) -> list[Row]:
        return rows_between(self._connection, self._tail, self._state.size)

    def _count_segment(self, segment: int, group: str, found: Counter[str | None]) -> None:
        members = self.members(segment)
        if not members:
            return
        grouping = list(GROUPS).index(group)
        whole = members == everything(self._rows)
        row = self._connection.execute(
            f"SELECT summary, {'NULL' if whole else 'codes'} FROM groups"  # noqa: S608 - our names
            " WHERE segment = ? AND grouping = ?",
            (segment, grouping),
        ).fetchone()
        if row is None:
            raise DamagedIndex(f"the counts of segment {segment} are missing")
        summary = read_summary(blob(row[0]))
        if whole:
            for label, number in summary:
                found[label] += number
            return
        codes = decode_codes(blob(row[1]))
        if len(codes) != self._rows or (codes and max(codes) >= len(summary)):
            raise DamagedIndex(f"the counts of segment {segment} are not well formed")
        for code, number in Counter(select(codes, members)).items():
            found[summary[code][0]] += number

    def _numbers(self, request: PageRequest) -> Iterator[int]:
        """The matching entries' indexes, in the order of the request."""
        low = 0 if request.after is None else max(request.after + 1, 0)
        high = self._state.size if request.before is None else request.before
        high = min(high, self._state.size)
        if low >= high:
            return
        segments = range(low // self._rows, -(-min(high, self._tail) // self._rows))
        if request.newest_first:
            yield from self._tail_numbers(low, high, request)
            for segment in reversed(segments):
                first = segment * self._rows
                for place in places_down(self._within(segment, low, high)):
                    yield first + place
        else:
            for segment in segments:
                first = segment * self._rows
                for place in places_of(self._within(segment, low, high)):
                    yield first + place
            yield from self._tail_numbers(low, high, request)

    def _tail_numbers(self, low: int, high: int, request: PageRequest) -> Iterator[int]:
        where, values = _where(self._wanted)
        order = "DESC" if request.newest_first else "ASC"
        found = self._connection.execute(
            f"SELECT number FROM entries WHERE number >= ? AND number < ?{where}"  # noqa: S608
            f" ORDER BY number {order} LIMIT ?",
            (max(low, self._tail), high, *values, request.limit + 1),
        )
        for (number,) in found.fetchall():
            yield number

    def _within(self, segment: int, low: int, high: int) -> int:
        """The members of a segment from entry `low` up to, not including, `high`."""
        first = segment * self._rows
        members = self.members(segment)
        if high < first + self._rows:
            members &= everything(high - first)
        if low > first:
            members = members >> (low - first) << (low - first)
        return members

    def members(self, segment: int) -> int:
        """The rows of a full segment that match."""
        members = everything(self._rows)
        for condition in self._wanted.conditions:
            members &= self._posted(segment, condition)
            if not members:
                return 0
        for range_ in self._wanted.ranges:
            members &= self._between(segment, range_)
        return members

    def _posted(self, segment: int, condition: Condition) -> int:
        members = 0
        for column in condition.columns:
            facet = FACETS.index(column)
            for value in condition.values:
                row = self._connection.execute(
                    "SELECT members FROM postings WHERE segment = ? AND facet = ? AND value = ?",
                    (segment, facet, value),
                ).fetchone()
                if row is not None:
                    members |= decode_places(blob(row[0]), rows=self._rows)
        return members

    def sets(self, segment: int, facet: str) -> dict[str, int]:
        """The values of a facet in a full segment, and the rows that have each. For a facet with
        few values."""
        found = self._connection.execute(
            "SELECT value, members FROM postings WHERE segment = ? AND facet = ?",
            (segment, FACETS.index(facet)),
        )
        return {value: decode_places(blob(data), rows=self._rows) for value, data in found}

    def slices(self, segment: int, column: str) -> Slices:
        """One of `NUMBERS` in a full segment."""
        low, high, digits = self._sliced(segment, column)
        return Slices.decode(blob(digits), rows=self._rows, low=low, high=high)

    def tail_counts(self, width: int) -> list[tuple[int | None, str | None, str, int]]:
        """Of the rows after the last full segment: time divided by `width`, tier, event, and how
        many match."""
        where, values = _where(self._wanted)
        found = self._connection.execute(
            f'SELECT "at" / ?, tier, event, count(*) FROM entries WHERE number >= ?{where}'  # noqa: S608
            " GROUP BY 1, 2, 3",
            (width, self._tail, *values),
        ).fetchall()
        if any(not isinstance(row[0], int | None) for row in found):
            raise DamagedIndex("a row says a time that is no number")
        return found

    def _sliced(self, segment: int, column: str) -> tuple[int, int, object]:
        row = self._connection.execute(
            "SELECT low, high, digits FROM slices WHERE segment = ? AND number = ?",
            (segment, NUMBERS.index(column)),
        ).fetchone()
        if row is None:
            raise DamagedIndex(f"the numbers of segment {segment} are missing")
        low, high, digits = row
        if not isinstance(low, int) or not isinstance(high, int):
            raise DamagedIndex(f"the numbers of segment {segment} are not well formed")
        return low, high, digits

    def _between(self, segment: int, range_: Range) -> int:
        low, high, digits = self._sliced(segment, range_.column)
        if _misses(range_, low, high):
            return 0
        slices = Slices.decode(blob(digits), rows=self._rows, low=low, high=high)
        return slices.between(range_.low, range_.high)

    def _read(self, numbers: Sequence[int]) -> tuple[Row, ...]:
        if not numbers:
            return ()
        marks = ", ".join("?" for _ in numbers)
        found = self._connection.execute(
            f"SELECT {SELECTED} FROM entries WHERE number IN ({marks})",  # noqa: S608 - our names
            numbers,
        )
        rows = {row[0]: Row.unseal(row) for row in found}
        for number in numbers:
            if number not in rows:
                raise DamagedIndex(f"the row of entry {number} is missing")
            if not self._wanted.matches(rows[number]):
                raise DamagedIndex(f"the row of entry {number} is not what it was found by")
        return tuple(rows[number] for number in numbers)


def _misses(range_: Range, low: int, high: int) -> bool:
    return (range_.low is not None and range_.low > high) or (
        range_.high is not None and range_.high < low
    )


def _where(wanted: Filter) -> tuple[str, list[object]]:
    """The same filter in SQL, with ` AND` before each condition."""
    parts: list[str] = []
    values: list[object] = []
    for condition in wanted.conditions:
        marks = ", ".join("?" for _ in condition.values)
        parts.append(" OR ".join(f'"{column}" IN ({marks})' for column in condition.columns))
        for _ in condition.columns:
            values += sorted(condition.values)
    for range_ in wanted.ranges:
        for sign, end in ((">=", range_.low), ("<=", range_.high)):
            parts.append(
                f'"{range_.column}" IS NOT NULL' if end is None else f'"{range_.column}" {sign} ?'
            )
            values += [] if end is None else [end]
    return "".join(f" AND ({part})" for part in parts), values


def _by_count(item: tuple[str | None, int]) -> tuple[int, bool, str]:
    return (-item[1], item[0] is None, item[0] or "")


def _by_value(item: tuple[str | None, int]) -> tuple[bool, str]:
    return (item[0] is None, item[0] or "")
