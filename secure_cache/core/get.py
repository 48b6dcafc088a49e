"""Serve an artifact: look, verify, then give out. No unverified byte leaves.

Namespaces are looked up in the order of the decision (trusted, then base, then own), so that a
poisoned own entry can never shadow a trusted one. A check that fails ends the look-up with a
miss: going on would let a damaged trusted entry bring a lower one to light in that very request.
From then on it is quarantined, which hides it like a revocation: the reader's own may be served.
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
        blocks: verified bytes in order; the first of them is proved already. Raises
            CorruptObject or VersionMismatch when what is stored no longer verifies.
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
            except VersionMismatch:
                continue
            except (CorruptObject, NotFound) as error:
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
        blocks = self._blocks(held)
        stack.push_async_callback(blocks.aclose)
        first = await anext(blocks)
        return Artifact(entry, entry.size, None, _chain(first, blocks))

    async def _blocks(self, held: Held) -> AsyncGenerator[bytes]:
        """Verified blocks.

        When the file changes under the reader (a backup's hard link moves its ctime, a tamperer
        its bytes), it is opened and proved anew, and the transfer goes on where it was: to Nx a
        broken transfer is a failed build.
        """
        name = layout.artifact(held.entry.entry_id, held.entry.stored_at)
        sent = 0
        for _ in range(_LOOKS):
            async with self._artifacts.open(name) as reading:
                if reading.info.size != held.entry.size:
                    raise CorruptObject("stored artifact has another size")
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
        """The bytes from `sent` on, each proved before it is given out.

        A local file whose identity is stable is proved once as a whole and then remembered: the
        reader checks before each block that the identity still holds. Anything else is proved
        chunk by chunk, out of memory, while there is a place for that. Nobody waits for a place:
        a client that takes its bytes slowly must not keep one from others. Beyond them the bytes
        are read twice, by the one reader that is pinned to them.
        """
        identity = reading.stable_identity
        place = object()
        if identity is None and not sent and self._take_place(place):
            try:
                async with aclosing(self._proved_chunks(held, reading)) as chunks:
                    async for block in chunks:
                        yield block
            finally:
                self._chunk_buffers.release_on_behalf_of(place)
            return
        await self._prove(held.entry, reading, identity)
        async with aclosing(reading.chunks(offset=sent, size=BLOCK_BYTES)) as blocks:
            async for block in blocks:
                yield block

    def _take_place(self, place: object) -> bool:
        try:
            self._chunk_buffers.acquire_on_behalf_of_nowait(place)
        except anyio.WouldBlock:
            return False
        return True

    async def _prove(self, entry: Entry, reading: Reading, identity: str | None) -> None:
        """Hash the whole, unless this very file was proved before."""
        name = reading.info.name
        if identity is not None and self._proved.get(name) == identity:
            return
        whole, size = hashlib.sha256(), 0
        async with aclosing(reading.chunks(size=1024 * 1024)) as blocks:
            async for block in blocks:
                await anyio.to_thread.run_sync(whole.update, block)
                size += len(block)
        _check(entry, Digest(whole.digest()), size)
        if identity is not None:
            self._proved[name] = identity
            if len(self._proved) > _REMEMBERED_PROOFS:
                self._proved.popitem(last=False)

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
        if held.quarantined:
            # Told already, by whoever met the damage first.
            return
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


async def _chain(first: bytes, rest: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    yield first
    async for block in rest:
        yield block
