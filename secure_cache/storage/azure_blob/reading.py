"""A blob opened for reading: ranges of one version, fetched ahead of the reader.

The tasks that fetch are owned by hand and not by a task group. Readers are opened inside async
generators and left at any time, in any order with the cancel scopes around them, and a task
group must not be held open across a yield. Whoever reads here ends every task that it began.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from types import TracebackType
from typing import Any, Final, Self

from anyio import CancelScope
from azure.core import MatchConditions
from azure.storage.blob import BlobProperties

from secure_cache.model.errors import NotFound, Overloaded, VersionMismatch
from secure_cache.storage.azure_blob.budget import ByteBudget
from secure_cache.storage.azure_blob.container import Container, info_of, total_size
from secure_cache.storage.azure_blob.errors import AzureFault, Kind
from secure_cache.storage.azure_blob.pace import KIB, SMALLEST, Pace
from secure_cache.storage.ports import ObjectInfo

Monotonic = Callable[[], float]

FIRST_BYTES: Final = 256 * KIB
_FIRST_BYTES_IN_NEED: Final = 64 * KIB
_MEMORY_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.02


class AzureReading:
    """A Reading, and the context manager that opens and closes it.

    The first request brings `info` and the first bytes, which for most objects are all. What
    comes later is asked for under the condition that the object still has this version. No range
    names a `stable_identity`: an ETag is the storage's word and not a proof.
    """

    def __init__(self, container: Container, name: str, *, budget: ByteBudget) -> None:
        self._container = container
        self._name = name
        self._budget = budget
        self._head = b""
        self._held = 0
        self._begun: list[_Ranges] = []
        self._info: ObjectInfo

    @property
    def info(self) -> ObjectInfo:
        return self._info

    @property
    def stable_identity(self) -> str | None:
        return None

    async def __aenter__(self) -> Self:
        size = FIRST_BYTES if self._budget.try_take(FIRST_BYTES) else _FIRST_BYTES_IN_NEED
        if size == _FIRST_BYTES_IN_NEED:
            self._budget.take_needed(size)
        self._held = size
        try:
            self._info, self._head = await self._first(size)
        except BaseException:
            self._give_back(self._held)
            raise
        self._give_back(self._held - len(self._head))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._drop_head()
        # Of iterators that their reader has left without closing them.
        for ranges in self._begun:
            await ranges.close()

    async def chunks(self, *, offset: int = 0, size: int = 262_144) -> AsyncGenerator[bytes]:
        if offset < 0 or size < 1:
            raise ValueError("offset is at least 0, size at least 1")
        start = max(offset, len(self._head))
        ranges = _Ranges(self._container, self._info, self._budget, start=start)
        self._begun.append(ranges)
        try:
            at = offset
            rest = memoryview(self._head)[offset:]
            while at < self._info.size:
                wanted = min(size, self._info.size - at)
                pieces: list[memoryview] = []
                while wanted:
                    rest = rest or memoryview(await ranges.take())
                    pieces.append(rest[:wanted])
                    rest = rest[wanted:]
                    wanted -= len(pieces[-1])
                if not rest:
                    ranges.release()
                chunk = _joined(pieces)
                at += len(chunk)
                if at >= len(self._head):
                    self._drop_head()
                yield chunk
        finally:
            await ranges.close()

    def _drop_head(self) -> None:
        """Whoever waits for a slow client holds none of the memory that others need. Who reads
        from the start again asks for it again."""
        self._head = b""
        self._give_back(self._held)

    def _give_back(self, count: int) -> None:
        self._budget.give_back(count)
        self._held -= count

    async def _first(self, size: int) -> tuple[ObjectInfo, bytes]:
        calls = self._container.calls
        blob = self._container.blob(self._name)

        async def request() -> tuple[BlobProperties, bytes]:
            answer = await blob.download_blob(offset=0, length=size, decompress=False)
            return answer.properties, await answer.readall()

        try:
            properties, data = await calls.run("open", calls.patience.small_read, request)
        except AzureFault as fault:
            if fault.kind is not Kind.RANGE:
                raise fault.public("open", self._name) from fault
            # An empty object has no range that could be asked for.
            found = await self._container.ask(
                "open", self._name, calls.patience.small_read, blob.get_blob_properties
            )
            return info_of(self._name, found), b""
        return info_of(self._name, properties, total_size(properties.content_range)), data


def _joined(pieces: list[memoryview]) -> bytes:
    """Empties `pieces`, so that the ranges behind them are not kept while a slow client takes
    the chunk. What is one whole range is not copied."""
    whole = pieces[0].obj
    if len(pieces) == 1 and isinstance(whole, bytes) and len(whole) == len(pieces[0]):
        chunk = whole
    else:
        chunk = b"".join(pieces)
    pieces.clear()
    return chunk


class _Range:
    """One range on its way, and the bytes of the budget that it holds."""

    def __init__(self, size: int, fetch: Coroutine[Any, Any, bytes], now: Monotonic) -> None:
        self.size = size
        self.done_at = 0.0
        self.task = asyncio.create_task(fetch)
        self.task.add_done_callback(lambda _: self._done(now))

    def _done(self, now: Monotonic) -> None:
        self.done_at = now()


class _Ranges:
    """The rest of an object, range after range, some of them fetched ahead."""

    def __init__(
        self, container: Container, info: ObjectInfo, budget: ByteBudget, *, start: int
    ) -> None:
        self._container = container
        self._info = info
        self._budget = budget
        self._next = start
        self._pace = Pace()
        self._ahead: deque[_Range] = deque()
        self._given: _Range | None = None

    async def take(self) -> bytes:
        """The next range; the one before is given up.

        Raises: VersionMismatch, StorageUnavailable, StorageForbidden, Overloaded.
        """
        self.release()
        if not self._ahead:
            await self._begin_one()
        current = self._given = self._ahead.popleft()
        while len(self._ahead) < self._pace.step.ahead and self._begin_ahead():
            pass
        if current.task.done():
            now = self._container.calls.timing.monotonic()
            self._pace.bytes_waited(now - current.done_at)
        else:
            self._pace.reader_waited()
            await asyncio.wait([current.task])
        return current.task.result()

    def release(self) -> None:
        """The range given last has been used up."""
        if self._given is not None and self._given.task.done():
            self._budget.give_back(self._given.size)
            self._given = None

    async def close(self) -> None:
        """End every task, whatever happens around us."""
        begun = [*self._ahead] if self._given is None else [self._given, *self._ahead]
        self._ahead.clear()
        self._given = None
        for one in begun:
            one.task.cancel()
            self._budget.give_back(one.size)
        if begun:
            with CancelScope(shield=True):
                await asyncio.gather(*(one.task for one in begun), return_exceptions=True)

    async def _begin_one(self) -> None:
        """What the reader waits for: as much as there is memory for, and at least a little."""
        size = self._size(self._pace.step.size)
        if not self._budget.try_take(size):
            size = self._size(SMALLEST.size)
            await self._take_needed(size)
        self._begin(size)

    async def _take_needed(self, size: int) -> None:
        """A transfer that has begun must not break because others have all the memory: to Nx that
        is a failed build. What is held beyond the limit is on its way from the storage, and is
        given back when it has come.

        Raises: Overloaded, in the end.
        """
        timing = self._container.calls.timing
        end = timing.monotonic() + _MEMORY_SECONDS
        while True:
            try:
                self._budget.take_needed(size)
            except Overloaded:
                if timing.monotonic() >= end:
                    raise
                await timing.sleep(_LOOK_SECONDS)
            else:
                return

    def _begin_ahead(self) -> bool:
        size = self._size(self._pace.step.size)
        if size == 0 or not self._budget.try_take(size):
            return False
        self._begin(size)
        return True

    def _size(self, step: int) -> int:
        """Up to the next multiple of `step`, so that whole chunks need no copy."""
        return min(self._info.size, (self._next // step + 1) * step) - self._next

    def _begin(self, size: int) -> None:
        fetch = self._fetch(self._next, size)
        self._ahead.append(_Range(size, fetch, self._container.calls.timing.monotonic))
        self._next += size

    async def _fetch(self, offset: int, size: int) -> bytes:
        name = self._info.name
        blob = self._container.blob(name)

        async def request() -> bytes:
            answer = await blob.download_blob(
                offset=offset,
                length=size,
                decompress=False,
                etag=self._info.version,
                match_condition=MatchConditions.IfNotModified,
            )
            data = await answer.readall()
            if len(data) != size:
                raise AzureFault(Kind.UNAVAILABLE, f"{len(data)} of {size} bytes came")
            return data

        try:
            return await self._container.ask(
                "range", name, self._container.calls.patience.piece, request
            )
        except NotFound as error:
            raise VersionMismatch(f"{name} was deleted while it was read") from error
