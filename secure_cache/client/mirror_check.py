"""Checking a mirror, file by file, against its own signed checkpoint. Needs no network."""

from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio.to_thread

from secure_cache.client.key_ring import open_ring
from secure_cache.client.log_folder import LogFolder, read_bounded
from secure_cache.client.mirror_entries import Announced, judge_entries
from secure_cache.client.mirror_folder import KEYS, PINS, POLICIES, MirrorProblem, Pins
from secure_cache.model.digest import Digest
from secure_cache.model.errors import CorruptObject, LogInconsistent, NotFound, Unavailable
from secure_cache.provenance.keys import MAX_RING_BYTES, KeyRing
from secure_cache.tlog.fetched import CHECKPOINT, Trust
from secure_cache.tlog.reader import TreeReader
from secure_cache.tlog.tiles import ENTRIES, FANOUT, tile_name

MAX_PROBLEMS = 100
_REFETCH = "fetch it again: `audit mirror` with --repair"
_EVIDENCE = "keep the mirror: it is evidence"
_MAX_TEXT = 1 << 20


@dataclass(slots=True)
class Checked:
    """What a check has come to: how many entries, and how many of them count no more because
    their keys were revoked."""

    size: int = 0
    revoked: int = 0


async def check_mirror(
    folder: Path,
    trust: Trust,
    pins: Pins,
    result: Checked,
    *,
    progress: Callable[[str, int, int], None] | None = None,
) -> AsyncGenerator[MirrorProblem]:
    """What is wrong in a mirror's files; its index is for others to check.

    Args:
        folder: of the mirror.
        trust: its pinned key.
        pins: what its `mirror.json` says.
        result: is filled in.
        progress: told how far it is.

    Raises:
        Unavailable: the disk.
    """
    files = LogFolder(folder)
    try:
        checkpoint = trust.open_last(await files(CHECKPOINT))
    except (NotFound, LogInconsistent, CorruptObject) as error:
        yield MirrorProblem(CHECKPOINT, str(error), "begin a new mirror, and compare")
        return
    tree, announced, damaged = TreeReader(files, checkpoint), Announced(), False
    result.size = checkpoint.size
    async for problem in _bundles(tree, announced, progress):
        damaged = True
        yield problem
    async for problem in _texts(folder, announced, pins, checkpoint.size):
        yield problem
    if damaged:
        # What cannot be read cannot be judged, nor which keys are the newest.
        return
    newest = await anyio.to_thread.run_sync(_newest_ring, folder, announced)
    if newest is None:
        yield MirrorProblem(KEYS, "no keys that the log announces are there", _REFETCH)
        return
    pinned = pins.keys_event_of(checkpoint.size)
    if newest[0] != pinned:
        what = f"keys were announced last by entry {newest[0]}, not {pinned}"
        yield MirrorProblem(PINS, what, "`audit mirror` with --repair")
    async for problem in _entries(tree, newest[1], result, progress):
        yield problem


async def _bundles(
    tree: TreeReader, announced: Announced, progress: Callable[[str, int, int], None] | None
) -> AsyncGenerator[MirrorProblem]:
    size, found = tree.checkpoint.size, 0
    for number in range(-(-size // FANOUT)):
        first = number * FANOUT
        width = min(FANOUT, size - first)
        try:
            for index, leaf in enumerate(await tree.bundle(number), first):
                announced.read(index, leaf)
        except (LogInconsistent, CorruptObject) as error:
            found += 1
            yield MirrorProblem(tile_name(ENTRIES, number, width), str(error), _REFETCH)
            if found == MAX_PROBLEMS:
                return
        if progress is not None:
            progress("checking", first + width, size)


async def _entries(
    tree: TreeReader,
    ring: KeyRing,
    result: Checked,
    progress: Callable[[str, int, int], None] | None,
) -> AsyncGenerator[MirrorProblem]:
    tell = None if progress is None else partial(progress, "verifying")
    judgement = await judge_entries(tree, ring, 0, tell)
    result.revoked = judgement.revoked
    for index, why in judgement.bad[:MAX_PROBLEMS]:
        number = index // FANOUT
        width = min(FANOUT, tree.checkpoint.size - number * FANOUT)
        yield MirrorProblem(
            tile_name(ENTRIES, number, width),
            f"entry {index} is logged, and not ours: {why}",
            _EVIDENCE,
        )


def _newest_ring(folder: Path, announced: Announced) -> tuple[int, KeyRing] | None:
    """Of those that were announced by one of their own keys and are here."""
    for index, sha256, leaf in reversed(announced.keys):
        try:
            data = read_bounded(folder / KEYS / f"{sha256}.json", MAX_RING_BYTES)
            return index, open_ring(data, leaf)
        except (NotFound, CorruptObject, LogInconsistent):
            continue
    return None


async def _texts(
    folder: Path, announced: Announced, pins: Pins, size: int
) -> AsyncGenerator[MirrorProblem]:
    for problem in await anyio.to_thread.run_sync(list, _misnamed(folder)):
        yield problem
    for index, sha256, _ in announced.keys:
        name = f"{KEYS}/{sha256}.json"
        if index == pins.keys_event_of(size) and not (folder / name).exists():
            yield MirrorProblem(name, "is not there", _REFETCH)
    for sha256 in dict.fromkeys(announced.policies):
        name = f"{POLICIES}/{sha256}.yaml"
        if sha256 not in pins.missing_policies and not (folder / name).exists():
            yield MirrorProblem(name, "is not there", _REFETCH)


def _misnamed(folder: Path) -> Iterator[MirrorProblem]:
    for kind, ending in ((POLICIES, "yaml"), (KEYS, "json")):
        for path in sorted((folder / kind).glob("*")):
            name = path.relative_to(folder).as_posix()
            try:
                digest = str(Digest.of(read_bounded(path, _MAX_TEXT)))
            except (NotFound, CorruptObject, Unavailable) as error:
                yield MirrorProblem(name, str(error), _REFETCH)
                continue
            if path.name != f"{digest}.{ending}":
                yield MirrorProblem(name, "has another digest than its name", _REFETCH)
