"""From a leaf of the log to its row, with the very functions that the server verifies with.

Total: a leaf that is no statement of ours has a row too. Signatures are not verified here: the
row names the key, and whoever reads one entry verifies it.
"""

import json
from dataclasses import dataclass

from secure_cache.audit.row import STORED, UNREADABLE, Row
from secure_cache.model.digest import Digest
from secure_cache.model.entry import Entry
from secure_cache.model.errors import CorruptObject
from secure_cache.model.identity import ClaimValue, Identity
from secure_cache.model.names import Namespace
from secure_cache.model.strict_json import load_strict_object
from secure_cache.policy.conditions import FACTS
from secure_cache.provenance.dsse import MAX_ENVELOPE_BYTES, Envelope
from secure_cache.provenance.event import (
    EntryQuarantined,
    EntryRemoved,
    Event,
    KeysChanged,
    LogOpened,
    PolicyTookEffect,
)
from secure_cache.provenance.event_statement import EVENT_PREDICATE, parse_event
from secure_cache.provenance.statement import ENTRY_PREDICATE, parse_statement
from secure_cache.tlog.merkle import leaf_hash


def statement_of(leaf: bytes) -> Entry | Event | None:
    """What a leaf states; None for one that is no statement of ours. Proves nothing."""
    try:
        payload = Envelope.decode(leaf).unverified_payload
        document = load_strict_object(payload, max_bytes=MAX_ENVELOPE_BYTES)
        kind = document.get("predicateType")
        if kind == ENTRY_PREDICATE:
            return parse_statement(payload)
        if kind == EVENT_PREDICATE:
            return parse_event(payload)
    except (CorruptObject, ValueError):
        return None
    return None


def read_leaf_strictly(index: int, leaf: bytes) -> Row:
    """The row of one entry of the log, whatever its bytes are."""
    hash_, statement = leaf_hash(leaf), statement_of(leaf)
    if statement is None:
        return Row(index, hash_, UNREADABLE)
    keyid = Envelope.decode(leaf).unverified_keyid
    if isinstance(statement, Entry):
        return _entry_row(index, statement, hash_, keyid)
    return _event_row(index, statement, hash_, keyid)


@dataclass(frozen=True, slots=True)
class WriterColumns:
    """What a row takes from a writer."""

    issuer: str
    iss: str
    subject: str
    repository_id: str | None
    repository: str | None
    run_id: str | None
    commit: str | None
    actor_id: str | None
    actor: str | None
    jti_sha256: str
    tid: str | None

    @classmethod
    def of(cls, writer: Identity) -> "WriterColumns":
        claims = writer.claim_map

        def first(*names: str) -> str | None:
            texts = (_text(claims.get(name)) for name in names)
            return next((text for text in texts if text), None)

        return cls(
            issuer=writer.issuer,
            iss=writer.iss,
            subject=writer.subject,
            repository_id=first(*FACTS["repository_id"]),
            repository=first("repository", "project_path"),
            run_id=first(*FACTS["run_id"]),
            commit=first(*FACTS["commit"]),
            actor_id=first(*FACTS["actor_id"]),
            actor=first("actor"),
            jti_sha256=writer.token_id,
            tid=writer.family,
        )


def _text(value: ClaimValue) -> str | None:
    """A claim as an admin would write it, as revocations compare it."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value) if isinstance(value, tuple) else str(value)


def _entry_row(index: int, entry: Entry, hash_: bytes, keyid: str) -> Row:
    return entry_row(
        index,
        hash_,
        WriterColumns.of(entry.writer),
        at=entry.stored_at,
        namespace=entry.namespace,
        tier=str(entry.tier),
        key=entry.key,
        digest=str(entry.digest),
        size=entry.size,
        entry_id=entry.entry_id,
        rule=entry.rule,
        policy_sha256=entry.policy_sha256,
        epoch=entry.epoch,
        server=entry.server,
        keyid=keyid,
    )


def entry_row(
    index: int,
    hash_: bytes,
    writer: WriterColumns,
    *,
    at: int,
    namespace: Namespace,
    tier: str,
    key: str,
    digest: str,
    size: int,
    entry_id: str,
    rule: str,
    policy_sha256: str,
    epoch: int,
    server: str,
    keyid: str,
) -> Row:
    return Row(
        index,
        hash_,
        STORED,
        at,
        namespace.project,
        str(namespace),
        namespace.kind,
        tier,
        key,
        digest,
        size,
        entry_id,
        writer.issuer,
        writer.iss,
        writer.subject,
        writer.repository_id,
        writer.repository,
        writer.run_id,
        writer.commit,
        writer.actor_id,
        writer.actor,
        rule,
        policy_sha256,
        writer.jti_sha256,
        writer.tid,
        epoch,
        server,
        keyid,
    )


def _event_row(index: int, event: Event, hash_: bytes, keyid: str) -> Row:
    common = Row(index, hash_, UNREADABLE, at=event.at, server=event.server, keyid=keyid)
    match event.what:
        case LogOpened(origin=origin, vkey=vkey):
            return common._replace(
                event="opened",
                digest=str(Digest.of(vkey.encode())),
                detail=json.dumps({"origin": origin, "vkey": vkey}),
            )
        case PolicyTookEffect(sha256=sha256, number=number, previous=previous):
            before = None if previous is None else str(previous)
            return common._replace(
                event="policy",
                digest=str(sha256),
                policy_sha256=str(sha256),
                detail=json.dumps({"number": number, "previous_sha256": before}),
            )
        case KeysChanged(ring=ring, added=added, retired=retired, revoked=revoked):
            changed = {"added": added, "retired": retired, "revoked": revoked}
            return common._replace(event="keys", digest=str(ring), detail=json.dumps(changed))
        case EntryQuarantined(reason=reason) as what:
            detail = json.dumps({"reason": reason})
            return _about_entry(common, what)._replace(event="quarantined", detail=detail)
        case EntryRemoved(line=line, replaced_by=replaced_by) as what:
            detail = json.dumps({"line": line, "replaced_by": replaced_by})
            return _about_entry(common, what)._replace(event="removed", detail=detail)


def _about_entry(common: Row, what: EntryQuarantined | EntryRemoved) -> Row:
    return common._replace(
        project=what.namespace.project,
        namespace=str(what.namespace),
        kind=what.namespace.kind,
        key=what.key,
        digest=str(what.digest),
        entry_id=what.entry_id,
    )
