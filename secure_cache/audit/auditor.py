"""What an auditor may ask, over an index and the log behind it.

A list of entries comes from the index, whose rows are held to their seals. One entry is read from
the log itself, proved, and its row compared with it: there the index is believed in nothing.
"""

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from secure_cache.audit.filters import Filter
from secure_cache.audit.forms import proof_document, row_document
from secure_cache.audit.index import AuditIndex
from secure_cache.audit.presence import Presence, Records, presence_of
from secure_cache.audit.queries import Counts, Page, PageRequest
from secure_cache.audit.quick import read_leaf
from secure_cache.audit.reading import statement_of
from secure_cache.audit.row import UNREADABLE, Row
from secure_cache.audit.timeline import Bucket, Timeline
from secure_cache.model.clock import Clock, rfc3339
from secure_cache.model.entry import Entry
from secure_cache.model.errors import CorruptObject, DamagedIndex, NotFound, StorageUnavailable
from secure_cache.policy.decision import Policy
from secure_cache.provenance.bundle import sigstore_bundle
from secure_cache.provenance.dsse import Envelope
from secure_cache.provenance.keys import KeyRing
from secure_cache.provenance.verify import verify_statement
from secure_cache.tlog.checkpoint import Checkpoint
from secure_cache.tlog.merkle import leaf_hash
from secure_cache.tlog.ports import VerifiedLog
from secure_cache.tlog.proof import verify_inclusion
from secure_cache.tlog.tlog_proof import TlogProof

_Result = TypeVar("_Result")

_THREADS = 2
"""So many questions are answered at once; others wait. Requests of the cache have other threads."""
_EXPORT_ROWS = 500
_MAX_ABOUT = 100
_REMEMBERED = 16_384
"""Events whose signatures were verified."""


@dataclass(frozen=True, slots=True)
class Signature:
    """Whether a key of the ring made the entry's signature, and why not."""

    keyid: str
    valid: bool
    why: str


@dataclass(frozen=True, slots=True)
class Details:
    """Everything about one entry of the log.

    Attributes:
        row: what is searched by.
        leaf: its exact bytes.
        proof: its inclusion in `checkpoint`; verified.
        checkpoint: the newest.
        signature: None for a leaf that is no statement, or without a key ring.
        presence: what has become of it; None for what is no stored artifact.
        about: the log's events about this very entry.
    """

    row: Row
    leaf: bytes
    proof: TlogProof
    checkpoint: Checkpoint
    signature: Signature | None
    presence: Presence | None
    about: tuple[Row, ...]

    @property
    def is_statement(self) -> bool:
        return self.row.event != UNREADABLE

    def document(self) -> dict[str, Any]:
        """As one JSON object."""
        envelope = Envelope.decode(self.leaf) if self.is_statement else None
        return {
            "entry": row_document(self.row),
            "statement": None if envelope is None else json.loads(envelope.unverified_payload),
            "envelope": None if envelope is None else envelope.document(),
            "signature": _plain(self.signature),
            "proof": proof_document(self.proof, self.checkpoint),
            "state": _plain(self.presence),
            "events": [row_document(row) for row in self.about],
        }


@dataclass(frozen=True, slots=True)
class PolicyInForce:
    """One policy of the log's history.

    Attributes:
        index: of the event that says that it took effect.
        at: when, seconds since 1970.
        number: 1 for the first.
        sha256: of the policy file.
        previous_sha256: of the one before; None for the first.
        entries: how many entries it allowed; None where nobody counted.
    """

    index: int
    at: int
    number: int
    sha256: str
    previous_sha256: str | None
    entries: int | None

    def document(self) -> dict[str, Any]:
        return {
            "index": self.index,
            "time": rfc3339(self.at),
            "number": self.number,
            "sha256": self.sha256,
            "previous_sha256": self.previous_sha256,
            "entries": self.entries,
        }


