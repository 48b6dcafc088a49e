"""How many entries there were when: by bucket of time, tier and event, in one pass.

In a full segment the times are digits (`bits.Slices`), and tiers and events are sets of rows. The
set of what matches is halved by time until each half lies in one bucket, and each bucket is
counted by sets: no row is looked at, and days on which nothing happened cost nothing.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

from secure_cache.audit.filters import Filter
from secure_cache.audit.queries import Query
from secure_cache.model.clock import rfc3339
from secure_cache.model.errors import DamagedIndex, WrongFilter

MAX_HOURS = 7 * 24
"""So many hours are counted one by one; beyond them, days."""


class Bucket(StrEnum):
    """What is counted together; both begin where UTC says."""

    HOUR = "hour"
    DAY = "day"

    @property
    def seconds(self) -> int:
        return 3600 if self is Bucket.HOUR else 86_400


@dataclass(frozen=True, slots=True)
class Cell:
    """Entries of one bucket, tier and event.

    Attributes:
        start: of the bucket, seconds since 1970; None for entries that say no time.
        tier: None for what has none, as most of the log's own events.
        event: one of `row.EVENTS`.
        entries: how many; never 0.
    """

    start: int | None
    tier: str | None
    event: str
    entries: int

    def document(self) -> dict[str, Any]:
        return {
            "start": None if self.start is None else rfc3339(self.start),
            "tier": self.tier,
            "event": self.event,
            "entries": self.entries,
        }


@dataclass(frozen=True, slots=True)
class Timeline:
    """What happened when.

    Attributes:
        bucket: the width.
        cells: in their order of time, what says no time last; only those that have entries.
        total: how many entries match.
        size: how many entries were indexed when it was answered.
    """

    bucket: Bucket
    cells: tuple[Cell, ...]
    total: int
    size: int

    def document(self) -> dict[str, Any]:
        return {
            "size": self.size,
            "total": self.total,
            "bucket": str(self.bucket),
            "cells": [cell.document() for cell in self.cells],
        }


_Counted: TypeAlias = "Counter[tuple[int | None, str | None, str]]"
_Sets: TypeAlias = Mapping[str, int]


def choose_bucket(wanted: Filter, asked: Bucket | None) -> Bucket:
    """The bucket that was asked for, else hours for a week at most, else days.

    Raises:
        WrongFilter: hours, over a longer time or one without both ends.
    """
    short = _hours(wanted) <= MAX_HOURS
    if asked is Bucket.HOUR and not short:
        raise WrongFilter(
            f"bucket: hour needs since and until, at most {MAX_HOURS // 24} days apart"
        )
    return asked or (Bucket.HOUR if short else Bucket.DAY)


def _hours(wanted: Filter) -> float:
    for range_ in wanted.ranges:
        if range_.column == "at" and range_.low is not None and range_.high is not None:
            return (range_.high - range_.low) / 3600
    return float("inf")


def timeline(query: Query, bucket: Bucket) -> Timeline:
    """Count what the query's filter finds. Raises: DamagedIndex."""
    found: _Counted = Counter()
    for segment in range(query.segments):
        members = query.members(segment)
        if members:
            _count_segment(query, segment, members, bucket.seconds, found)
    for number, tier, event, entries in query.tail_counts(bucket.seconds):
        found[number, tier, event] += entries
    ordered = sorted(found.items(), key=lambda item: _order(*item[0]))
    cells = tuple(
        Cell(None if number is None else number * bucket.seconds, tier, event, entries)
        for (number, tier, event), entries in ordered
    )
    return Timeline(bucket, cells, sum(found.values()), query.size)


def _order(number: int | None, tier: str | None, event: str) -> tuple[bool, int, str, str]:
    return (number is None, number or 0, event, tier or "")


def _count_segment(query: Query, segment: int, members: int, width: int, found: _Counted) -> None:
    times = query.slices(segment, "at")
    events, tiers = (query.sets(segment, facet) for facet in ("event", "tier"))
    begin = sum(found.values())
    timed = members & times.present
    _count_bucket(None, members ^ timed, events, tiers, found)
    parts = [(times.low // width, times.high // width, timed)]
    while parts:
        first, last, part = parts.pop()
        if not part:
            continue
        if first == last:
            _count_bucket(first, part, events, tiers, found)
            continue
        middle = (first + last) // 2
        early = part & times.between(None, (middle + 1) * width - 1)
        parts += [(first, middle, early), (middle + 1, last, part ^ early)]
    if sum(found.values()) - begin != members.bit_count():
        raise DamagedIndex(f"the events of segment {segment} are not those of its rows")


def _count_bucket(
    number: int | None, part: int, events: _Sets, tiers: _Sets, found: _Counted
) -> None:
    for event, of_event in events.items():
        both = part & of_event
        for tier, of_tier in tiers.items():
            if not both:
                break
            if entries := (both & of_tier).bit_count():
                found[number, tier, event] += entries
                both &= ~of_tier
        if both:
            found[number, None, event] += both.bit_count()
