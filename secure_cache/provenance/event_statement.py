"""Events as in-toto Statements: our predicate `log-event/v1`.

Specification: `docs/provenance.md`. Version 1 is closed, for the reason that `statement` gives.
"""

from typing import Final, Literal, TypeAlias

import msgspec
import rfc8785

from secure_cache.model.clock import parse_rfc3339, rfc3339
from secure_cache.model.digest import Digest
from secure_cache.model.errors import CorruptObject, Malformed
from secure_cache.model.names import Namespace, parse_key
from secure_cache.model.strict_json import load_strict_object
from secure_cache.provenance.dsse import MAX_ENVELOPE_BYTES
from secure_cache.provenance.event import (
    EntryQuarantined,
    EntryRemoved,
    Event,
    Happening,
    KeysChanged,
    LogOpened,
    PolicyTookEffect,
)
from secure_cache.provenance.keys import Signer
from secure_cache.provenance.statement import (
    MAX_SAFE_INTEGER,
    MAX_SERVER_CHARACTERS,
    STATEMENT_TYPE,
    NamespaceDocument,
    Sha256,
    Subject,
    check_entry_id,
    check_line,
    sign_payload,
    subject_name,
)

EVENT_PREDICATE: Final = "https://secure-cache.dev/attestations/log-event/v1"
MAX_REASON_CHARACTERS = 512
MAX_KEYS = 256


class _Opened(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="opened"):
    origin: str
    vkey: str


class _Policy(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag="policy",
    rename="camel",
):
    number: int
    policy_sha256: str
    previous_sha256: str | msgspec.UnsetType = msgspec.UNSET


class _Keys(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag="keys",
    rename="camel",
):
    ring_sha256: str
    added: tuple[str, ...]
    retired: tuple[str, ...]
    revoked: tuple[str, ...]


class _Quarantined(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag="quarantined",
    rename="camel",
):
    entry_id: str
    project: str
    namespace: NamespaceDocument
    key: str
    reason: str


class _Removed(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag="removed",
    rename="camel",
):
    entry_id: str
    project: str
    namespace: NamespaceDocument
    key: str
    line: str
    replaced_by: str | msgspec.UnsetType = msgspec.UNSET


_Details: TypeAlias = _Opened | _Policy | _Keys | _Quarantined | _Removed


class _Predicate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    at: str
    server: str
    event: _Details


class _Statement(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"
):
    type_: Literal["https://in-toto.io/Statement/v1"] = msgspec.field(name="_type")
    subject: tuple[Subject]
    predicate_type: Literal["https://secure-cache.dev/attestations/log-event/v1"]
    predicate: _Predicate


def build_event(event: Event) -> bytes:
    """The payload that states `event`, in RFC 8785.

    Raises:
        Malformed: a value outside its grammar or limits.
    """
    try:
        _check(event)
        return rfc8785.dumps(msgspec.to_builtins(_document(event)))
    except ValueError as error:
        raise Malformed(f"the event cannot be stated: {error}") from error


def parse_event(payload: bytes) -> Event:
    """Read a payload back. Call it on proved bytes only.

    Raises:
        CorruptObject: anything but what `build_event` gives.
    """
    try:
        document = load_strict_object(payload, max_bytes=MAX_ENVELOPE_BYTES)
        statement = msgspec.convert(document, _Statement)
        event = Event(
            what=_happening(statement.subject[0], statement.predicate.event),
            at=parse_rfc3339(statement.predicate.at),
            server=statement.predicate.server,
        )
        canonical = build_event(event)
    except (ValueError, Malformed) as error:
        raise CorruptObject(f"the event is not well formed: {error}") from error
    if canonical != payload:
        raise CorruptObject("the event is not in its canonical form, or contradicts itself")
    return event


async def sign_event(event: Event, signer: Signer) -> bytes:
    """State and sign `event`: the envelope's bytes, which are the leaf of the log.

    Raises:
        Malformed: as `build_event`.
        Unavailable: the signer could not be reached.
    """
    return await sign_payload(build_event(event), signer)


