"""Namespace and key to the record that stands there: read, verified, judged.

The record is re-read only when its stored version changed, so a hot key costs one look at the
store; a record is verified once and judged anew whenever the policy changes. The small artifacts
behind hot records are remembered too, unproved, as they came.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import structlog

from secure_cache.core.budget import Budget
from secure_cache.core.telemetry import Telemetry
from secure_cache.model.clock import Clock
from secure_cache.model.entry import Entry
from secure_cache.model.errors import (
    AlreadyExists,
    CorruptObject,
    NotFound,
    Revoked,
    StorageUnavailable,
    Unavailable,
    VersionMismatch,
)
from secure_cache.model.names import Key, Namespace
from secure_cache.policy.decision import Hidden, Policy
from secure_cache.provenance.keys import KeyRing
from secure_cache.provenance.record import MAX_STORED_BYTES, parse_record, split_artifact
from secure_cache.provenance.verify import check_chunk_list, verify_entry
from secure_cache.storage import layout
from secure_cache.storage.ports import ObjectStore

_log = structlog.get_logger(__name__)

_REMEMBERED_BYTES = 64 << 20
_HELD_OVERHEAD_BYTES = 1024
"""What a record costs in memory beyond its own length: 2.6 KiB in all were measured for one of
1.6 KiB."""

_QUARANTINE_NOTE_BYTES = 4096
_PUBLISH_ATTEMPTS = 8
_SUPERSEDED = "superseded"


@dataclass(slots=True)
class Held:
    """A verified record, with the last judgement about it.

    Attributes:
        version: of the stored record.
        entry: proved. The envelope that proved it is not kept: it is half of what a record costs.
        chunks: the concatenated raw chunk digests; empty up to one chunk.
        inline: the artifact stands behind the record, in the same object.
        quarantined: its bytes once failed verification.
    """

    version: str
    entry: Entry
    chunks: bytes
    inline: bool
    quarantined: bool
    _judged_by: Policy | None = None
    _hidden: Hidden | None = None

    def hidden(self, policy: Policy, now: float) -> Hidden | None:
        """Why this entry is not served today, or None."""
        if self.quarantined:
            return Hidden("its bytes once failed verification", "quarantine")
        # What a clock that ran ahead dated into the future is judged each time until then.
        if self._judged_by is not policy or self.entry.stored_at > now:
            self._hidden = policy.hides(self.entry, now=now)
            self._judged_by = policy
        return self._hidden


@dataclass(frozen=True, slots=True)
class Replaced:
    """An entry whose place another has taken, and the line for which it was hidden."""

    entry: Entry
    line: str


class Catalog:
    """The records, as seen by this process."""

    def __init__(
        self,
        *,
        records: ObjectStore,
        state: ObjectStore,
        ring: Callable[[], KeyRing],
        reload_ring: Callable[[], Awaitable[KeyRing]],
        clock: Clock,
        telemetry: Telemetry,
        remembered: int | None = None,
        remembered_bytes: int = _REMEMBERED_BYTES,
        artifact_bytes: int = _REMEMBERED_BYTES,
    ) -> None:
        """Remember so many records, of so many bytes, and so many bytes of small artifacts."""
        self._records = records
        self._state = state
        self._ring = ring
        self._reload_ring = reload_ring
        self._clock = clock
        self._telemetry = telemetry
        self._held: Budget[str, tuple[Held, KeyRing]] = Budget(
            remembered_bytes, max_count=remembered
        )
        # With the version that they stood behind. A budget of their own: many of them must not
        # drive out the records, each of which saves a verification.
        self._behind: Budget[str, tuple[str, bytes]] = Budget(artifact_bytes)

    async def find(self, namespace: Namespace, key: Key) -> Held:
        """The verified record, hidden or not.

        Raises:
            NotFound: none.
            CorruptObject: there is one, and it does not verify.
            Unavailable, StorageForbidden: nobody knows.
        """
        name = layout.record(namespace, key)
        ring = self._ring()
        remembered = self._held.get(name)
        try:
            if remembered is not None and remembered[1] is ring:
                held = remembered[0]
                fresh = await self._records.get_if_changed(
                    name, version=held.version, max_bytes=MAX_STORED_BYTES
                )
                if fresh is None:
                    return held
            else:
                fresh = await self._records.get(name, max_bytes=MAX_STORED_BYTES)
        except NotFound:
            self._held.forget(name)
            self._behind.forget(name)
            raise
        try:
            held = await self._admit(fresh.data, fresh.info.version, ring, namespace, key)
        except CorruptObject as error:
            _log.error("record.corrupt", namespace=str(namespace), key=key, why=str(error))
            self._telemetry.verification_failed(kind="record")
            raise
        cost = _HELD_OVERHEAD_BYTES + len(split_artifact(fresh.data)[0])
        self._held.keep(name, (held, ring), cost_bytes=cost)
        return held

    async def visible(self, namespace: Namespace, key: Key, policy: Policy) -> Held:
        """The record, if it may be served today. Raises as `find`; NotFound when hidden."""
        held = await self.find(namespace, key)
        hidden = held.hidden(policy, self._clock())
        if hidden is not None:
            raise NotFound(f"hidden: {hidden.line}: {hidden.why}")
        return held

    def require_not_taken_back(self, held: Held, policy: Policy) -> None:
        """For who serves a record that was visible a moment ago.

        Raises:
            Revoked: a revocation or an epoch hides it by now.
        """
        hidden = held.hidden(policy, self._clock())
        if hidden is not None and hidden.taken_back:
            raise Revoked(hidden.why)

    async def keeps_its_place(self, held: Held, policy: Policy) -> bool:
        """Whether a new entry must yield to this one.

        Asked before a store is refused: another process may have quarantined the artifact since
        this one read the record, and then it is to be built again.
        """
        if held.hidden(policy, self._clock()) is not None:
            return False
        if await self._is_quarantined(held.entry):
            held.quarantined = True
        return not held.quarantined

    def require_verified(self, envelope: bytes, entry: Entry) -> None:
        """Check that `envelope` proves `entry` under the keys in force. Raises: CorruptObject."""
        verify_entry(envelope, self._ring(), namespace=entry.namespace, key=entry.key)

    async def artifact_behind(self, held: Held) -> bytes | None:
        """The bytes that stand behind the record, unproved; None when it changed meanwhile.

        Raises: CorruptObject, StorageUnavailable, StorageForbidden.
        """
        name = layout.record(held.entry.namespace, held.entry.key)
        remembered = self._behind.get(name)
        if remembered is not None and remembered[0] == held.version:
            return remembered[1]
        try:
            stored = await self._records.get(name, max_bytes=MAX_STORED_BYTES)
        except NotFound:
            return None
        if stored.info.version != held.version:
            return None
        artifact = split_artifact(stored.data)[1]
        self._remember_behind(name, held.version, artifact)
        return artifact

    def _remember_behind(self, name: str, version: str, artifact: bytes | None) -> None:
        if artifact is None:
            self._behind.forget(name)
        else:
            cost = len(artifact) + _HELD_OVERHEAD_BYTES // 2
            self._behind.keep(name, (version, artifact), cost_bytes=cost)

    async def _admit(
        self, data: bytes, version: str, ring: KeyRing, namespace: Namespace, key: Key
    ) -> Held:
        record_bytes, artifact = split_artifact(data)
        record = parse_record(record_bytes)
        try:
            verified = verify_entry(record.envelope, ring, namespace=namespace, key=key)
        except CorruptObject:
            # Another process may have rotated the keys a moment ago. Without a second look its
            # entry would count as damaged, and a store would replace it.
            fresh = await self._reload_ring()
            if fresh is ring:
                raise
            verified = verify_entry(record.envelope, fresh, namespace=namespace, key=key)
        check_chunk_list(verified.entry, record.chunks)
        self._remember_behind(layout.record(namespace, key), version, artifact)
        quarantined = await self._is_quarantined(verified.entry)
        return Held(
            version=version,
            entry=verified.entry,
            chunks=record.chunks,
            inline=artifact is not None,
            quarantined=quarantined,
        )

    async def _is_quarantined(self, entry: Entry) -> bool:
        try:
            await self._state.head(layout.quarantine(entry.entry_id))
        except NotFound:
            return False
        return True

    async def quarantine(self, held: Held, why: str) -> bool:
        """Never serve this entry again, in any process. True for the one that was first."""
        held.quarantined = True
        self._telemetry.verification_failed(kind="digest")
        note = why.encode()[:_QUARANTINE_NOTE_BYTES]
        try:
            await self._state.create(layout.quarantine(held.entry.entry_id), note)
        except AlreadyExists:
            return False
        self._telemetry.quarantined()
        return True

    async def publish(self, entry: Entry, record: bytes, policy: Policy) -> Replaced | None:
        """Make an entry readable: the step that decides a race.

        A record that may not be served today (revoked, of an older epoch, quarantined, damaged)
        is replaced by compare-and-swap, so that of many writers still only one succeeds. An
        answer that got lost is resolved by reading back: the record that holds our entry id is
        ours.

        Returns:
            What was replaced, if it could be read.

        Raises:
            AlreadyExists: a visible record stands there.
            Unavailable: the store did not settle it.
        """
        name = layout.record(entry.namespace, entry.key)
        for _ in range(_PUBLISH_ATTEMPTS):
            try:
                await self._records.create(name, record)
            except AlreadyExists:
                standing = await self._standing(entry, policy)
            except StorageUnavailable as error:
                if error.applied is False:
                    raise
                continue
            else:
                return None
            if standing is None:
                continue
            version, replaced = standing
            if replaced is not None and replaced.entry.entry_id == entry.entry_id:
                return None
            with suppress(VersionMismatch):
                await self._records.replace(name, record, expected=version)
                return replaced
        raise Unavailable("the record could not be settled")

    async def _standing(self, ours: Entry, policy: Policy) -> tuple[str, Replaced | None] | None:
        """The version that was judged replaceable, and what it held; None when it has gone.

        The version is the one that was read for the judgement, so that a visible record which
        comes in between is never overwritten.
        """
        try:
            info = await self._records.head(layout.record(ours.namespace, ours.key))
            held = await self.find(ours.namespace, ours.key)
        except NotFound:
            return None
        except CorruptObject:
            return info.version, None
        if held.entry.entry_id == ours.entry_id:
            return held.version, Replaced(held.entry, "")
        if await self.keeps_its_place(held, policy):
            raise AlreadyExists("a visible record stands there")
        hidden = held.hidden(policy, self._clock())
        # None where the clock was moved since that was asked.
        line = _SUPERSEDED if hidden is None else hidden.line
        return held.version, Replaced(held.entry, line)
