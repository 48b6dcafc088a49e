"""The newest checkpoint that this installation has seen, kept apart from the log.

Whoever puts yesterday's log back in place puts back its checkpoint too: all of it genuine, and
nothing in it tells. So each process keeps what it saw in another store (`state`), which may be
another container with other rights. A log that does not lead on from there was rolled back or
forked. Only a witness outside notices when both stores are put back together.
"""

from secure_cache.model.errors import (
    AlreadyExists,
    LogInconsistent,
    Malformed,
    NotFound,
    VersionMismatch,
)
from secure_cache.storage import layout
from secure_cache.storage.ports import ObjectStore, StoredObject
from secure_cache.tlog.checkpoint import Checkpoint, open_checkpoint
from secure_cache.tlog.note import MAX_NOTE_BYTES, Verifier
from secure_cache.tlog.ports import PublishedLog
from secure_cache.tlog.proof import verify_consistency


class LogMemory:
    """Remembers checkpoints of one log, and holds the log to them."""

    def __init__(
        self, *, state: ObjectStore, log: PublishedLog, verifier: Verifier, origin: str
    ) -> None:
        self._state = state
        self._log = log
        self._verifier = verifier
        self._origin = origin

    async def check(self) -> None:
        """Check that the log leads on from what was seen.

        Raises:
            LogInconsistent: it is older, or another one; or the memory was tampered with.
            StorageUnavailable: nobody knows.
        """
        stored = await self._stored()
        if stored is None:
            return
        seen, now = self._open(stored.data), await self._log.published()
        if seen.size > now.size:
            raise LogInconsistent(
                f"the log has {now.size} entries, and this server has seen {seen.size}: it was"
                " put back to an older state. Restore the newest one; never go on from the old"
            )
        if seen.size == 0:
            return
        proof = await self._log.consistency_proof(seen.size, now.size)
        try:
            verify_consistency(
                old_size=seen.size,
                new_size=now.size,
                old_root=seen.root,
                new_root=now.root,
                proof=proof,
            )
        except LogInconsistent as error:
            raise LogInconsistent(
                f"the log of {now.size} entries does not lead on from the {seen.size} that this"
                " server has seen: it is another history. Restore the one that was seen; never go"
                " on from this one"
            ) from error

    async def remember(self) -> None:
        """Keep the newest checkpoint, unless a newer one is kept already. Raises as `check`."""
        note = await self._log.checkpoint_note()
        stored = await self._stored()
        try:
            if stored is None:
                await self._state.create(layout.SEEN_CHECKPOINT, note)
            elif self._open(stored.data).size < self._open(note).size:
                await self._state.replace(
                    layout.SEEN_CHECKPOINT, note, expected=stored.info.version
                )
        except (AlreadyExists, VersionMismatch):
            # Another process was quicker; what it kept is at least as good as nothing.
            return

    async def _stored(self) -> StoredObject | None:
        try:
            return await self._state.get(layout.SEEN_CHECKPOINT, max_bytes=MAX_NOTE_BYTES)
        except NotFound:
            return None

    def _open(self, note: bytes) -> Checkpoint:
        try:
            return open_checkpoint(note, [self._verifier], origin=self._origin)
        except Malformed as error:
            raise LogInconsistent(f"{layout.SEEN_CHECKPOINT} is not a checkpoint") from error
        except LogInconsistent as error:
            raise LogInconsistent(f"{layout.SEEN_CHECKPOINT} does not verify: {error}") from error
