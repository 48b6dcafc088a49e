"""Accept an artifact: decide, stream and hash, store, sign, log, publish. In that order."""

import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import anyio
import structlog

from secure_cache.core.access import Caller
from secure_cache.core.catalog import Catalog
from secure_cache.core.entry_id import new_entry_id
from secure_cache.core.journal import Journal
from secure_cache.model.clock import Clock
from secure_cache.model.digest import Digest
from secure_cache.model.entry import CHUNK_BYTES, Entry
from secure_cache.model.errors import (
    AlreadyExists,
    CorruptObject,
    Denied,
    NotFound,
    Unavailable,
)
from secure_cache.model.identity import Identity
from secure_cache.model.names import Key, Namespace
from secure_cache.model.tiers import Tier
from secure_cache.policy.decision import Policy
from secure_cache.provenance.keys import Signer
from secure_cache.provenance.record import INLINE_BYTES, Record, encode_record, join_artifact
from secure_cache.provenance.statement import sign_entry
from secure_cache.storage import layout
from secure_cache.storage.ports import CreateOnly
from secure_cache.tlog.ports import Log

_log = structlog.get_logger(__name__)

_HASH_INLINE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class _Grant:
    """The part of a decision that lets somebody write, with nothing left open."""

    identity: Identity
    namespace: Namespace
    tier: Tier
    rule: str


@dataclass(frozen=True, slots=True)
class Body:
    """A request body: its announced size in bytes, and the bytes, already bounded."""

    size: int
    blocks: AsyncIterator[bytes]


class Put:
    """Callable: caller, key, body to the entry that now stands in the caller's namespace.

    Raises (from the call):
        Denied, Revoked: the policy grants no such write, or no longer.
        AlreadyExists: the caller's own namespace has a visible entry under the key. Nothing
            that stands in any other namespace has a say.
        TooLarge, TooSlow, Malformed: from the body.
        Unavailable (Overloaded, StorageUnavailable, a key revoked meanwhile), StorageForbidden.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        artifacts: CreateOnly,
        log: Log,
        journal: Journal,
        signer: Callable[[], Signer],
        policy: Callable[[], Policy],
        clock: Clock,
        random_bytes: Callable[[int], bytes],
        server: str,
    ) -> None:
        self._catalog = catalog
        self._artifacts = artifacts
        self._log = log
        self._journal = journal
        self._signer = signer
        self._policy = policy
        self._clock = clock
        self._random_bytes = random_bytes
        self._server = server

    async def check(self, caller: Caller, key: Key) -> None:
        """Refuse what can be refused before the body is read. Raises as the call."""
        grant = _grant(caller)
        try:
            held = await self._catalog.find(grant.namespace, key)
        except (NotFound, CorruptObject):
            return
        if await self._catalog.keeps_its_place(held, caller.policy):
            raise AlreadyExists("the caller's namespace has it already")

    async def __call__(self, caller: Caller, key: Key, body: Body) -> Entry:
        """Store an artifact.

        Durability order, and what a crash after each step leaves:
        1. artifact durable under a name nobody refers to  -> garbage nobody can read
           (a small one waits in memory and goes with its record)
        2. entry signed; today's policy asked once more    -> the same
        3. leaf durable in the log's pending area          -> a logged store nobody can read
        4. record created if absent                        -> readable, logged: acknowledged
        """
        grant = _grant(caller)
        now, signer = self._clock(), self._signer()
        entry_id = new_entry_id(now, self._random_bytes)
        small, digest, chunks = await self._store(layout.artifact(entry_id, int(now)), body)
        entry = Entry(
            entry_id=entry_id,
            namespace=grant.namespace,
            key=key,
            tier=grant.tier,
            digest=digest,
            size=body.size,
            chunk_list_digest=Digest.of(chunks) if chunks else None,
            stored_at=int(now),
            writer=grant.identity,
            rule=grant.rule,
            policy_sha256=caller.policy.sha256,
            epoch=caller.policy.epoch(grant.namespace),
            server=self._server,
        )
        policy = self._require_visible(entry)
        envelope = await self._sign(entry, signer)
        logged = await self._log.append(envelope)
        if policy is not self._policy():
            policy = self._require_visible(entry)
        record = encode_record(Record(envelope, chunks, logged.batch, logged.position))
        if small is not None:
            record = join_artifact(record, small)
        replaced = await self._catalog.publish(entry, record, policy)
        if replaced is not None:
            await self._journal.replaced(replaced.entry, entry, line=replaced.line)
        return entry

    async def _sign(self, entry: Entry, signer: Signer) -> bytes:
        """Sign with the key of the moment that the entry states, when its body began to come in:
        a key that a rotation made since then was not valid at that moment."""
        envelope = await sign_entry(entry, signer)
        if self._signer().keyid != signer.keyid:
            try:
                self._catalog.require_verified(envelope, entry)
            except CorruptObject as error:
                raise Unavailable(f"the key was taken back meanwhile: {error}") from error
        return envelope

    def _require_visible(self, entry: Entry) -> Policy:
        """A policy edited or a writer revoked while the body came in has the last word."""
        policy = self._policy()
        hidden = policy.hides(entry, now=self._clock())
        if hidden is not None:
            raise Denied(f"{hidden.line}: {hidden.why}")
        return policy

    async def _store(self, name: str, body: Body) -> tuple[bytes | None, Digest, bytes]:
        """A small body itself, or None once it is in the store; its digest; its chunk digests."""
        if body.size <= INLINE_BYTES:
            data = b"".join([block async for block in body.blocks])
            return data, Digest.of(data), b""
        # The store hashes the whole while it writes.
        chunks = _ChunkHasher() if body.size > CHUNK_BYTES else None
        async with self._artifacts.begin_upload(name) as upload:
            async for block in body.blocks:
                await upload.write(block)
                if chunks is None:
                    continue
                if len(block) <= _HASH_INLINE_BYTES:
                    chunks.update(block)
                else:
                    await anyio.to_thread.run_sync(chunks.update, block)
            committed = await upload.commit(size=body.size)
        return None, committed.digest, chunks.finish() if chunks is not None else b""


class _ChunkHasher:
    """SHA-256 of each `CHUNK_BYTES` of a stream, concatenated."""

    def __init__(self) -> None:
        self._digests = bytearray()
        self._current = hashlib.sha256()
        self._room = CHUNK_BYTES

    def update(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            part = view[: self._room]
            self._current.update(part)
            self._room -= len(part)
            view = view[len(part) :]
            if not self._room:
                self._close()

    def finish(self) -> bytes:
        if self._room < CHUNK_BYTES:
            self._close()
        return bytes(self._digests)

    def _close(self) -> None:
        self._digests += self._current.digest()
        self._current = hashlib.sha256()
        self._room = CHUNK_BYTES


def _grant(caller: Caller) -> _Grant:
    decision = caller.decision
    if (
        caller.identity is None
        or decision.write is None
        or decision.tier is None
        or decision.rule is None
    ):
        raise Denied(decision.reason)
    return _Grant(caller.identity, decision.write, decision.tier, decision.rule)