class Auditor:
    """Answers. Methods raise StorageUnavailable, LogInconsistent and DamagedIndex."""

    def __init__(
        self,
        *,
        index: AuditIndex,
        log: VerifiedLog,
        policy: Callable[[], Policy | None],
        clock: Clock,
        records: Records | None = None,
        ring: Callable[[], KeyRing] | None = None,
    ) -> None:
        self._index = index
        self._log = log
        self._policy = policy
        self._clock = clock
        self._records = records
        self._ring = ring
        self._threads = anyio.CapacityLimiter(_THREADS)
        self._ours: set[int] = set()

    async def query(self, wanted: Filter, page: PageRequest) -> Page:
        """Raises: WrongFilter."""
        return await self._in_thread(partial(self._index.query, wanted, page))

    async def count(self, wanted: Filter) -> int:
        return await self._in_thread(partial(self._index.count, wanted))

    async def count_by(self, group: str, wanted: Filter, *, limit: int) -> Counts:
        """Raises: WrongFilter."""
        return await self._in_thread(partial(self._index.count_by, group, wanted, limit=limit))

    async def timeline(self, wanted: Filter, bucket: Bucket | None = None) -> Timeline:
        """How many entries match, by time, tier and event. Raises: WrongFilter."""
        return await self._in_thread(partial(self._index.timeline, wanted, bucket))

    async def export(self, wanted: Filter, page: PageRequest) -> AsyncIterator[tuple[Row, ...]]:
        """All rows that match, some at a time, as they are indexed at the first of them.

        Args:
            wanted: which.
            page: the order, and the cursors to begin and end at; its limit is not heeded.

        Raises:
            StorageUnavailable: the index was made anew meanwhile, and does not hold them yet.
        """
        size = await self._in_thread(lambda: self._index.state().size)
        before = size if page.before is None else min(page.before, size)
        page = replace(page, limit=_EXPORT_ROWS, before=before)
        while True:
            answer = await self.query(wanted, page)
            if answer.size < size:
                raise StorageUnavailable("the audit index was made anew meanwhile: ask again later")
            if answer.rows:
                yield answer.rows
            if not answer.more:
                return
            last = answer.rows[-1].number
            page = replace(page, before=last) if page.newest_first else replace(page, after=last)

    async def details(self, index: int) -> Details:
        """Raises: NotFound."""
        leaf, proof, checkpoint = await self._proved(index)
        row = read_leaf(index, leaf)
        await self._compare(row)
        statement = statement_of(leaf)
        presence: Presence | None = None
        about: tuple[Row, ...] = ()
        if isinstance(statement, Entry):
            presence = await presence_of(
                statement, records=self._records, policy=self._policy(), now=self._clock()
            )
            about = await self._events_about(statement.entry_id)
        return Details(row, leaf, proof, checkpoint, self._signature(row, leaf), presence, about)

    async def proof(self, index: int) -> bytes:
        """A `.tlog-proof` file. Raises: NotFound."""
        return bytes(await self._log.proof(index))

    async def envelope(self, index: int) -> bytes:
        """The entry's exact bytes, whatever they are. Raises: NotFound."""
        return await self._log.entry(index)

    async def bundle(self, index: int) -> dict[str, Any]:
        """The Sigstore bundle. Raises: NotFound, also for a leaf that is no statement."""
        try:
            return sigstore_bundle(await self._log.entry(index))
        except CorruptObject as error:
            raise NotFound(f"entry {index} is no statement") from error

    async def policies(self, sha256: str | None = None) -> list[PolicyInForce]:
        """The history of policies, or of one of them, the first event first. An event that no key
        of the ring ever signed is left out: whoever can append must not rewrite it.

        Raises: WrongFilter: `sha256` is no digest.
        """
        found: list[PolicyInForce] = []
        given = {} if sha256 is None else {"policy_sha256": [sha256]}
        wanted = Filter.parse({"event": ["policy"], **given})
        async for rows in self.export(wanted, PageRequest()):
            found += [await self._in_force(row) for row in rows if await self._was_ours(row.number)]
        return found

    async def indexed(self) -> int:
        """How many entries are indexed."""
        return (await self._in_thread(self._index.state)).size

    async def status(self) -> dict[str, Any]:
        """How far the index has come."""
        state = await self._in_thread(self._index.state)
        published = await self._log.published()
        return {
            "indexed": state.size,
            "published": published.size,
            "origin": published.origin,
            "root": state.edge.root().hex(),
        }

    async def _was_ours(self, index: int) -> bool:
        """Whether a key of the ring signed an entry, also one that was revoked since."""
        if self._ring is None or index in self._ours:
            return True
        leaf = await self._log.entry(index)
        try:
            verify_statement(leaf, self._ring().before_revocations())
        except CorruptObject:
            # Not remembered: keys may have been changed a moment ago.
            return False
        if len(self._ours) < _REMEMBERED:
            self._ours.add(index)
        return True

    async def _in_force(self, row: Row) -> PolicyInForce:
        detail = json.loads(row.detail or "{}")
        sha256 = row.policy_sha256 or ""
        wanted = Filter.parse({"event": ["stored"], "policy_sha256": [sha256]})
        return PolicyInForce(
            index=row.number,
            at=row.at or 0,
            number=detail["number"],
            sha256=sha256,
            previous_sha256=detail["previous_sha256"],
            entries=await self.count(wanted),
        )

    async def _proved(self, index: int) -> tuple[bytes, TlogProof, Checkpoint]:
        """The leaf with a proof that was checked here once more."""
        proof = await self._log.proof(index)
        leaf = await self._log.entry(index)
        checkpoint = Checkpoint.parse(proof.checkpoint.partition(b"\n\n")[0].decode() + "\n")
        verify_inclusion(
            index=index,
            size=checkpoint.size,
            leaf=leaf_hash(leaf),
            proof=proof.hashes,
            root=checkpoint.root,
        )
        return leaf, proof, checkpoint

    async def _compare(self, row: Row) -> None:
        try:
            indexed = await self._in_thread(partial(self._index.entry, row.number))
        except NotFound:
            # The index is a little behind.
            return
        if indexed != row:
            raise DamagedIndex(
                f"{self._index.path}: the row of entry {row.number} is not what the log says;"
                f" {self._index.rebuild_hint}"
            )

    async def _events_about(self, entry_id: str) -> tuple[Row, ...]:
        """Those that a key of ours signed; so many at most."""
        given = {"entry_id": [entry_id], "event": ["quarantined", "removed"]}
        found: list[Row] = []
        async for rows in self.export(Filter.parse(given), PageRequest()):
            found += [row for row in rows if await self._was_ours(row.number)]
            if len(found) >= _MAX_ABOUT:
                break
        return tuple(found[:_MAX_ABOUT])

    def _signature(self, row: Row, leaf: bytes) -> Signature | None:
        if self._ring is None or row.keyid is None:
            return None
        try:
            verify_statement(leaf, self._ring())
        except CorruptObject as error:
            return Signature(row.keyid, valid=False, why=str(error))
        return Signature(row.keyid, valid=True, why="")

    async def _in_thread(self, function: Callable[[], _Result]) -> _Result:
        return await anyio.to_thread.run_sync(function, limiter=self._threads)


def _plain(value: Signature | Presence | None) -> dict[str, Any] | None:
    if value is None:
        return None
    return {name: getattr(value, name) for name in value.__slots__}
