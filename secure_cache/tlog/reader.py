"""Verified reads: every tile and entry that leaves here leads to a signed root.

Works over anything that fetches a path: the log's own store, a folder, a server. Nothing that is
fetched is trusted: the partial tiles of the right edge together must fold to the root, and
each full tile must hash to its place in the tile above it.
"""

from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import TypeAlias

from secure_cache.model.errors import CorruptObject, LogInconsistent, Malformed, NotFound
from secure_cache.storage.ports import ObjectReader
from secure_cache.tlog.checkpoint import Checkpoint
from secure_cache.tlog.edge import Edge, edge_widths
from secure_cache.tlog.merkle import leaf_hash, tree_hash
from secure_cache.tlog.proof import (
    Node,
    Range,
    build,
    consistency_ranges,
    inclusion_ranges,
    nodes_of,
)
from secure_cache.tlog.tiles import (
    ENTRIES,
    FANOUT,
    MAX_BUNDLE_BYTES,
    decode_bundle,
    decode_hashes,
    hashes_at,
    is_partial_path,
    tile_name,
)

Fetch: TypeAlias = Callable[[str], Awaitable[bytes]]
"""The bytes under a C2SP path. Raises: NotFound, StorageUnavailable."""


class TileCache:
    """The most recently used full tiles of one log, each proved to be under a signed root."""

    def __init__(self, max_tiles: int = 512) -> None:
        self._tiles: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._max_tiles = max_tiles

    def get(self, level: int, index: int) -> bytes | None:
        tile = self._tiles.get((level, index))
        if tile is not None:
            self._tiles.move_to_end((level, index))
        return tile

    def put(self, level: int, index: int, tile: bytes) -> None:
        self._tiles[level, index] = tile
        if len(self._tiles) > self._max_tiles:
            self._tiles.popitem(last=False)

    def clear(self) -> None:
        self._tiles.clear()


def store_fetch(tiles: ObjectReader, pending: ObjectReader) -> Fetch:
    """Fetch from the log's stores: partial tiles and bundles are in `pending`, full in `tiles`."""

    async def fetch(path: str) -> bytes:
        store = pending if is_partial_path(path) else tiles
        return (await store.get(path, max_bytes=MAX_BUNDLE_BYTES)).data

    return fetch


