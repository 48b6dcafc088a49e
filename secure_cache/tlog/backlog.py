"""The pending batches as the sequencer sees them: which are next, which are spent."""

import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import anyio

from secure_cache.model.errors import Broken, Malformed, SecureCacheError
from secure_cache.storage import layout
from secure_cache.storage.ports import ObjectInfo, ObjectStore
from secure_cache.tlog.head import Head
from secure_cache.tlog.pending import MAX_BATCH_BYTES, BatchName, decode_batch

T = TypeVar("T")

AT_ONCE = 16
"""Requests at the same time, if nothing else is said."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """What stands under `pending/`.

    Attributes:
        ready: what the next commit takes in, in order.
        spent: what is in the log already: leftovers, and late re-creations.
        boots: every boot of which there is anything.
        of: how many could be taken in, if a commit had no limits.
        stranded: batches that have no predecessor, neither here nor in the log.
    """

    ready: tuple[BatchName, ...]
    spent: tuple[BatchName, ...]
    boots: frozenset[str]
    stranded: tuple[BatchName, ...] = ()
    of: int = 0


class Backlog:
    """Looks at, reads and clears `pending/`.

    Args:
        store: the log's `pending` store.
        max_batches: how many a commit takes in at most.
        max_bytes: and how many bytes.
        at_once: requests at the same time.
    """

    def __init__(
        self, store: ObjectStore, *, max_batches: int, max_bytes: int, at_once: int = AT_ONCE
    ) -> None:
        self._store = store
        self._max_batches = max_batches
        self._max_bytes = max_bytes
        self._at_once = at_once
        self._fetched: dict[BatchName, tuple[bytes, ...]] = {}

    async def look(self, head: Head) -> Waiting:
        """Sort what is pending by what `head` has consumed. Names of another form are left."""
        sizes: dict[BatchName, int] = {}
        async for info in self._store.list(layout.PENDING_PREFIX):
            name = _parse(info)
            if name is not None:
                sizes[name] = info.size
        consumed = {name.boot: head.consumed_of(name.boot) for name in sizes}
        found = sort_batches(sizes, consumed)
        return replace(found, ready=tuple(self._take(found.ready, sizes)), of=len(found.ready))

    async def read(self, names: Sequence[BatchName]) -> list[tuple[BatchName, tuple[bytes, ...]]]:
        """The leaves of each. What was read is kept until the next call, so that a store that
        refuses one request of many does not have them all repeated.

        Raises:
            NotFound: one is gone; another replica has finished with it.
            LogInconsistent: one is damaged.
            StorageUnavailable: the store did not answer.
        """
        kept = self._fetched
        self._fetched = fetched = {name: kept[name] for name in names if name in kept}

        async def one(name: BatchName) -> tuple[BatchName, tuple[bytes, ...]]:
            if name not in fetched:
                stored = await self._store.get(str(name), max_bytes=MAX_BATCH_BYTES)
                fetched[name] = decode_batch(stored.data)
            return name, fetched[name]

        return await together([partial(one, name) for name in names], at_once=self._at_once)

    async def fetch_ahead(self, head: Head) -> None:
        """Read what comes after `head`, so that the next `read` need not. Never more than one
        commit takes in. A batch never changes, so what is read early is not stale.

        What fails here fails once more, and counts, when it is needed.
        """
        with contextlib.suppress(SecureCacheError):
            await self.read((await self.look(head)).ready)

    def forget(self) -> None:
        """Drop what was read."""
        self._fetched = {}

    def _take(
        self, ready: Iterable[BatchName], sizes: Mapping[BatchName, int]
    ) -> Iterable[BatchName]:
        budget = self._max_bytes
        for count, name in enumerate(ready):
            budget -= sizes[name]
            if count and (count >= self._max_batches or budget < 0):
                return
            yield name


def sort_batches(names: Iterable[BatchName], consumed: Mapping[str, int]) -> Waiting:
    """Of each boot, what follows its last consumed batch without a gap is ready.

    The boots take turns, so that a busy one does not keep the others waiting.
    """
    ready: list[tuple[int, BatchName]] = []
    spent: list[BatchName] = []
    stranded: list[BatchName] = []
    nexts = {boot: last + 1 for boot, last in consumed.items()}
    everything = sorted(names, key=lambda name: (name.boot, name.sequence))
    for name in everything:
        last = consumed.get(name.boot, 0)
        if name.sequence <= last:
            spent.append(name)
        elif name.sequence == nexts.setdefault(name.boot, last + 1):
            nexts[name.boot] += 1
            ready.append((name.sequence - last, name))
        else:
            stranded.append(name)
    ready.sort(key=lambda item: item[0])
    return Waiting(
        tuple(name for _, name in ready),
        tuple(spent),
        frozenset(name.boot for name in everything),
        tuple(stranded),
    )


async def together(
    calls: Sequence[Callable[[], Awaitable[T]]], *, at_once: int = AT_ONCE
) -> list[T]:
    """Run all, some at once, and let each come to its end; then raise the worst error of any.

    A write that is cancelled halfway has an unknown outcome, so none is cancelled because
    another failed.
    """
    if len(calls) == 1:
        return [await calls[0]()]
    results: dict[int, T] = {}
    errors: list[SecureCacheError] = []
    slots = anyio.CapacityLimiter(at_once)

    async def run(index: int) -> None:
        async with slots:
            try:
                results[index] = await calls[index]()
            except SecureCacheError as error:
                errors.append(error)

    async with anyio.create_task_group() as group:
        for index in range(len(calls)):
            group.start_soon(run, index)
    if errors:
        raise next((error for error in errors if isinstance(error, Broken)), errors[0])
    return [results[index] for index in range(len(calls))]


async def beside(
    work: Callable[[], Awaitable[T]], other: Callable[[], Coroutine[object, object, None]]
) -> T:
    """Run both to their ends; the result, or the error as it is, of `work`.

    Args:
        work: what counts.
        other: must not raise.
    """
    failed: Exception | None = None
    async with anyio.create_task_group() as group:
        group.start_soon(other)
        try:
            result = await work()
        except Exception as error:  # noqa: BLE001 - raised below, where no group wraps it
            failed = error
    if failed is not None:
        raise failed
    return result


def _parse(info: ObjectInfo) -> BatchName | None:
    try:
        return BatchName.parse(info.name)
    except Malformed:
        return None
