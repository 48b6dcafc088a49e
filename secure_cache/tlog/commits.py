"""Where is my entry: from a pending batch to the index of its first entry, by the commit copies."""

from collections import OrderedDict

from secure_cache.model.errors import LogInconsistent, NotFound
from secure_cache.storage import layout
from secure_cache.storage.ports import ObjectReader
from secure_cache.tlog.head import MAX_HEAD_BYTES, Head
from secure_cache.tlog.pending import BatchName

_LATE_SECONDS = 23 * 3600
"""A boot that is unknown to a commit made so long after the boot was named had been forgotten
by then; before, it had not come in yet."""

_STEPS_BACK = 32
"""What is asked for is mostly recent: so many commits are tried before all are listed."""


class CommitIndex:
    """Finds the commit that took in a batch: remembered, or by bisecting `commit/`.

    Args:
        tiles: the store with the commit copies.
        origin: the log's.
        max_batches: how many answers are remembered.
    """

    def __init__(self, tiles: ObjectReader, *, origin: str, max_batches: int = 65_536) -> None:
        self._tiles = tiles
        self._origin = origin
        self._max_batches = max_batches
        self._known: OrderedDict[str, int] = OrderedDict()
        self._sizes: list[int] = []
        self._newest: Head | None = None

    def add(self, head: Head) -> None:
        """Remember a commit."""
        for name, index in head.first_indexes().items():
            self._known[name] = index
            if len(self._known) > self._max_batches:
                self._known.popitem(last=False)

    async def first_index(self, batch: str, *, published: int) -> int | None:
        """The index of the batch's first entry; None if it is not in the published log.

        Args:
            batch: the name of a pending batch.
            published: the size of the newest checkpoint.

        Raises:
            Malformed: not the name of a batch.
            LogInconsistent: a commit's copy is damaged or missing.
            StorageUnavailable: the store did not answer.
        """
        known = self._known.get(batch)
        if known is None and published:
            known = await self._find(batch, published)
        return known if known is not None and known < published else None

    async def _find(self, batch: str, published: int) -> int | None:
        name = BatchName.parse(batch)
        if self._newest is None or self._newest.size != published:
            self._newest = await self._read(published)
        if not _has_passed(self._newest, name):
            return None
        size = published
        for _ in range(_STEPS_BACK):
            head = self._newest if size == published else await self._read(size)
            self.add(head)
            size = head.prev_size
            if batch in self._known or not size:
                return self._known.get(batch)
        return await self._bisect(batch, name)

    async def _bisect(self, batch: str, name: BatchName) -> int | None:
        await self._refresh()
        low, high = 0, len(self._sizes)
        while low < high:
            middle = (low + high) // 2
            if _has_passed(await self._read(self._sizes[middle]), name):
                high = middle
            else:
                low = middle + 1
        # The first that has passed it is the one, unless sequencing once stood still for a day.
        for size in self._sizes[low:]:
            self.add(await self._read(size))
            if batch in self._known:
                return self._known[batch]
        return None

    async def _refresh(self) -> None:
        after = layout.commit(self._sizes[-1]) if self._sizes else ""
        commits = self._tiles.list(layout.COMMIT_PREFIX, start_after=after)
        listed = [_size(info.name) async for info in commits]
        # Whoever asked at the same time may have added them while this one was waiting.
        newest = self._sizes[-1] if self._sizes else 0
        self._sizes += [size for size in listed if size > newest]

    async def _read(self, size: int) -> Head:
        try:
            stored = await self._tiles.get(layout.commit(size), max_bytes=MAX_HEAD_BYTES)
        except NotFound as error:
            raise LogInconsistent(f"the copy of commit {size} is missing") from error
        return Head.decode(stored.data, origin=self._origin)


def _has_passed(head: Head, name: BatchName) -> bool:
    mark = head.consumed.get(name.boot)
    if mark is None:
        return head.at >= name.boot_time + _LATE_SECONDS
    return mark.sequence >= name.sequence


def _size(name: str) -> int:
    digits = name.removeprefix(layout.COMMIT_PREFIX)
    if not (digits.isascii() and digits.isdigit()) or layout.commit(int(digits)) != name:
        raise LogInconsistent(f"{name!r} is not the name of a commit's copy")
    return int(digits)
