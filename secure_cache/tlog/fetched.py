"""A log that is read from elsewhere: a server, or a copy. It is trusted in nothing."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from secure_cache.model.errors import (
    CorruptObject,
    HistoryChanged,
    LogInconsistent,
    Malformed,
    NotFound,
)
from secure_cache.tlog.checkpoint import Checkpoint, open_checkpoint
from secure_cache.tlog.contradiction import Contradiction
from secure_cache.tlog.note import Verifier
from secure_cache.tlog.reader import Fetch, TileCache, TreeReader
from secure_cache.tlog.tlog_proof import TlogProof
from secure_cache.tlog.witness_policy import WitnessPolicy

CHECKPOINT = "checkpoint"


@dataclass(frozen=True, slots=True)
class Trust:
    """What a log's checkpoints are held to.

    Attributes:
        verifiers: the log's keys.
        origin: the log's name.
        witnesses: who must have cosigned; None asks for nobody.
    """

    verifiers: tuple[Verifier, ...]
    origin: str
    witnesses: WitnessPolicy | None = None

    def open(self, note: bytes) -> Checkpoint:
        """Verify a signed checkpoint.

        Raises:
            LogInconsistent: a signature fails, another log's, or too few witnesses.
        """
        try:
            checkpoint = open_checkpoint(note, self.verifiers, origin=self.origin)
            if self.witnesses is not None:
                for verifier in self.verifiers:
                    self.witnesses.verify(note, log=verifier)
        except Malformed as error:
            raise LogInconsistent(f"the checkpoint is not well formed: {error}") from error
        except LogInconsistent as error:
            raise LogInconsistent(f"the log's checkpoint does not verify: {error}") from error
        return checkpoint

    def open_last(self, note: bytes) -> Checkpoint:
        """Verify a checkpoint that was accepted before, when perhaps other witnesses were asked.

        Raises: LogInconsistent.
        """
        try:
            return open_checkpoint(note, self.verifiers, origin=self.origin)
        except (Malformed, LogInconsistent) as error:
            raise LogInconsistent(f"the checkpoint kept here does not verify: {error}") from error


@dataclass(frozen=True, slots=True)
class _Snapshot:
    note: bytes
    tree: TreeReader


class FetchedLog:
    """Implements `ports.VerifiedLog` over whatever fetches its files.

    What was read once stays in force until `published` is called again: so that one look at the
    log is a look at one tree. A checkpoint that does not follow the last one is refused.

    Args:
        fetch: the files, in their C2SP paths, and `checkpoint`.
        trust: what proves a checkpoint.
        last: a signed checkpoint seen earlier, that the log must lead on from.
        remedy: what a person can do about a file that is damaged there.
    """

    def __init__(
        self, fetch: Fetch, trust: Trust, *, last: bytes | None = None, remedy: str | None = None
    ) -> None:
        self._fetch = fetch
        self._trust = trust
        self._last = last
        self._remedy = remedy
        self._snapshot: _Snapshot | None = None

    async def published(self) -> Checkpoint:
        """Raises: HistoryChanged, besides what the port says."""
        with advised(self._remedy):
            return (await self._look()).tree.checkpoint

    async def checkpoint_note(self) -> bytes:
        with advised(self._remedy):
            return (await self._now()).note

    async def entry(self, index: int) -> bytes:
        with advised(self._remedy):
            return await (await self._now()).tree.entry(index)

    async def entries(
        self, start: int = 0, end: int | None = None
    ) -> AsyncIterator[tuple[int, bytes]]:
        with advised(self._remedy):
            async for item in (await self._now()).tree.entries(start, end):
                yield item

    async def proof(self, index: int) -> TlogProof:
        with advised(self._remedy):
            now = await self._now()
            return TlogProof(index, await now.tree.inclusion_proof(index), now.note)

    async def inclusion_proof(self, index: int, size: int) -> tuple[bytes, ...]:
        with advised(self._remedy):
            return await (await self._now()).tree.inclusion_proof(index, size)

    async def consistency_proof(self, old: int, new: int) -> tuple[bytes, ...]:
        with advised(self._remedy):
            return await (await self._now()).tree.consistency_proof(old, new)

    async def _now(self) -> _Snapshot:
        return await self._look() if self._snapshot is None else self._snapshot

    async def _look(self) -> _Snapshot:
        try:
            note = await self._fetch(CHECKPOINT)
        except NotFound as error:
            raise LogInconsistent("the log has no checkpoint") from error
        except CorruptObject as error:
            raise LogInconsistent("the checkpoint is too large") from error
        checkpoint = self._trust.open(note)
        if self._snapshot is not None and self._snapshot.tree.checkpoint == checkpoint:
            return self._snapshot
        # With tiles of its own: what another root proved may be another history's.
        tree = TreeReader(self._fetch, checkpoint, cache=TileCache())
        if self._last is not None:
            await require_follows(self._last, note, tree, self._trust)
        self._last = note
        self._snapshot = _Snapshot(note, tree)
        return self._snapshot


@contextmanager
def advised(remedy: str | None) -> Iterator[None]:
    """Say what a person can do about a log that is damaged. A history that was changed is no
    damage, and says by itself what to do."""
    try:
        yield
    except HistoryChanged:
        raise
    except LogInconsistent as error:
        if remedy is None:
            raise
        raise LogInconsistent(f"{error}; {remedy}") from error


async def require_follows(older: bytes, newer: bytes, tree: TreeReader, trust: Trust) -> None:
    """Check that the checkpoint of `tree` leads on from an older one of the same log.

    Args:
        older: the signed note that was seen before.
        newer: that of `tree`.
        tree: reads the newer log.
        trust: verifies the older note; its witnesses are not asked again.

    Raises:
        HistoryChanged: it does not, and says what to keep.
        LogInconsistent: the older note is not one of this log.
        StorageUnavailable: nobody knows.
    """
    was = trust.open_last(older)
    now = tree.checkpoint
    if now.size < was.size:
        raise HistoryChanged(
            f"the log has {now.size} entries, and {was.size} were seen before:"
            " it was put back to an older state",
            older=older,
            newer=newer,
            proof=None,
        )
    # From tiles that lead to the newer root, so an equal one proves that nothing was rewritten.
    # For one size the notes say it themselves, whatever the tiles are.
    same = was.size == now.size
    root = now.root if same else await tree.root_at(was.size)
    if root != was.root:
        proof = () if same else await tree.consistency_proof(was.size)
        kept = Contradiction(older, newer, None if same else root, proof)
        kept.verify(trust.verifiers, origin=trust.origin)
        raise HistoryChanged(
            f"the log had another history when it had {was.size} entries:"
            " its key has signed two that contradict each other",
            older=older,
            newer=newer,
            proof=kept.encode(),
        )