class TreeReader:
    """Reads the tree of one verified checkpoint.

    All methods raise StorageUnavailable, and LogInconsistent for what does not lead to the
    root or is not there at all.
    """

    def __init__(
        self,
        fetch: Fetch,
        checkpoint: Checkpoint,
        *,
        cache: TileCache | None = None,
        fanout: int = FANOUT,
    ) -> None:
        self._fetch = fetch
        self._checkpoint = checkpoint
        self._cache = TileCache() if cache is None else cache
        self._fanout = fanout
        self._edge: Edge | None = None

    @property
    def checkpoint(self) -> Checkpoint:
        return self._checkpoint

    async def edge(self) -> Edge:
        """The right edge, proved by the root."""
        if self._edge is None:
            size = self._checkpoint.size
            levels: list[tuple[bytes, ...]] = []
            for level, width in enumerate(edge_widths(size, fanout=self._fanout)):
                index = hashes_at(level, size, fanout=self._fanout) // self._fanout
                levels.append(await self._partial(level, index, width) if width else ())
            edge = Edge(size, tuple(levels), self._fanout)
            if edge.root() != self._checkpoint.root:
                raise LogInconsistent(
                    f"the tiles at the right edge of {size} entries are damaged or were changed:"
                    " they do not lead to the signed root"
                )
            self._edge = edge
        return self._edge

    async def bundle(self, index: int) -> tuple[bytes, ...]:
        """The entries of bundle `index`, each proved by its leaf hash."""
        hashes = await self._tile(0, index)
        entries = await self._entries(index, len(hashes))
        if tuple(leaf_hash(entry) for entry in entries) != hashes:
            path = tile_name(ENTRIES, index, len(hashes), fanout=self._fanout)
            raise LogInconsistent(
                f"{path} is damaged or was changed: it does not hold the entries of the tree"
            )
        return entries

    async def entry(self, index: int) -> bytes:
        """Raises: NotFound: the tree has no such entry."""
        self._check_index(index, self._checkpoint.size)
        number, position = divmod(index, self._fanout)
        return (await self.bundle(number))[position]

    async def entries(
        self, start: int = 0, end: int | None = None
    ) -> AsyncIterator[tuple[int, bytes]]:
        """Index and bytes of the entries from `start` up to, not including, `end`."""
        size = self._checkpoint.size
        end = size if end is None else min(end, size)
        for number in range(max(start, 0) // self._fanout, -(-end // self._fanout)):
            for index, entry in enumerate(await self.bundle(number), number * self._fanout):
                if start <= index < end:
                    yield index, entry

    async def inclusion_proof(self, index: int, size: int | None = None) -> tuple[bytes, ...]:
        """That entry `index` is in the tree of `size`, by default the whole tree.

        Raises: NotFound: no such entry, or no such tree yet.
        """
        size = self._checkpoint.size if size is None else size
        self._check_size(size)
        self._check_index(index, size)
        return await self._build(inclusion_ranges(index, size))

    async def consistency_proof(self, old: int, new: int | None = None) -> tuple[bytes, ...]:
        """That the tree of `new` entries extends that of `old`. Raises: NotFound."""
        new = self._checkpoint.size if new is None else new
        self._check_size(new)
        if not 0 < old <= new:
            raise NotFound(f"no tree of {old} entries before that of {new}")
        return await self._build(consistency_ranges(old, new))

    async def root_at(self, size: int) -> bytes:
        """The root that the log had at `size`. Raises: NotFound."""
        self._check_size(size)
        if size == 0:
            return tree_hash(())
        (root,) = await self._build(((0, size),))
        return root

    async def _build(self, ranges: Sequence[Range]) -> tuple[bytes, ...]:
        nodes = await self._nodes(node for span in ranges for node in nodes_of(span))
        return build(ranges, nodes.__getitem__)

    async def _nodes(self, wanted: Iterable[Node]) -> dict[Node, bytes]:
        shift = self._fanout.bit_length() - 1
        found: dict[Node, bytes] = {}
        for level, index in wanted:
            tile_level, within = divmod(level, shift)
            number, at = divmod(index << within, self._fanout)
            hashes = await self._tile(tile_level, number)
            found[level, index] = tree_hash(hashes[at : at + (1 << within)])
        return found

    async def _tile(self, level: int, index: int) -> tuple[bytes, ...]:
        edge = await self.edge()
        full = hashes_at(level, edge.size, fanout=self._fanout) // self._fanout
        if index == full and edge.levels[level]:
            return edge.levels[level]
        if index >= full:
            raise LogInconsistent(f"the tree has no tile {index} at level {level}")
        cached = self._cache.get(level, index)
        if cached is not None:
            return decode_hashes(cached, width=self._fanout)
        above = await self._tile(level + 1, index // self._fanout)
        path = tile_name(level, index, self._fanout, fanout=self._fanout)
        data = await self._get(path)
        hashes = _hashes(path, data, self._fanout)
        if tree_hash(hashes) != above[index % self._fanout]:
            raise LogInconsistent(
                f"{path} is damaged or was changed: it does not lead to the signed root"
            )
        self._cache.put(level, index, data)
        return hashes

    async def _partial(self, level: int, index: int, width: int) -> tuple[bytes, ...]:
        """A partial tile; once the full one is there, the partial one may be gone."""
        name = partial(tile_name, level, index, fanout=self._fanout)
        try:
            return _hashes(name(width), await self._fetch(name(width)), width)
        except NotFound:
            path = name(self._fanout)
            return _hashes(path, await self._get(path), self._fanout)[:width]

    async def _entries(self, index: int, width: int) -> tuple[bytes, ...]:
        name = partial(tile_name, ENTRIES, index, fanout=self._fanout)
        try:
            data = await self._fetch(name(width))
        except NotFound:
            data = await self._get(name(self._fanout))
        try:
            return decode_bundle(data)[:width]
        except Malformed as error:
            raise LogInconsistent(f"{name(width)} is damaged: {error}") from error

    async def _get(self, path: str) -> bytes:
        try:
            return await self._fetch(path)
        except NotFound as error:
            raise LogInconsistent(f"{path} is missing") from error
        except CorruptObject as error:
            raise LogInconsistent(f"{path} is too large") from error

    def _check_size(self, size: int) -> None:
        if not 0 <= size <= self._checkpoint.size:
            raise NotFound(f"the log has {self._checkpoint.size} entries, not {size}")

    @staticmethod
    def _check_index(index: int, size: int) -> None:
        if not 0 <= index < size:
            raise NotFound(f"a log of {size} entries has no entry {index}")


def _hashes(path: str, data: bytes, width: int) -> tuple[bytes, ...]:
    try:
        return decode_hashes(data, width=width)
    except LogInconsistent as error:
        raise LogInconsistent(f"{path} is damaged: {error}") from error
