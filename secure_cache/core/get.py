"""Serve an artifact: look, verify, then give out. No unverified byte leaves.

Namespaces are looked up in the order of the decision (trusted, then base, then own), so that a
poisoned own entry can never shadow a trusted one. A check that fails ends the look-up with a
miss: going on would let a damaged trusted entry bring a lower one to light.
"""

import hashlib
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass

import anyio
import structlog

from secure_cache.core.access import Caller
from secure_cache.core.catalog import Catalog, Held
from secure_cache.core.journal import Journal
from secure_cache.model.digest import Digest
from secure_cache.model.entry import CHUNK_BYTES, Entry
from secure_cache.model.errors import (
    CorruptObject,
    Denied,
    NotFound,
    Unavailable,
    VersionMismatch,
)
from secure_cache.model.names import Key, Namespace
from secure_cache.policy.decision import Policy
from secure_cache.storage import layout
from secure_cache.storage.ports import ObjectReader, Reading

_log = structlog.get_logger(__name__)

BLOCK_BYTES = 256 * 1024
_REMEMBERED_PROOFS = 65_536
_CHUNK_BUFFERS = 8
_LOOKS = 3


@dataclass(frozen=True, slots=True)
class Artifact:
    """An artifact whose bytes may be given out.

    Attributes:
        entry: the verified statement about it.
        size: its bytes; exactly so many follow.
        data: the whole, when small; else None and `blocks` gives it.
        blocks: verified bytes in order. Raises CorruptObject or VersionMismatch when the stored
            object changes under the reader.
    """

    entry: Entry
    size: int
    data: bytes | None
    blocks: AsyncGenerator[bytes] | None


class Get:
    """Callable within an exit stack that outlives the transfer.

    Raises (from the call):
        Denied: the decision grants no namespace to read.
        NotFound: nothing that this caller may see.
        CorruptObject: what was found failed a check; it is quarantined.
        StorageUnavailable, StorageForbidden.
    """

    def __init__(self, *, catalog: Catalog, artifacts: ObjectReader, journal: Journal) -> None:
        self._catalog = catalog
        self._artifacts = artifacts
        self._journal = journal
        self._proved: OrderedDict[str, str] = OrderedDict()
        self._chunk_buffers = anyio.CapacityLimiter(_CHUNK_BUFFERS)

    async def __call__(self, caller: Caller, key: Key, stack: AsyncExitStack) -> Artifact:
        decision = caller.decision
        if not decision.read:
            raise Denied(decision.reason)
        for namespace in decision.read:
            artifact = await self._look(namespace, key, caller.policy, stack)
            if artifact is not None:
                return artifact
        raise NotFound("no visible entry in any namespace that this caller reads")

    async def _look(
        self, namespace: Namespace, key: Key, policy: Policy, stack: AsyncExitStack
    ) -> Artifact | None:
        """The namespace's visible artifact, if it has one. Raises as the call."""
        for _ in range(_LOOKS):
            try:
                held = await self._catalog.visible(namespace, key, policy)
            except NotFound:
                return None
            try:
                artifact = await self._open(held, stack)
            except (CorruptObject, NotFound, VersionMismatch) as error:
                await self._condemn(held, str(error))
                raise CorruptObject(f"entry {held.entry.entry_id}: {error}") from error
            if artifact is not None:
                return artifact
        raise Unavailable("the record keeps changing")

    async def _open(self, held: Held, stack: AsyncExitStack) -> Artifact | None:
        """None when the record was replaced since it was read: look again."""
        entry = held.entry
        if held.inline:
            data = await self._catalog.artifact_behind(held)
            if data is None:
                return None
            _check(entry, Digest.of(data), len(data))
            return Artifact(entry, entry.size, data, None)
        name = layout.artifact(entry.entry_id, entry.stored_at)
        reading = await stack.enter_async_context(self._artifacts.open(name))
        if reading.info.size != entry.size:
            raise CorruptObject("stored artifact has another size")
        return Artifact(entry, entry.size, None, await self._blocks(held, name, reading))

    async def _blocks(self, held: Held, name: str, reading: Reading) -> AsyncGenerator[bytes]:
        """Prove the bytes, or arrange that each chunk is proved before it is given out.

        A local file whose identity is stable is proved once as a whole and then remembered: the
        reader checks before each block that the identity still holds. Anything else is proved
        chunk by chunk on the way out.
        """
        identity = reading.stable_identity
        if identity is None:
            return self._by_chunk(held, reading)
        if self._proved.get(name) != identity:
            await self._prove(held.entry, reading)
            self._proved[name] = identity
            if len(self._proved) > _REMEMBERED_PROOFS:
                self._proved.popitem(last=False)
        return reading.chunks(size=BLOCK_BYTES)

    async def _prove(self, entry: Entry, reading: Reading) -> None:
        whole, size = hashlib.sha256(), 0
        async for block in reading.chunks(size=1024 * 1024):
            await anyio.to_thread.run_sync(whole.update, block)
            size += len(block)
        _check(entry, Digest(whole.digest()), size)

    async def _by_chunk(self, held: Held, reading: Reading) -> AsyncGenerator[bytes]:
        """Hold each chunk in memory until it is proved, and give it out from there.

        Only a few transfers do so at a time, and nobody ever waits for one of them: a client that
        takes its bytes slowly must not keep a place from others. Beyond them the bytes are read
        twice: proved as a whole, then given out by the reader that is pinned to them.
        """
        transfer = object()
        try:
            self._chunk_buffers.acquire_on_behalf_of_nowait(transfer)
        except anyio.WouldBlock:
            await self._prove(held.entry, reading)
            async with aclosing(reading.chunks(size=BLOCK_BYTES)) as blocks:
                async for block in blocks:
                    yield block
            return
        try:
            async with aclosing(self._proved_chunks(held, reading)) as blocks:
                async for block in blocks:
                    yield block
        finally:
            self._chunk_buffers.release_on_behalf_of(transfer)

    async def _proved_chunks(self, held: Held, reading: Reading) -> AsyncGenerator[bytes]:
        digests = held.chunks or held.entry.digest.raw
        offset = 0
        async with aclosing(reading.chunks(size=CHUNK_BYTES)) as chunks:
            while offset < held.entry.size:
                data = await anext(chunks, b"")
                at = offset // CHUNK_BYTES * 32
                digest = await anyio.to_thread.run_sync(Digest.of, data)
                if not data or digest.raw != digests[at : at + 32]:
                    why = f"the bytes from {offset} on are not those that its entry states"
                    await self._condemn(held, why)
                    raise CorruptObject(why)
                for start in range(0, len(data), BLOCK_BYTES):
                    yield data[start : start + BLOCK_BYTES]
                offset += len(data)

    async def _condemn(self, held: Held, why: str) -> None:
        _log.error(
            "artifact.quarantined",
            entry=held.entry.entry_id,
            namespace=str(held.entry.namespace),
            key=held.entry.key,
            why=why,
        )
        if await self._catalog.quarantine(held, why):
            await self._journal.quarantined(held.entry, why)


def _check(entry: Entry, digest: Digest, size: int) -> None:
    if size != entry.size or digest != entry.digest:
        raise CorruptObject("stored artifact has other bytes than its entry states")
