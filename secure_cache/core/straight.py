"""Verified blocks straight out of a store: without a local tier, or where it steps aside."""

import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from weakref import WeakValueDictionary

import anyio
import structlog

from secure_cache.core.blocks import BLOCK_BYTES, BlockList, BlockLists, prove_chunk
from secure_cache.core.catalog import Held
from secure_cache.core.places import Place, Places
from secure_cache.model.digest import Digest
from secure_cache.model.entry import CHUNK_BYTES, Entry
from secure_cache.model.errors import CorruptObject, VersionMismatch
from secure_cache.storage import layout
from secure_cache.storage.ports import ObjectReader, Reading

_log = structlog.get_logger(__name__)

_CHUNK_PLACES = 8
_LOOKS = 3
_HASHED_AT_ONCE = 1024 * 1024


class Straight:
    """Reads, proves and gives out. Each reader reads for itself."""

    def __init__(self, artifacts: ObjectReader, lists: BlockLists) -> None:
        self._artifacts = artifacts
        self._lists = lists
        self._places = Places(_CHUNK_PLACES)
        self._turns: WeakValueDictionary[str, anyio.Lock] = WeakValueDictionary()

    async def blocks(self, held: Held, sent: int) -> AsyncGenerator[bytes]:
        """Verified blocks from `sent` on, which is where a block begins.

        When the file changes under the reader (a backup's hard link moves its ctime, a tamperer
        its bytes), it is opened and proved anew, and the transfer goes on where it was: to Nx a
        broken transfer is a failed build.

        Raises:
            CorruptObject: what is stored is not what the entry states.
            NotFound, VersionMismatch (it keeps changing), StorageUnavailable, StorageForbidden.
        """
        name = layout.artifact(held.entry.entry_id, held.entry.stored_at)
        for _ in range(_LOOKS):
            async with self._artifacts.open(name) as reading:
                require_size(reading, held.entry)
                try:
                    async with aclosing(self._verified(held, reading, sent)) as blocks:
                        async for block in blocks:
                            yield block
                            sent += len(block)
                except VersionMismatch as error:
                    _log.warning("artifact.changed_while_sent", name=name, why=str(error))
                    continue
                return
        raise VersionMismatch(f"{name} keeps changing")

    async def _verified(self, held: Held, reading: Reading, sent: int) -> AsyncGenerator[bytes]:
        """A local file whose identity is stable is proved once as a whole and then remembered:
        the reader checks before each block that the identity still holds. Of anything else each
        block is proved when it is sent."""
        known = self._lists.of(held.entry)
        if reading.stable_identity is not None:
            await self._prove(held.entry, known, reading)
            async with aclosing(reading.chunks(offset=sent, size=BLOCK_BYTES)) as blocks:
                async for block in blocks:
                    yield block
            return
        while sent < held.entry.size:
            part = self._known(known, reading, sent)
            if sent >= known.upto:
                part = self._unknown(held, known, reading, sent)
            async with aclosing(part) as blocks:
                async for block in blocks:
                    yield block
                    sent += len(block)

    async def _prove(self, entry: Entry, known: BlockList, reading: Reading) -> None:
        """Hash the whole, unless this very file was proved before. One does it, the rest wait:
        whoever leaves in the middle is followed by the next."""
        identity = reading.stable_identity
        if known.file == identity:
            return
        turn = self._turns.setdefault(reading.info.name, anyio.Lock())
        async with turn:
            if known.file == identity:
                return
            whole, size = hashlib.sha256(), 0
            async with aclosing(reading.chunks(size=_HASHED_AT_ONCE)) as blocks:
                async for block in blocks:
                    await anyio.to_thread.run_sync(whole.update, block)
                    size += len(block)
            require_bytes(entry, Digest(whole.digest()), size)
            known.file = identity

    async def _known(self, known: BlockList, reading: Reading, sent: int) -> AsyncGenerator[bytes]:
        """Blocks that can be proved one by one."""
        async with aclosing(reading.chunks(offset=sent, size=BLOCK_BYTES)) as blocks:
            while sent < known.upto:
                block = await anext(blocks, b"")
                await anyio.to_thread.run_sync(known.check, sent, block)
                yield block
                sent += len(block)

    async def _unknown(
        self, held: Held, known: BlockList, reading: Reading, sent: int
    ) -> AsyncGenerator[bytes]:
        """Chunk by chunk, out of memory, until a place there is taken away."""
        offset = sent - sent % CHUNK_BYTES
        async with aclosing(reading.chunks(offset=offset, size=CHUNK_BYTES)) as chunks:
            while offset < held.entry.size:
                async with self._places.one() as place:
                    place.chunk = await anext(chunks, b"")
                    digests = await anyio.to_thread.run_sync(prove_chunk, held, offset, place.chunk)
                    known.add(offset, digests)
                    end = min(offset + CHUNK_BYTES, held.entry.size)
                    while sent < end:
                        block = _block_of(place, sent - offset)
                        if block is None:
                            return
                        place.idle_since = anyio.current_time()
                        yield block
                        place.idle_since = None
                        sent += len(block)
                    offset = end


def _block_of(place: Place, at: int) -> bytes | None:
    return None if place.chunk is None else place.chunk[at : at + BLOCK_BYTES]


def require_size(reading: Reading, entry: Entry) -> None:
    """Raises: CorruptObject."""
    if reading.info.size != entry.size:
        raise CorruptObject("stored artifact has another size")


def require_bytes(entry: Entry, digest: Digest, size: int) -> None:
    """Raises: CorruptObject."""
    if size != entry.size or digest != entry.digest:
        raise CorruptObject("stored artifact has other bytes than its entry states")
