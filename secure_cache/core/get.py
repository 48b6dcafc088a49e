"""Serve an artifact: look, verify, then give out. No unverified byte leaves.

Namespaces are looked up in the order of the decision (trusted, then base, then own), so that a
poisoned own entry can never shadow a trusted one. A check that fails ends the look-up with a
miss: going on would let a damaged trusted entry bring a lower one to light in that very request.
From then on it is quarantined, which hides it like a revocation: the reader's own may be served.

A request keeps the policy with which it began, but for this: what a revocation or an epoch takes
back meanwhile is given to nobody, also in the middle of a transfer. To Nx that is a failed build;
the other one would be made from what an admin has just called poison.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Protocol

import structlog

from secure_cache.core.access import Caller
from secure_cache.core.catalog import Catalog, Held
from secure_cache.core.journal import Journal
from secure_cache.core.straight import require_bytes
from secure_cache.model.digest import Digest
from secure_cache.model.entry import Entry
from secure_cache.model.errors import (
    CorruptObject,
    Denied,
    NotFound,
    Revoked,
    Unavailable,
    VersionMismatch,
)
from secure_cache.model.names import Key, Namespace
from secure_cache.policy.decision import Policy

_log = structlog.get_logger(__name__)

_LOOKS = 3


class Source(Protocol):
    """A way to an artifact's bytes; each of them proves what it gives."""

    def blocks(self, held: Held, sent: int) -> AsyncGenerator[bytes]:
        """Verified blocks from `sent` on, where a block begins. When it ends before the end of
        the artifact, the next source goes on.

        Raises: CorruptObject, NotFound, VersionMismatch, StorageUnavailable, StorageForbidden.
        """
        ...


@dataclass(frozen=True, slots=True)
class Artifact:
    """An artifact whose bytes may be given out.

    Attributes:
        entry: the verified statement about it.
        size: its bytes; exactly so many follow.
        data: the whole, when small; else None and `blocks` gives it.
        blocks: verified bytes in order; the first of them is proved already. Raises
            CorruptObject or VersionMismatch when what is stored no longer verifies, Revoked when
            the entry was taken back.
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

    def __init__(
        self,
        *,
        catalog: Catalog,
        sources: Sequence[Source],
        journal: Journal,
        policy: Callable[[], Policy],
    ) -> None:
        """Sources in the order in which they are tried; the last one never steps aside. `policy`
        is the one in force, whatever a request began with."""
        self._catalog = catalog
        self._policy = policy
        self._sources = tuple(sources)
        self._journal = journal

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
            except Revoked:
                # While its first bytes were awaited.
                return None
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
            require_bytes(entry, Digest.of(data), len(data))
            self._catalog.require_not_taken_back(held, self._policy())
            return Artifact(entry, entry.size, data, None)
        blocks = self._blocks(held)
        stack.push_async_callback(blocks.aclose)
        first = await anext(blocks)
        return Artifact(entry, entry.size, None, _chain(first, blocks))

    async def _blocks(self, held: Held) -> AsyncGenerator[bytes]:
        """Verified blocks, from one source after the other."""
        sent = 0
        try:
            for source in self._sources:
                async with aclosing(source.blocks(held, sent)) as blocks:
                    async for block in blocks:
                        self._catalog.require_not_taken_back(held, self._policy())
                        sent += len(block)
                        yield block
                if sent == held.entry.size:
                    return
        except CorruptObject as error:
            # In the middle of a transfer too, where nobody else comes to know of it.
            await self._condemn(held, str(error))
            raise
        raise Unavailable("no source had all of it")

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


async def _chain(first: bytes, rest: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    yield first
    async for block in rest:
        yield block
