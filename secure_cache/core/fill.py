"""One download of one artifact into the local tier, proved on its way."""

import hashlib
from contextlib import aclosing, suppress

import anyio
import structlog

from secure_cache.core.blocks import prove_chunk
from secure_cache.core.catalog import Held
from secure_cache.core.followed import Followed, Gone, LocalTrouble, SteppedAside, locally, soon
from secure_cache.core.straight import require_bytes, require_size
from secure_cache.model.digest import Digest
from secure_cache.model.entry import CHUNK_BYTES
from secure_cache.model.errors import VersionMismatch
from secure_cache.storage import layout
from secure_cache.storage.ports import ObjectReader, Reading
from secure_cache.storage.tier_ports import LocalDraft, LocalFolder

_log = structlog.get_logger(__name__)

_LOOKS = 3
_SMALL_BYTES = 1024 * 1024
_SMALL_AT_ONCE = 32
_LARGE_AT_ONCE = 6
"""What bounds the memory: one holds a chunk of 4 MiB, and what its store reads ahead. A build
asks for hundreds of small ones at the same moment, and each of those is one wait and few bytes."""


class Filler:
    """Downloads, so many at once. None of them waits for a client.

    A download goes on without readers once it has half of the artifact: somebody asked for it,
    and will again. Before that it stops, so that asking and leaving is no way to keep the server
    busy.
    """

    def __init__(self, artifacts: ObjectReader, folder: LocalFolder) -> None:
        self._artifacts = artifacts
        self._folder = folder
        self._small = anyio.CapacityLimiter(_SMALL_AT_ONCE)
        self._large = anyio.CapacityLimiter(_LARGE_AT_ONCE)

    async def fill(self, held: Held, work: Followed) -> None:
        """Download an artifact, prove it and publish it in the tier.

        Order, and what a crash after each step leaves:
        1. room is taken and a draft made  -> a draft whose lock is gone: swept
        2. each chunk is proved, written   -> the same
        3. the draft gets its name         -> a file, to be proved by whoever finds it

        Raises:
            SteppedAside: no room, or no place soon. LocalTrouble: the local folder failed.
            Gone: no readers.
            CorruptObject: what is stored is not what the entry states.
            NotFound, VersionMismatch, StorageUnavailable, StorageForbidden: from the store.
        """
        # Small ones all wait: each is a moment, and without the tier it would wait as long.
        async with self._small if held.entry.size <= _SMALL_BYTES else soon(self._large):
            if not work.readers:
                raise Gone
            with locally():
                draft = await self._folder.begin(held.entry.entry_id, held.entry.size)
            if draft is None:
                raise SteppedAside("no room")
            work.begin(draft)
            try:
                await self._download(held, work, draft)
                with locally():
                    await draft.publish()
            except BaseException:
                with anyio.CancelScope(shield=True), suppress(LocalTrouble), locally():
                    await draft.discard()
                raise

    async def _download(self, held: Held, work: Followed, draft: LocalDraft) -> None:
        name, whole = layout.artifact(held.entry.entry_id, held.entry.stored_at), hashlib.sha256()
        for _ in range(_LOOKS):
            async with self._artifacts.open(name) as reading:
                require_size(reading, held.entry)
                with suppress(VersionMismatch):
                    await self._take_in(held, work, draft, reading, whole)
                    return
            _log.warning("artifact.changed_while_sent", name=name, why="during a fill")
        raise VersionMismatch(f"{name} keeps changing")

    async def _take_in(
        self,
        held: Held,
        work: Followed,
        draft: LocalDraft,
        reading: Reading,
        whole: "hashlib._Hash",
    ) -> None:
        def prove(offset: int, chunk: bytes) -> bytes:
            digests = prove_chunk(held, offset, chunk)
            whole.update(chunk)
            return digests

        size = held.entry.size
        async with aclosing(reading.chunks(offset=work.upto, size=CHUNK_BYTES)) as chunks:
            while work.upto < size:
                if not work.readers and work.upto * 2 < size:
                    raise Gone
                offset = work.upto
                chunk = await anext(chunks, b"")
                digests = await anyio.to_thread.run_sync(prove, offset, chunk)
                if offset + len(chunk) == size:
                    # The last readers' bytes wait for the proof of the whole.
                    require_bytes(held.entry, Digest(whole.digest()), size)
                with locally():
                    await draft.write(offset, chunk)
                work.known.add(offset, digests)
                work.advance(chunk)
