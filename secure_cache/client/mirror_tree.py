"""The tiles and bundles of a mirror: fetched, proved under a signed root, and only then written."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.to_thread

from secure_cache.client.log_folder import LogFolder
from secure_cache.client.mirror_folder import put_unless_same
from secure_cache.model.errors import CorruptObject, LogInconsistent, NotFound, SecureCacheError
from secure_cache.tlog.checkpoint import Checkpoint
from secure_cache.tlog.reader import Fetch, TileCache, TreeReader
from secure_cache.tlog.tiles import (
    ENTRIES,
    FANOUT,
    encode_bundle,
    encode_hashes,
    hashes_at,
    is_partial_path,
    tile_name,
)

Progress = Callable[[str, int, int], None]
"""Told what is being done, how far, and of how many entries."""

_AT_ONCE = 8
"""So many bundles are fetched at the same time, and kept in memory until they are written."""
_LEVELS = 8


async def take_tree(
    folder: Path, checkpoint: Checkpoint, fetch: Fetch, start: int, progress: Progress | None
) -> None:
    """Write what the tree of a checkpoint has from entry `start` on.

    What is there already is used if it is proved, and else replaced. In whatever order it is
    killed, what it leaves is proved.

    Args:
        folder: of the mirror.
        checkpoint: verified.
        fetch: the log's files, unverified.
        start: what is before this entry is there.
        progress: told how far it is.

    Raises:
        LogInconsistent: what is given does not lead to the root.
        Unavailable, Denied: as `fetch`. StorageUnavailable: the disk here.
    """
    size = checkpoint.size
    proved, ahead = _Proved(), _Ahead(fetch)
    here = TreeReader(_here_first(folder, ahead), checkpoint, cache=proved)
    there = TreeReader(ahead, checkpoint, cache=proved)
    edge = await there.edge()
    for numbers in _groups(start, size):
        await ahead.look(_wanted(folder, numbers, size))
        files: list[tuple[str, bytes]] = []
        for number in numbers:
            try:
                entries = await here.bundle(number)
            except (LogInconsistent, CorruptObject):
                entries = await there.bundle(number)
            files.append((tile_name(ENTRIES, number, len(entries)), encode_bundle(entries)))
        files += proved.taken()
        await anyio.to_thread.run_sync(put_unless_same, folder, files)
        if progress is not None:
            progress("fetching", min((numbers[-1] + 1) * FANOUT, size), size)
    files = [
        (tile_name(level, hashes_at(level, size) // FANOUT, len(hashes)), encode_hashes(hashes))
        for level, hashes in enumerate(edge.levels)
        if hashes
    ]
    await anyio.to_thread.run_sync(put_unless_same, folder, files)


def remove_old_edge(folder: Path, *sizes: int) -> None:
    """Remove the partial files that no tree of these sizes needs.

    A crash before it leaves some, which harms nobody.
    """
    needed = {
        tile_name(level, hashes_at(max(level, 0), size) // FANOUT, width)
        for size in sizes
        for level in (ENTRIES, *range(_LEVELS))
        if (width := hashes_at(max(level, 0), size) % FANOUT)
    }
    for path in (folder / "tile").rglob("*.p/*"):
        if path.relative_to(folder).as_posix() not in needed:
            path.unlink(missing_ok=True)
    for partials in (folder / "tile").rglob("*.p"):
        if not any(partials.iterdir()):
            partials.rmdir()


class _Proved(TileCache):
    """Also keeps the tiles that were proved since they were last written."""

    def __init__(self) -> None:
        super().__init__()
        self._fresh: dict[str, bytes] = {}

    def put(self, level: int, index: int, tile: bytes) -> None:
        super().put(level, index, tile)
        self._fresh[tile_name(level, index, FANOUT)] = tile

    def taken(self) -> list[tuple[str, bytes]]:
        fresh = list(self._fresh.items())
        self._fresh.clear()
        return fresh


class _Ahead:
    """Fetches some files at once, before they are asked for one by one."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._ready: dict[str, bytes] = {}

    async def __call__(self, path: str) -> bytes:
        data = self._ready.pop(path, None)
        return await self._fetch(path) if data is None else data

    async def look(self, paths: Sequence[str]) -> None:
        self._ready.clear()
        async with anyio.create_task_group() as group:
            for path in paths:
                group.start_soon(self._take, path)

    async def _take(self, path: str) -> None:
        # Whoever asks for it asks again, and is told.
        with suppress(SecureCacheError):
            self._ready[path] = await self._fetch(path)


def _here_first(folder: Path, fetch: Fetch) -> Fetch:
    files = LogFolder(folder)

    async def look(path: str) -> bytes:
        if is_partial_path(path):
            return await fetch(path)
        try:
            return await files(path)
        except NotFound:
            return await fetch(path)

    return look


def _groups(start: int, size: int) -> list[range]:
    first, end = start // FANOUT, -(-size // FANOUT)
    return [range(at, min(at + _AT_ONCE, end)) for at in range(first, end, _AT_ONCE)]


def _wanted(folder: Path, numbers: range, size: int) -> list[str]:
    full = [number for number in numbers if (number + 1) * FANOUT <= size]
    names = [tile_name(kind, number, FANOUT) for number in full for kind in (ENTRIES, 0)]
    return [name for name in names if not (folder / name).exists()]
