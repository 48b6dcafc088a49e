"""The published checkpoint as this process knows it: verified, and never going back."""

from collections.abc import Sequence
from dataclasses import dataclass

from secure_cache.model.errors import LogInconsistent, Malformed, NotFound
from secure_cache.storage import layout
from secure_cache.storage.ports import ObjectStore
from secure_cache.tlog.checkpoint import Checkpoint, open_checkpoint
from secure_cache.tlog.note import MAX_NOTE_BYTES, Verifier


@dataclass(frozen=True, slots=True)
class Publication:
    """A verified checkpoint with its signed note and the version of the stored object."""

    checkpoint: Checkpoint
    note: bytes
    version: str


class Publications:
    """Reads the newest checkpoint. Remembers the newest ever seen, as evidence.

    A store that shows an older one than it showed before was rolled back, by its operator or by
    an attacker. Nothing is repaired then: whoever saw the newer one holds a signature.
    """

    def __init__(self, store: ObjectStore, verifiers: Sequence[Verifier], *, origin: str) -> None:
        self._store = store
        self._verifiers = tuple(verifiers)
        self._origin = origin
        self._newest: Publication | None = None

    @property
    def newest(self) -> Publication | None:
        """The newest that this process has seen."""
        return self._newest

    async def read(self) -> Publication:
        """The newest checkpoint.

        Raises:
            LogInconsistent: missing, not signed by the log's key, older than one seen before,
                or another root for the same size.
            StorageUnavailable: the store did not answer.
        """
        # Only what was seen before the read began may be held against what it gives.
        before = self._newest
        try:
            if before is None:
                stored = await self._store.get(layout.CHECKPOINT, max_bytes=MAX_NOTE_BYTES)
            else:
                changed = await self._store.get_if_changed(
                    layout.CHECKPOINT, version=before.version, max_bytes=MAX_NOTE_BYTES
                )
                if changed is None:
                    return before
                stored = changed
        except NotFound as error:
            raise LogInconsistent("the log has no checkpoint") from error
        found = self._open(stored.data, stored.info.version)
        if before is not None:
            _check_order(before.checkpoint, found.checkpoint)
        return self._remember(found)

    def _open(self, note: bytes, version: str) -> Publication:
        try:
            checkpoint = open_checkpoint(note, self._verifiers, origin=self._origin)
        except Malformed as error:
            raise LogInconsistent("the published checkpoint is not well formed") from error
        except LogInconsistent as error:
            raise LogInconsistent(f"the published checkpoint does not verify: {error}") from error
        return Publication(checkpoint, note, version)

    def _remember(self, found: Publication) -> Publication:
        newest = self._newest
        if newest is None or newest.checkpoint.size <= found.checkpoint.size:
            self._newest = found
        return found


def _check_order(older: Checkpoint, newer: Checkpoint) -> None:
    if newer.size < older.size:
        raise LogInconsistent(
            f"the published checkpoint went back from {older.size} to {newer.size} entries"
        )
    if newer.size == older.size and newer.root != older.root:
        raise LogInconsistent(f"two signed roots for {newer.size} entries")
