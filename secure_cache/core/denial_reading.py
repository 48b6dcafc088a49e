"""What all processes have refused, read back for auditors: within bounds, and with doubt.

Whoever can write in the `state` store can write counts. What is not well formed is left out, and
said to be; what is, is shown as what somebody counted.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import anyio

from secure_cache.core.denial_form import MAX_BYTES, decode_counts, hour_of
from secure_cache.core.denials import HOUR_SECONDS, OTHER, Denial
from secure_cache.model.clock import rfc3339
from secure_cache.model.errors import CorruptObject, NotFound, SecureCacheError, WrongFilter
from secure_cache.storage import layout
from secure_cache.storage.ports import ObjectInfo, ObjectReader

MAX_SPAN_SECONDS = 31 * 86_400
MAX_OBJECTS = 6000
"""So many are read for one answer, the newest."""
MAX_CELLS = 50_000
"""So many hours and kinds are told apart in one answer."""

_AT_ONCE = 8
_REMEMBERED_KINDS = 200_000
"""Of all objects that were read, so many counts are held: what is over changes no more."""


@dataclass(frozen=True, slots=True)
class DenialCell:
    """How often something was refused in the hour from `start` (seconds since 1970) on."""

    start: int
    denial: Denial
    count: int


@dataclass(frozen=True, slots=True)
class DenialsSeen:
    """What all processes counted.

    Attributes:
        since: seconds since 1970; the whole hours that have a part between the two.
        until: inside.
        cells: by hour.
        unreadable: so many objects are not well formed; what they counted is missing.
        cut: there is more than is read for one answer; what is missing is older.
    """

    since: int
    until: int
    cells: tuple[DenialCell, ...]
    unreadable: int
    cut: bool

    @property
    def total(self) -> int:
        return sum(cell.count for cell in self.cells)

    def by(self, *names: str) -> tuple[tuple[tuple[str, ...], int], ...]:
        """Counts by some of `GROUPS`, in the order of the values."""
        found: Counter[tuple[str, ...]] = Counter()
        for cell in self.cells:
            found[tuple(_value(cell, name) for name in names)] += cell.count
        return tuple(sorted(found.items()))


GROUPS = ("day", "hour", *Denial._fields)


class ReadsDenials(Protocol):
    """What was refused, for auditors."""

    async def between(self, since: int, until: int) -> DenialsSeen:
        """Both in seconds since 1970, both inside.

        Raises: WrongFilter (too long a time), StorageUnavailable, StorageForbidden.
        """
        ...


class HoldsCounts(Protocol):
    """Counts that are newer than what is kept."""

    def live(self) -> Mapping[str, tuple[int, Mapping[Denial, int]]]: ...


class DenialReader:
    """Reads what all processes have kept. `own` holds counts that are newer than what is kept."""

    def __init__(self, state: ObjectReader, *, own: HoldsCounts | None = None) -> None:
        self._state = state
        self._own = own
        self._read: OrderedDict[tuple[str, str], Mapping[Denial, int] | None] = OrderedDict()
        self._room = _REMEMBERED_KINDS

    async def between(self, since: int, until: int) -> DenialsSeen:
        """As `ReadsDenials`."""
        if until < since:
            raise WrongFilter("until: before since")
        if until - since > MAX_SPAN_SECONDS:
            raise WrongFilter(f"since: at most {MAX_SPAN_SECONDS // 86_400} days before until")
        hours = range(since // HOUR_SECONDS, until // HOUR_SECONDS + 1)
        own = {} if self._own is None else self._own.live()
        kept, cut = await self._kept(hours, own.keys())
        cells = _Cells()
        for number, counts in own.values():
            if number in hours:
                cells.add(number, counts)
        unreadable = 0
        for number, found in reversed(await self._fetch(kept)):
            if found is None:
                unreadable += 1
            else:
                cells.add(number, found)
        return DenialsSeen(since, until, cells.ordered(), unreadable, cut or cells.full)

    async def _kept(
        self, hours: range, without: Iterable[str]
    ) -> tuple[list[tuple[int, ObjectInfo]], bool]:
        """The objects of these hours, and whether there are more than are read."""
        found: deque[tuple[int, ObjectInfo]] = deque(maxlen=MAX_OBJECTS)
        count, others = 0, set(without)
        # A name that stands before all of the first hour.
        start = layout.denials_of_hour(hours.start).removesuffix("/")
        async for info in self._state.list(layout.DENIALS_PREFIX, start_after=start):
            number = hour_of(info.name)
            if number is None or info.name in others:
                continue
            if number not in hours:
                break
            found.append((number, info))
            count += 1
        return list(found), count > len(found)

    async def _fetch(
        self, kept: list[tuple[int, ObjectInfo]]
    ) -> list[tuple[int, Mapping[Denial, int] | None]]:
        limiter = anyio.CapacityLimiter(_AT_ONCE)
        found: dict[str, Mapping[Denial, int] | None] = {}

        failed: list[SecureCacheError] = []

        async def one(number: int, info: ObjectInfo) -> None:
            async with limiter:
                try:
                    found[info.name] = await self._one(number, info)
                except SecureCacheError as error:
                    failed.append(error)
                    group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            for number, info in kept:
                group.start_soon(one, number, info)
        if failed:
            raise failed[0]
        return [(number, found[info.name]) for number, info in kept]

    async def _one(self, number: int, info: ObjectInfo) -> Mapping[Denial, int] | None:
        """None for an object that is not well formed. One that was deleted meanwhile is empty."""
        known = (info.name, info.version)
        if known in self._read:
            self._read.move_to_end(known)
            return self._read[known]
        counts: Mapping[Denial, int] | None
        try:
            stored = await self._state.get(info.name, max_bytes=MAX_BYTES)
            counts = decode_counts(number, stored.data)
            known = (info.name, stored.info.version)
        except NotFound:
            return {}
        except CorruptObject:
            counts = None
        self._remember(known, counts)
        return counts

    def _remember(self, known: tuple[str, str], counts: Mapping[Denial, int] | None) -> None:
        if known in self._read:
            return
        self._read[known] = counts
        self._room -= 1 + len(counts or ())
        while self._room < 0:
            _, dropped = self._read.popitem(last=False)
            self._room += 1 + len(dropped or ())


class _Cells:
    """Adds up, within bounds: beyond them only method and code are told apart."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, Denial], int] = {}
        self.full = False

    def add(self, number: int, counts: Mapping[Denial, int]) -> None:
        for denial, count in counts.items():
            place = (number, denial)
            if place not in self._found and len(self._found) >= MAX_CELLS:
                self.full = True
                place = (number, Denial(denial.method, denial.code, OTHER))
            self._found[place] = self._found.get(place, 0) + count

    def ordered(self) -> tuple[DenialCell, ...]:
        return tuple(
            DenialCell(number * HOUR_SECONDS, denial, count)
            for (number, denial), count in sorted(self._found.items())
        )


def _value(cell: DenialCell, name: str) -> str:
    if name == "hour":
        return rfc3339(cell.start)
    if name == "day":
        return rfc3339(cell.start)[:10]
    return str(getattr(cell.denial, name))
