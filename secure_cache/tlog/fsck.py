"""Checks a log from the ground up: every tile, bundle, commit copy and root from the entries.

Reads everything, writes nothing, and needs no key but the public one. What is pending and not
sequenced yet, or committed and not published yet, is not an error: the server finishes it.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from secure_cache.model.errors import CorruptObject, LogInconsistent, Malformed, NotFound
from secure_cache.storage import layout
from secure_cache.storage.ports import ObjectStore
from secure_cache.tlog.backlog import sort_batches
from secure_cache.tlog.checkpoint import Checkpoint
from secure_cache.tlog.head import MAX_HEAD_BYTES, Batch, Head
from secure_cache.tlog.merkle import Peaks, leaf_hash, tree_hash
from secure_cache.tlog.note import Verifier
from secure_cache.tlog.pending import MAX_BATCH_BYTES, BatchName, decode_batch
from secure_cache.tlog.publication import Publications
from secure_cache.tlog.reader import store_fetch
from secure_cache.tlog.suspects import changed_bundles
from secure_cache.tlog.tiles import (
    ENTRIES,
    FANOUT,
    MAX_BUNDLE_BYTES,
    TileId,
    decode_bundle,
    encode_bundle,
    encode_hashes,
    is_partial_path,
    tile_name,
)

MAX_FINDINGS = 1000

_RESTORE = "restore it from a backup or a mirror of the log; never write it anew"
_FIND_OUT = "find out who put it there"
_STOP = "stop the server, keep everything as evidence, and compare with a mirror or a witness"


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference. `path` is the object's name, `remedy` what to do about it."""

    path: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}; {self.remedy}"


@dataclass(frozen=True, slots=True)
class Report:
    """What fsck found.

    Attributes:
        checkpoint: the newest signed checkpoint; None when there is none to trust.
        entries: how many entries were read and led to it.
        pending: durable entries that have no index yet.
        unpublished: entries that are committed but not signed yet.
        findings: every difference, at most `MAX_FINDINGS`.
    """

    checkpoint: Checkpoint | None
    entries: int
    pending: int
    unpublished: int
    findings: tuple[Finding, ...]

    def require_clean(self) -> None:
        """Raises: LogInconsistent: there are findings."""
        if self.findings:
            raise LogInconsistent(
                "; ".join(str(finding) for finding in self.findings[:3])
                + (f"; and {len(self.findings) - 3} more" if len(self.findings) > 3 else "")
            )


async def fsck(
    *,
    tiles: ObjectStore,
    head: ObjectStore,
    pending: ObjectStore,
    verifiers: Sequence[Verifier],
    origin: str,
    fanout: int = FANOUT,
) -> Report:
    """Check everything, and report every difference.

    On a log that a server is writing to, a batch may look as if its predecessor were missing;
    run it again, or stop the server.

    Raises:
        StorageUnavailable, StorageForbidden: the store could not be read, so nothing is known.
    """
    return await _Fsck(_Stores(tiles, head, pending), verifiers, origin, fanout).run()


@dataclass(frozen=True, slots=True)
class _Stores:
    tiles: ObjectStore
    head: ObjectStore
    pending: ObjectStore

    def of_tile(self, path: str) -> ObjectStore:
        return self.pending if is_partial_path(path) else self.tiles

    def with_tiles(self) -> tuple[ObjectStore, ...]:
        return (self.tiles,) if self.pending is self.tiles else (self.tiles, self.pending)


