"""Checkpoints that our own key signed and our own log can not lead on from: proof against us.

A witness that has seen more of the log than is here, or something else, can show it. Then the log
was rolled back or forked, or its key is in other hands. Each such note is kept in the `state`
store, where every replica finds it, and nothing is published for as long as the log contradicts
it. A log that was put back to its newest state contradicts it no more.
"""

from collections.abc import Callable

import anyio

from secure_cache.model.digest import Digest
from secure_cache.model.errors import AlreadyExists, LogInconsistent, Malformed, NotFound
from secure_cache.storage import layout
from secure_cache.storage.ports import ObjectReader, ObjectStore
from secure_cache.tlog.checkpoint import Checkpoint, open_checkpoint
from secure_cache.tlog.head import MAX_HEAD_BYTES, Head
from secure_cache.tlog.note import MAX_NOTE_BYTES, Verifier
from secure_cache.tlog.ports import PublishedLog
from secure_cache.tlog.proof import verify_consistency

_LOOK_SECONDS = 10.0
_MOST = 16
_MOVES = 5


class Contradictions:
    """Judges notes that others show, and remembers those that prove something.

    Args:
        state: where they are kept.
        head: the log's `head` store.
        log: the log as it is published.
        verifier: the log's key.
        origin: the log's origin.
        now: seconds that never go back.
    """

    def __init__(
        self,
        *,
        state: ObjectStore,
        head: ObjectReader,
        log: PublishedLog,
        verifier: Verifier,
        origin: str,
        now: Callable[[], float] = anyio.current_time,
    ) -> None:
        self._state = state
        self._head = head
        self._log = log
        self._verifier = verifier
        self._origin = origin
        self._now = now
        self._kept: tuple[bytes, ...] = ()
        self._looked_at = float("-inf")

    async def check(self) -> None:
        """Raises: LogInconsistent: one that is kept still holds. StorageUnavailable."""
        if self._now() - self._looked_at >= _LOOK_SECONDS:
            self._kept = await self._read()
            self._looked_at = self._now()
        for note in self._kept:
            await self.judge(self.open(note))

    def open(self, note: bytes) -> Checkpoint:
        """A note that somebody shows, if our own key signed it.

        Raises:
            Malformed, LogInconsistent: it is not ours, and so proves nothing.
        """
        return open_checkpoint(note, [self._verifier], origin=self._origin)

    async def judge(self, shown: Checkpoint) -> None:
        """Whether the log leads on from a checkpoint that our key signed, or will at once.

        Raises:
            LogInconsistent: it does not.
            StorageUnavailable: nobody knows.
        """
        for _ in range(_MOVES):
            published = await self._log.published()
            if shown.size <= published.size:
                await self._extends(shown, published)
                return
            head = await self._read_head()
            if shown == head.checkpoint():
                # Committed and not published yet; a witness may well see it first.
                return
            if shown.size >= head.size:
                break
        raise LogInconsistent(
            f"there is a checkpoint of {shown.size} entries, signed with this log's key, and this"
            f" log has {head.size}: it was put back to an older state, or another log has its key."
            " Restore the newest one; never go on from this"
        )

    async def keep(self, note: bytes) -> None:
        """Keep one for every replica and every later start. Raises: StorageUnavailable."""
        self._kept = (*self._kept, note)[-_MOST:]
        # Named by what it says: each witness shows it with other cosignatures.
        name = layout.contradiction(str(Digest.of(str(self.open(note)).encode())))
        try:
            await self._state.create(name, note)
        except AlreadyExists:
            return

    async def _extends(self, shown: Checkpoint, published: Checkpoint) -> None:
        if shown.size == 0:
            return
        verify_consistency(
            old_size=shown.size,
            new_size=published.size,
            old_root=shown.root,
            new_root=published.root,
            proof=await self._log.consistency_proof(shown.size, published.size),
        )

    async def _read(self) -> tuple[bytes, ...]:
        notes = []
        async for info in self._state.list(layout.CONTRADICTION_PREFIX):
            try:
                stored = await self._state.get(info.name, max_bytes=MAX_NOTE_BYTES)
                self.open(stored.data)
            except (NotFound, Malformed, LogInconsistent):
                # Taken away since it was listed; or whoever can write here could else stop the log
                # with any text.
                continue
            notes.append(stored.data)
            if len(notes) == _MOST:
                break
        return tuple(notes)

    async def _read_head(self) -> Head:
        try:
            stored = await self._head.get(layout.HEAD, max_bytes=MAX_HEAD_BYTES)
        except NotFound as error:
            raise LogInconsistent("the log has no head") from error
        return Head.decode(stored.data, origin=self._origin)
