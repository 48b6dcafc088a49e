"""Mirroring a log: everything is verified before it is kept, and nothing that is kept is trusted.

What a crash leaves is a mirror of the older checkpoint with some verified files more; the next
run goes on from there.
"""

import fcntl
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio.to_thread

from secure_cache.client.log_folder import LogFolder, read_bounded
from secure_cache.client.mirror_folder import EVIDENCE, KEYS, PINS, POLICIES, Pins
from secure_cache.core.key_files import write_private_file
from secure_cache.model.errors import (
    CorruptObject,
    HistoryChanged,
    LogInconsistent,
    Misconfigured,
    NotFound,
    StorageUnavailable,
    Unavailable,
)
from secure_cache.provenance.dsse import Envelope
from secure_cache.provenance.event import KeysChanged, PolicyTookEffect
from secure_cache.provenance.event_statement import parse_event
from secure_cache.provenance.keys import KeyRing
from secure_cache.provenance.verify import verify_statement
from secure_cache.tlog.checkpoint import Checkpoint
from secure_cache.tlog.fetched import CHECKPOINT, Trust, require_follows
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

_LOCK = ".lock"
_MAX_BAD = 1000


@dataclass(frozen=True, slots=True)
class Origin:
    """What is mirrored.

    Attributes:
        fetch: the log's files, unverified.
        trust: what proves its checkpoint.
        ring_for: the key ring with a digest in hex, unverified.
        policy_text: a policy by its digest in hex, verified. Raises: NotFound.
        pins: what a new mirror is begun with.
    """

    fetch: Fetch
    trust: Trust
    ring_for: Callable[[str], Awaitable[bytes]]
    policy_text: Callable[[str], Awaitable[bytes]]
    pins: Pins


@dataclass(slots=True)
class Mirrored:
    """What a run has done.

    Attributes:
        checkpoint: what the mirror holds now.
        before: how many entries it held before.
        bad: entries that do not verify, by index, with the reason. They are kept: as evidence.
        missing_policies: digests of policies whose text is not to be had.
    """

    checkpoint: Checkpoint
    before: int
    bad: list[tuple[int, str]] = field(default_factory=list)
    missing_policies: list[str] = field(default_factory=list)


class _Proved(TileCache):
    """Also keeps the tiles that were proved since they were last written."""

    def __init__(self) -> None:
        super().__init__()
        self.fresh: dict[str, bytes] = {}

    def put(self, level: int, index: int, tile: bytes) -> None:
        super().put(level, index, tile)
        self.fresh[tile_name(level, index, FANOUT)] = tile