class _Fsck:
    def __init__(
        self, stores: _Stores, verifiers: Sequence[Verifier], origin: str, fanout: int
    ) -> None:
        self._stores = stores
        self._publications = Publications(stores.head, verifiers, origin=origin)
        self._origin = origin
        self._fanout = fanout
        self._findings: list[Finding] = []
        self._widths: dict[tuple[int, int], set[int]] = defaultdict(set)
        self._rows: list[list[bytes]] = []
        self._counts: list[int] = []
        self._peaks = Peaks()
        self._roots: dict[int, bytes] = {}
        self._entries = 0
        self._consumed: dict[str, int] = {}
        self._suspects: list[int] = []

    async def run(self) -> Report:
        checkpoint = await self._checkpoint()
        head = await self._read_head()
        self._compare(checkpoint, head)
        size = checkpoint.size if checkpoint is not None else head.size if head is not None else 0
        end = max(size, head.size) if head is not None else size
        commits = await self._commit_sizes()
        await self._list_tiles(end)
        await self._walk(size, frozenset(commits))
        if checkpoint is not None:
            await self._blame_bundles(checkpoint)
        if checkpoint is not None and self._entries == size:
            self._check_root(checkpoint)
        await self._check_commits(commits, size, head)
        pending = await self._check_pending(head)
        return Report(checkpoint, self._entries, pending, end - size, tuple(self._findings))

    def _find(self, path: str, problem: str, remedy: str = _RESTORE) -> None:
        if len(self._findings) < MAX_FINDINGS:
            self._findings.append(Finding(path, problem, remedy))

    async def _checkpoint(self) -> Checkpoint | None:
        try:
            return (await self._publications.read()).checkpoint
        except (LogInconsistent, CorruptObject) as error:
            self._find(layout.CHECKPOINT, str(error), _STOP)
            return None

    async def _read_head(self) -> Head | None:
        data = await self._get(self._stores.head, layout.HEAD, MAX_HEAD_BYTES)
        if data is None:
            return None
        try:
            return Head.decode(data, origin=self._origin)
        except LogInconsistent as error:
            self._find(layout.HEAD, str(error), _STOP)
            return None

    def _compare(self, checkpoint: Checkpoint | None, head: Head | None) -> None:
        if checkpoint is None or head is None:
            return
        if head.size < checkpoint.size:
            problem = f"is behind the signed checkpoint: {head.size} of {checkpoint.size} entries"
            self._find(layout.HEAD, problem, _STOP)
        elif head.size == checkpoint.size and head.root != checkpoint.root:
            self._find(layout.HEAD, "has another root than the signed checkpoint", _STOP)
        elif head.size > checkpoint.size and head.previous() != checkpoint:
            self._find(layout.HEAD, "does not follow the signed checkpoint", _STOP)

    async def _list_tiles(self, end: int) -> None:
        for store in self._stores.with_tiles():
            async for info in store.list(layout.TILE_PREFIX):
                self._list_tile(store, info.name, end)

    def _list_tile(self, store: ObjectStore, path: str, end: int) -> None:
        try:
            tile = TileId.parse(path)
        except Malformed:
            self._find(path, "is not the name of a tile", _FIND_OUT)
            return
        if store is not self._stores.of_tile(path):
            self._find(path, "is in the store of the others: full and partial are apart", _FIND_OUT)
            return
        level = max(tile.level, 0)
        width = tile.width if tile.is_partial else self._fanout
        if (tile.index * self._fanout + width) * self._fanout**level > end:
            self._find(path, f"is beyond the log's {end} entries", _STOP)
            return
        self._widths[tile.level, tile.index].add(width)

    async def _walk(self, size: int, commits: frozenset[int]) -> None:
        """Go through the entries, deriving every tile from them."""
        for number in range(-(-size // self._fanout)):
            width = min(self._fanout, size - number * self._fanout)
            hashes = await self._bundle(number, width)
            if hashes is None:
                return
            for hash_ in hashes:
                self._peaks.push(hash_)
                self._entries += 1
                if self._entries in commits:
                    self._roots[self._entries] = self._peaks.root()
            await self._row(0, hashes)
        for level, row in enumerate(self._rows):
            if row:
                await self._check_tile(level, self._counts[level], tuple(row))

    async def _row(self, level: int, hashes: Sequence[bytes]) -> None:
        """Add to a level; a tile that is full gives one hash to the level above."""
        if level == len(self._rows):
            self._rows.append([])
            self._counts.append(0)
        self._rows[level] += hashes
        if len(self._rows[level]) == self._fanout:
            row, self._rows[level] = tuple(self._rows[level]), []
            await self._check_tile(level, self._counts[level], row)
            self._counts[level] += 1
            await self._row(level + 1, [tree_hash(row)])

    async def _bundle(self, number: int, width: int) -> tuple[bytes, ...] | None:
        """The leaf hashes of a bundle; of its tile when the bundle is of no use."""
        path = self._name(ENTRIES, number, width)
        data, _ = await self._any_form(ENTRIES, number, width)
        entries: tuple[bytes, ...] = ()
        if data is not None:
            try:
                entries = decode_bundle(data)[:width]
            except Malformed as error:
                self._find(path, str(error))
        if len(entries) == width:
            await self._check_forms(ENTRIES, number, width, entries)
            return tuple(leaf_hash(entry) for entry in entries)
        if data is not None:
            self._find(path, f"has {len(entries)} entries, not {width}")
        tile, _ = await self._any_form(0, number, width)
        if tile is None or len(tile) < 32 * width:
            return None
        return tuple(tile[i : i + 32] for i in range(0, 32 * width, 32))

    async def _check_tile(self, level: int, index: int, hashes: tuple[bytes, ...]) -> None:
        data, width = await self._any_form(level, index, len(hashes))
        expected = encode_hashes(hashes)
        if data is not None and not (data.startswith(expected) and len(data) == 32 * width):
            self._find(
                self._name(level, index, len(hashes)), "is not what the entries below it give"
            )
            if level == 0:
                self._suspects.append(index)
        await self._check_forms(level, index, len(hashes), hashes)

    async def _blame_bundles(self, checkpoint: Checkpoint) -> None:
        """First of all: the rest follows from it."""
        fetch = store_fetch(self._stores.tiles, self._stores.pending)
        suspects = [n for n in self._suspects if n * self._fanout < checkpoint.size]
        names = await changed_bundles(
            fetch, checkpoint, suspects[:MAX_FINDINGS], fanout=self._fanout
        )
        what = "does not hold the entries that were signed; what depends on it follows"
        self._findings[:0] = [Finding(name, what, _RESTORE) for name in names]

    async def _check_forms(
        self, level: int, index: int, width: int, items: tuple[bytes, ...]
    ) -> None:
        """Every other stored form of the tile or bundle is its beginning."""
        encode = encode_bundle if level == ENTRIES else encode_hashes
        for other in sorted(self._widths.get((level, index), ())):
            if other > width or (other == width and level != ENTRIES):
                continue
            name = self._name(level, index, other)
            data = await self._get_tile(name, is_required=False)
            if data is not None and data != encode(items[:other]):
                self._find(name, "is not the beginning of the tile", "delete it, then run again")

    async def _any_form(self, level: int, index: int, width: int) -> tuple[bytes | None, int]:
        """A tile of at least `width`, and the width that its name promises: its partial form may
        be gone once it is full."""
        if width < self._fanout:
            name = self._name(level, index, width)
            data = await self._get_tile(name, is_required=False)
            if data is not None:
                return data, width
            if self._fanout not in self._widths.get((level, index), ()):
                self._find(name, "is missing")
                return None, width
        name = self._name(level, index, self._fanout)
        return await self._get_tile(name), self._fanout

    def _check_root(self, checkpoint: Checkpoint) -> None:
        if self._peaks.root() != checkpoint.root:
            self._find(
                layout.CHECKPOINT, f"its root is not that of the {checkpoint.size} entries", _STOP
            )

    async def _commit_sizes(self) -> list[int]:
        sizes = []
        async for info in self._stores.tiles.list(layout.COMMIT_PREFIX):
            digits = info.name.removeprefix(layout.COMMIT_PREFIX)
            is_canonical = digits.isascii() and digits.isdigit()
            if is_canonical and layout.commit(int(digits)) == info.name:
                sizes.append(int(digits))
            else:
                self._find(info.name, "is not a commit's copy", _FIND_OUT)
        return sizes

    async def _check_commits(self, sizes: Sequence[int], size: int, head: Head | None) -> None:
        """The copies form one chain from 0, and take in each boot's batches one by one."""
        last, known = Checkpoint(self._origin, 0, tree_hash(())), frozenset(sizes)
        for number in sizes:
            path = layout.commit(number)
            copy = await self._commit(path)
            if copy is None:
                continue
            if copy.prev_size > last.size and copy.prev_size not in known:
                self._find(layout.commit(copy.prev_size), "is missing")
            elif copy.size != number or copy.previous() != last:
                self._find(path, f"does not follow the commit of {last.size} entries")
            if number in self._roots and copy.root != self._roots[number]:
                self._find(path, "its root is not that of the entries", _STOP)
            if head is not None and number == head.size and copy != head:
                self._find(path, "is not the copy of the head", _STOP)
            if head is not None and number > head.size:
                self._find(path, "is a commit that the head does not know", _STOP)
            self._consume(path, copy.batches)
            last = copy.checkpoint()
        if size and size not in sizes:
            self._find(layout.commit(size), "is missing")

    async def _commit(self, path: str) -> Head | None:
        data = await self._get(self._stores.tiles, path, MAX_HEAD_BYTES)
        try:
            return None if data is None else Head.decode(data, origin=self._origin)
        except LogInconsistent as error:
            self._find(path, str(error))
            return None

    def _consume(self, path: str, batches: Iterable[Batch]) -> None:
        for batch in batches:
            name = BatchName.parse(batch.name)
            if name.sequence != self._consumed.get(name.boot, 0) + 1:
                self._find(path, f"takes in {batch.name} out of order", _STOP)
            self._consumed[name.boot] = name.sequence

    async def _check_pending(self, head: Head | None) -> int:
        """How many entries wait; each batch is readable and has its predecessors."""
        names = []
        async for info in self._stores.pending.list(layout.PENDING_PREFIX):
            try:
                names.append(BatchName.parse(info.name))
            except Malformed:
                self._find(info.name, "is not a pending batch", _FIND_OUT)
        consumed = {} if head is None else {n.boot: head.consumed_of(n.boot) for n in names}
        waiting = sort_batches(names, consumed)
        for name in waiting.stranded:
            # Written by a machine that slept until its boot was forgotten: the writer told
            # its caller that nobody knows, and went on under another name.
            if name.sequence > self._consumed.get(name.boot, 0) + 1:
                self._find(str(name), "an acknowledged batch before it is missing")
        counts = [await self._pending(str(n)) for n in (*waiting.ready, *waiting.stranded)]
        return sum(counts)

    async def _pending(self, path: str) -> int:
        data = await self._get(self._stores.pending, path, MAX_BATCH_BYTES, is_required=False)
        try:
            return 0 if data is None else len(decode_batch(data))
        except (LogInconsistent, Malformed) as error:
            self._find(path, str(error))
            return 0

    async def _get_tile(self, path: str, *, is_required: bool = True) -> bytes | None:
        store = self._stores.of_tile(path)
        return await self._get(store, path, MAX_BUNDLE_BYTES, is_required=is_required)

    async def _get(
        self, store: ObjectStore, name: str, max_bytes: int, *, is_required: bool = True
    ) -> bytes | None:
        try:
            return (await store.get(name, max_bytes=max_bytes)).data
        except NotFound:
            if is_required:
                self._find(name, "is missing")
        except CorruptObject as error:
            self._find(name, str(error))
        return None

    def _name(self, level: int, index: int, width: int) -> str:
        return tile_name(level, index, width, fanout=self._fanout)
