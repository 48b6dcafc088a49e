"""Checking a mirror, file by file, against its own signed checkpoint. Needs no network."""

from array import array
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio.to_thread

from secure_cache.client.log_folder import LogFolder, read_bounded
from secure_cache.client.mirror_entries import happened_in, judge_entries, signed_by
from secure_cache.client.mirror_folder import KEYS, PINS, POLICIES, MirrorProblem, Pins
from secure_cache.model.digest import Digest
from secure_cache.model.errors import CorruptObject, LogInconsistent, NotFound, Unavailable
from secure_cache.provenance.event import KeysChanged, PolicyTookEffect
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
    tree, damaged = TreeReader(files, checkpoint), False
    seen = _Seen(folder, pins, checkpoint.size)
    result.size = checkpoint.size
    async for problem in _bundles(tree, seen, progress):
        damaged = True
        yield problem
    async for problem in _texts(folder, seen, tree):
        yield problem
    if damaged:
        # What cannot be read cannot be judged, nor which keys are the newest.
        return
    newest = seen.newest
    if newest is None:
        yield MirrorProblem(KEYS, "no keys that the log announces are there", _REFETCH)
        return
    if newest[0] != seen.pinned:
        what = f"keys were announced last by entry {newest[0]}, not {seen.pinned}"
        yield MirrorProblem(PINS, what, "`audit mirror` with --repair")
    async for problem in _entries(tree, newest[1], result, progress):
        yield problem


async def _bundles(
    tree: TreeReader, seen: "_Seen", progress: Callable[[str, int, int], None] | None
) -> AsyncGenerator[MirrorProblem]:
    size, found = tree.checkpoint.size, 0
    for number in range(-(-size // FANOUT)):
        first = number * FANOUT
        width = min(FANOUT, size - first)
        try:
            leaves = await tree.bundle(number)
            await anyio.to_thread.run_sync(seen.read, first, leaves)
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


class _Seen:
    """What the entries announce, and of that what is here. What strangers append fills no memory.

    Attributes:
        pinned: index of the event whose keys count, by `mirror.json`.
        newest: index of the newest event that announces a ring which is here and signed it, and
            that ring.
        gone: the file of the pinned ring, if it is not there.
    """

    def __init__(self, folder: Path, pins: Pins, size: int) -> None:
        self.pinned = pins.keys_event_of(size)
        self.newest: tuple[int, KeyRing] | None = None
        self.gone: str | None = None
        self._folder = folder
        self._missing = frozenset(pins.missing_policies)
        self._textless = array("Q")
        self._ring: tuple[str, KeyRing | None] = ("", None)

    def read(self, first: int, leaves: Sequence[bytes]) -> None:
        """Look at some entries. Raises: Unavailable."""
        for index, leaf in enumerate(leaves, first):
            happened = happened_in(leaf)
            if isinstance(happened, KeysChanged):
                self._keys(index, str(happened.ring), leaf)
            elif isinstance(happened, PolicyTookEffect):
                sha256 = str(happened.sha256)
                name = policy_name(sha256)
                if sha256 not in self._missing and not (self._folder / name).exists():
                    self._textless.append(index)

    def textless(self) -> Iterator[int]:
        """Indexes of events about policies whose text is not here; also of strangers' events."""
        return iter(self._textless)

    def _keys(self, index: int, sha256: str, leaf: bytes) -> None:
        name = f"{KEYS}/{sha256}.json"
        if index == self.pinned and not (self._folder / name).exists():
            self.gone = name
        if sha256 != self._ring[0]:
            self._ring = sha256, self._ring_here(name, sha256)
        ring = self._ring[1]
        if ring is not None and signed_by(leaf, ring):
            self.newest = index, ring

    def _ring_here(self, name: str, sha256: str) -> KeyRing | None:
        try:
            data = read_bounded(self._folder / name, MAX_RING_BYTES)
            return KeyRing.decode(data) if str(Digest.of(data)) == sha256 else None
        except (NotFound, CorruptObject, ValueError):
            return None


def policy_name(sha256: str) -> str:
    return f"{POLICIES}/{sha256}.yaml"


async def _texts(folder: Path, seen: _Seen, tree: TreeReader) -> AsyncGenerator[MirrorProblem]:
    for problem in await anyio.to_thread.run_sync(list, _misnamed(folder)):
        yield problem
    if seen.gone is not None:
        yield MirrorProblem(seen.gone, "is not there", _REFETCH)
    ever = None if seen.newest is None else seen.newest[1].before_revocations()
    named = set[str]()
    for index in seen.textless():
        with suppress(LogInconsistent, CorruptObject):
            leaf = await tree.entry(index)
            # Without the keys nobody can tell whose event it is.
            counts = ever is None or signed_by(leaf, ever)
            what = happened_in(leaf)
            if counts and isinstance(what, PolicyTookEffect):
                named.add(policy_name(str(what.sha256)))
        if len(named) == MAX_PROBLEMS:
            break
    for name in sorted(named):
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