class Mirror:
    """A mirror's folder, while nobody else writes to it. Make one by `opened_mirror`."""

    def __init__(self, folder: Path, pins: Pins) -> None:
        self.folder = folder
        self.pins = pins
        self._files = LogFolder(folder)

    async def bring_up_to_date(
        self, origin: Origin, *, anew: bool = False, progress: Progress | None = None
    ) -> Mirrored:
        """Fetch what is new.

        1. the new checkpoint is signed, and leads on from the mirrored one; else both are kept
           as evidence and nothing is touched
        2. each bundle and tile is proved under its root, then written
        3. each statement is held to the keys that the log announced; rings and policies written
        4. the checkpoint, last: what it speaks of is all there
        5. what only the older checkpoint needed is removed

        Args:
            origin: where from.
            anew: prove everything again, and fetch what is damaged.
            progress: told how far it is.

        Raises:
            HistoryChanged, LogInconsistent: the log is not the one that was mirrored.
            Unavailable, Denied: the origin. StorageUnavailable: the disk here.
        """
        last = await self._last(origin.trust)
        note = await origin.fetch(CHECKPOINT)
        checkpoint = origin.trust.open(note)
        if last is not None:
            await self._hold_to(last, note, checkpoint, origin)
        before = 0 if last is None else origin.trust.open_last(last).size
        start = 0 if anew else before
        await self._take_tree(checkpoint, origin, start, progress)
        result = Mirrored(checkpoint, before)
        await self._check_statements(result, origin, start, progress)
        await self._write(CHECKPOINT, note)
        await self._write(PINS, self.pins.encode())
        await anyio.to_thread.run_sync(self._sweep, checkpoint.size)
        return result

    async def _last(self, trust: Trust) -> bytes | None:
        try:
            note = await self._files(CHECKPOINT)
        except NotFound:
            return None
        trust.open_last(note)
        return note

    async def _hold_to(
        self, last: bytes, note: bytes, checkpoint: Checkpoint, origin: Origin
    ) -> None:
        try:
            tree = TreeReader(origin.fetch, checkpoint)
            await require_follows(last, note, tree, origin.trust)
        except HistoryChanged as error:
            kept = await self._keep_evidence(error)
            raise HistoryChanged(
                f"{error}. The mirror is untouched; what proves it is in {kept}",
                older=error.older,
                newer=error.newer,
                proof=error.proof,
            ) from error

    async def _keep_evidence(self, error: HistoryChanged) -> Path:
        name = hashlib.sha256(error.older + error.newer).hexdigest()[:16]
        await self._write(f"{EVIDENCE}/{name}/older.checkpoint", error.older)
        await self._write(f"{EVIDENCE}/{name}/newer.checkpoint", error.newer)
        if error.proof is not None:
            await self._write(f"{EVIDENCE}/{name}/contradiction.json", error.proof)
        return self.folder / EVIDENCE / name

    async def _take_tree(
        self, checkpoint: Checkpoint, origin: Origin, start: int, progress: Progress | None
    ) -> None:
        """Bundle by bundle. What is here already is used if it is proved, and else replaced."""
        size = checkpoint.size
        proved = _Proved()
        here = TreeReader(self._first_here(origin.fetch), checkpoint, cache=proved)
        there = TreeReader(origin.fetch, checkpoint, cache=proved)
        edge = await there.edge()
        for number in range(start // FANOUT, -(-size // FANOUT)):
            try:
                entries = await here.bundle(number)
            except (LogInconsistent, CorruptObject):
                entries = await there.bundle(number)
            name = tile_name(ENTRIES, number, len(entries))
            await self._write_unless_same(name, encode_bundle(entries))
            for path, data in proved.fresh.items():
                await self._write_unless_same(path, data)
            proved.fresh.clear()
            if progress is not None:
                progress("fetching", min((number + 1) * FANOUT, size), size)
        for level, hashes in enumerate(edge.levels):
            if hashes:
                index = hashes_at(level, size) // FANOUT
                await self._write_unless_same(
                    tile_name(level, index, len(hashes)), encode_hashes(hashes)
                )

    def _first_here(self, fetch: Fetch) -> Fetch:
        async def look(path: str) -> bytes:
            if is_partial_path(path):
                return await fetch(path)
            try:
                return await self._files(path)
            except NotFound:
                return await fetch(path)

        return look

    async def _check_statements(
        self, result: Mirrored, origin: Origin, start: int, progress: Progress | None
    ) -> None:
        """Twice over what was fetched: the newest keys are known only at its end."""
        tree = TreeReader(self._files, result.checkpoint)
        keys_event = self.pins.keys_event
        policies: list[str] = []
        async for index, leaf in tree.entries(start):
            happened = _happened(leaf)
            if isinstance(happened, KeysChanged):
                keys_event = index
            elif isinstance(happened, PolicyTookEffect):
                policies.append(str(happened.sha256))
        if keys_event is None:
            raise LogInconsistent("the log announces no keys, so that nothing in it can be proved")
        ring = await self._take_ring(origin, await tree.entry(keys_event), keys_event)
        self.pins = Pins(
            v=self.pins.v,
            origin=self.pins.origin,
            vkeys=self.pins.vkeys,
            source=origin.pins.source,
            keys_event=keys_event,
        )
        for sha256 in dict.fromkeys(policies):
            await self._take_policy(result, origin, sha256)
        async for first, leaves in _in_batches(tree, start):
            bad = await anyio.to_thread.run_sync(bad_statements, first, leaves, ring)
            result.bad += bad[: _MAX_BAD - len(result.bad)]
            if progress is not None:
                progress("verifying", first + len(leaves), result.checkpoint.size)

    async def _take_ring(self, origin: Origin, leaf: bytes, index: int) -> KeyRing:
        happened = _happened(leaf)
        if not isinstance(happened, KeysChanged):
            raise LogInconsistent(f"entry {index} of the log announces no keys")
        data = await origin.ring_for(str(happened.ring))
        if hashlib.sha256(data).hexdigest() != str(happened.ring):
            raise LogInconsistent(
                f"the keys that were given are not those of the log's newest announcement, entry"
                f" {index}: if keys were changed just now, run it again"
            )
        try:
            ring = KeyRing.decode(data)
        except ValueError as error:
            raise LogInconsistent(f"the key ring is not well formed: {error}") from error
        await self._write_unless_same(f"{KEYS}/{happened.ring}.json", data)
        return ring

    async def _take_policy(self, result: Mirrored, origin: Origin, sha256: str) -> None:
        try:
            text = await origin.policy_text(sha256)
        except NotFound:
            result.missing_policies.append(sha256)
            return
        await self._write_unless_same(f"{POLICIES}/{sha256}.yaml", text)

    async def _write_unless_same(self, path: str, data: bytes) -> None:
        def work() -> None:
            try:
                if read_bounded(self.folder / path, max(len(data), 1)) == data:
                    return
            except (NotFound, CorruptObject):
                pass
            put(self.folder / path, data)

        await anyio.to_thread.run_sync(work)

    async def _write(self, path: str, data: bytes) -> None:
        await anyio.to_thread.run_sync(put, self.folder / path, data)

    def _sweep(self, size: int) -> None:
        """Partial files that this checkpoint does not need; a crash leaves some, which harms
        nobody."""
        needed = {
            tile_name(level, hashes_at(max(level, 0), size) // FANOUT, width)
            for level in (ENTRIES, *range(8))
            if (width := hashes_at(max(level, 0), size) % FANOUT)
        }
        for path in (self.folder / "tile").rglob("*.p/*"):
            if path.relative_to(self.folder).as_posix() not in needed:
                path.unlink(missing_ok=True)
        for folder in (self.folder / "tile").rglob("*.p"):
            if not any(folder.iterdir()):
                folder.rmdir()


@contextmanager
def opened_mirror(folder: Path, pins: Pins) -> Iterator[Mirror]:
    """A mirror that nobody else writes to meanwhile.

    Args:
        folder: made if it is not there; its parent must be.
        pins: as they are there, or as a new mirror begins.

    Raises:
        Misconfigured: it cannot be made. Unavailable: another run is at work.
    """
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        fd = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Misconfigured(f"{folder}: cannot be used ({error.strerror})") from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Unavailable(f"{folder}: another run is mirroring into it") from error
        if not (folder / PINS).exists():
            # First of all: whoever goes on with this mirror holds it to the same key.
            put(folder / PINS, pins.encode())
        yield Mirror(folder, pins)
    finally:
        os.close(fd)


def put(path: Path, data: bytes) -> None:
    """Write a file, whole and durable, or not at all. Raises: StorageUnavailable."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private_file(path, data)
    except OSError as error:
        raise StorageUnavailable(f"{path}: cannot be written ({error.strerror})") from error


def bad_statements(first: int, leaves: list[bytes], ring: KeyRing) -> list[tuple[int, str]]:
    """Which of some entries are not what the log's own keys signed, and why."""
    found: list[tuple[int, str]] = []
    for index, leaf in enumerate(leaves, first):
        try:
            verify_statement(leaf, ring)
        except CorruptObject as error:
            found.append((index, str(error)))
    return found


async def _in_batches(tree: TreeReader, start: int) -> AsyncIterator[tuple[int, list[bytes]]]:
    size = tree.checkpoint.size
    for number in range(start // FANOUT, -(-size // FANOUT)):
        leaves = list(await tree.bundle(number))
        first = number * FANOUT
        skipped = max(start - first, 0)
        yield first + skipped, leaves[skipped:]


def _happened(leaf: bytes) -> object:
    try:
        return parse_event(Envelope.decode(leaf).unverified_payload).what
    except CorruptObject:
        return None