def _check(event: Event) -> None:
    check_line(event.server, what="the server's name", max_characters=MAX_SERVER_CHARACTERS)
    match event.what:
        case LogOpened(origin=origin, vkey=vkey):
            check_line(origin, what="a log's origin", max_characters=MAX_REASON_CHARACTERS)
            check_line(vkey, what="a log's vkey", max_characters=2 * MAX_REASON_CHARACTERS)
        case PolicyTookEffect(number=number, previous=previous):
            if not 1 <= number <= MAX_SAFE_INTEGER or (number == 1) != (previous is None):
                raise ValueError("policies are counted from 1, and all but the first follow one")
        case KeysChanged(added=added, retired=retired, revoked=revoked):
            for keyids in (added, retired, revoked):
                _check_keyids(keyids)
        case EntryQuarantined(entry_id=entry_id, key=key, reason=line):
            _check_entry(entry_id, key, line)
        case EntryRemoved(entry_id=entry_id, key=key, line=line, replaced_by=replaced_by):
            _check_entry(entry_id, key, line)
            if replaced_by is not None and check_entry_id(replaced_by) == entry_id:
                raise ValueError("an entry cannot replace itself")


def _check_keyids(keyids: tuple[str, ...]) -> None:
    for keyid in keyids:
        Digest.parse(keyid)
    if list(keyids) != sorted(set(keyids)) or len(keyids) > MAX_KEYS:
        raise ValueError(f"key ids are sorted, unique and at most {MAX_KEYS}")


def _check_entry(entry_id: str, key: str, line: str) -> None:
    check_entry_id(entry_id)
    parse_key(key)
    check_line(line, what="a reason", max_characters=MAX_REASON_CHARACTERS)


def _document(event: Event) -> _Statement:
    name, digest = _subject(event.what)
    return _Statement(
        type_=STATEMENT_TYPE,
        subject=(Subject(name=name, digest=Sha256(sha256=str(digest))),),
        predicate_type=EVENT_PREDICATE,
        predicate=_Predicate(at=rfc3339(event.at), server=event.server, event=_details(event.what)),
    )


def _subject(what: Happening) -> tuple[str, Digest]:
    """in-toto wants a digest: the digest of the thing that the event is about."""
    match what:
        case LogOpened():
            return f"log:{what.origin}", Digest.of(what.vkey.encode())
        case PolicyTookEffect():
            return "policy", what.sha256
        case KeysChanged():
            return "key-ring", what.ring
        case EntryQuarantined() | EntryRemoved():
            return subject_name(what.namespace, what.key), what.digest


def _details(what: Happening) -> _Details:
    match what:
        case LogOpened():
            return _Opened(origin=what.origin, vkey=what.vkey)
        case PolicyTookEffect():
            previous = msgspec.UNSET if what.previous is None else str(what.previous)
            return _Policy(
                number=what.number, policy_sha256=str(what.sha256), previous_sha256=previous
            )
        case KeysChanged():
            return _Keys(
                ring_sha256=str(what.ring),
                added=what.added,
                retired=what.retired,
                revoked=what.revoked,
            )
        case EntryQuarantined():
            return _Quarantined(
                entry_id=what.entry_id,
                project=what.namespace.project,
                namespace=_namespace(what.namespace),
                key=what.key,
                reason=what.reason,
            )
        case EntryRemoved():
            return _Removed(
                entry_id=what.entry_id,
                project=what.namespace.project,
                namespace=_namespace(what.namespace),
                key=what.key,
                line=what.line,
                replaced_by=msgspec.UNSET if what.replaced_by is None else what.replaced_by,
            )


def _namespace(namespace: Namespace) -> NamespaceDocument:
    return NamespaceDocument(kind=namespace.kind, id=namespace.id)


def _happening(subject: Subject, it: _Details) -> Happening:
    match it:
        case _Opened():
            return LogOpened(it.origin, it.vkey)
        case _Policy():
            previous = it.previous_sha256
            return PolicyTookEffect(
                sha256=Digest.parse(it.policy_sha256),
                number=it.number,
                previous=None if previous is msgspec.UNSET else Digest.parse(previous),
            )
        case _Keys():
            return KeysChanged(Digest.parse(it.ring_sha256), it.added, it.retired, it.revoked)
        case _Quarantined() | _Removed():
            return _about_entry(Digest.parse(subject.digest.sha256), it)


def _about_entry(digest: Digest, it: _Quarantined | _Removed) -> EntryQuarantined | EntryRemoved:
    namespace = Namespace(it.project, it.namespace.kind, it.namespace.id)
    key = parse_key(it.key)
    if isinstance(it, _Quarantined):
        return EntryQuarantined(it.entry_id, namespace, key, digest, it.reason)
    replaced_by = None if it.replaced_by is msgspec.UNSET else it.replaced_by
    return EntryRemoved(it.entry_id, namespace, key, digest, it.line, replaced_by)
