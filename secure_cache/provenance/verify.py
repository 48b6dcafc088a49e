"""From bytes that anybody may have written to a statement that one of our keys signed.

Each function is numbered steps; the first that fails raises CorruptObject and says which.
What is not decided here: whether the writer is still trusted (`Policy.hides`), and whether the
artifact's bytes match (`core.get`).
"""

from dataclasses import dataclass
from typing import TypeAlias

from secure_cache.model.digest import Digest
from secure_cache.model.entry import Entry
from secure_cache.model.errors import CorruptObject
from secure_cache.model.names import Key, Namespace
from secure_cache.model.strict_json import load_strict_object
from secure_cache.provenance.dsse import MAX_ENVELOPE_BYTES, Envelope
from secure_cache.provenance.event import Event
from secure_cache.provenance.event_statement import EVENT_PREDICATE, parse_event
from secure_cache.provenance.keys import KeyRing, PublicKey
from secure_cache.provenance.statement import ENTRY_PREDICATE, chunk_count, parse_statement


@dataclass(frozen=True, slots=True)
class VerifiedEntry:
    """An entry that a key of the ring signed in its time.

    Attributes:
        entry: what is stated.
        keyid: by which key.
        envelope: the exact bytes; they are the leaf of the log.
    """

    entry: Entry
    keyid: str
    envelope: bytes


@dataclass(frozen=True, slots=True)
class VerifiedEvent:
    """An event that a key of the ring signed in its time; as `VerifiedEntry`."""

    event: Event
    keyid: str
    envelope: bytes


VerifiedStatement: TypeAlias = VerifiedEntry | VerifiedEvent


def verify_statement(envelope: bytes, ring: KeyRing) -> VerifiedStatement:
    """Prove one leaf of the log, whatever it states.

    Raises:
        CorruptObject: any step fails.
    """
    payload, key = _signed_payload(envelope, ring)
    kind = _predicate_type(payload)
    if kind == ENTRY_PREDICATE:
        return _entry_of(payload, key, envelope)
    if kind == EVENT_PREDICATE:
        return _event_of(payload, key, envelope)
    raise CorruptObject("a signed statement of a type that this version does not know")


def verify_entry(
    envelope: bytes, ring: KeyRing, *, namespace: Namespace, key: Key
) -> VerifiedEntry:
    """Prove that `envelope` states the entry under this very namespace and key.

    The artifact's name is made from the entry's own id and time (`layout.artifact`), so a record
    cannot be pointed at another object.

    Raises:
        CorruptObject: any step fails.
    """
    # 1-4. signed by us, in time, and an entry: a signed event is none
    verified = _entry_of(*_signed_payload(envelope, ring), envelope)
    # 5. for this project and namespace: a record copied to another place stays worthless
    if verified.entry.namespace != namespace:
        raise CorruptObject("the entry was signed for another namespace")
    # 6. and for this key
    if verified.entry.key != key:
        raise CorruptObject("the entry was signed for another key")
    return verified


def verify_event(envelope: bytes, ring: KeyRing) -> VerifiedEvent:
    """Prove that `envelope` states an event.

    Raises:
        CorruptObject: any step fails, or it states an entry.
    """
    return _event_of(*_signed_payload(envelope, ring), envelope)


def check_chunk_list(entry: Entry, chunks: bytes) -> None:
    """Check the concatenated raw chunk digests of an artifact against its proved entry.

    Args:
        entry: proved.
        chunks: 32 bytes a chunk; empty for an artifact of up to one chunk.

    Raises:
        CorruptObject: too many, too few, or not those that were signed.
    """
    if len(chunks) != 32 * chunk_count(entry.size):
        raise CorruptObject("the chunk list does not fit the artifact's size")
    if entry.chunk_list_digest is None:
        return
    if Digest.of(chunks) != entry.chunk_list_digest:
        raise CorruptObject("the chunk list is not the one that was signed")


def _signed_payload(envelope: bytes, ring: KeyRing) -> tuple[bytes, PublicKey]:
    # 1. the one spelling of an envelope with exactly one signature
    parsed = Envelope.decode(envelope)
    # 2. a key that we know and have not revoked signed these very bytes, as such a statement
    key = ring.verify(parsed.unverified_keyid, parsed.pae(), parsed.signature)
    return parsed.unverified_payload, key


def _entry_of(payload: bytes, key: PublicKey, envelope: bytes) -> VerifiedEntry:
    # 3. an entry, in its one spelling
    entry = parse_statement(payload)
    # 4. the key was in its time when the statement says that it was made
    key.require_valid_at(entry.stored_at)
    return VerifiedEntry(entry, key.keyid, envelope)


def _event_of(payload: bytes, key: PublicKey, envelope: bytes) -> VerifiedEvent:
    event = parse_event(payload)
    key.require_valid_at(event.at)
    return VerifiedEvent(event, key.keyid, envelope)


def _predicate_type(payload: bytes) -> object:
    try:
        return load_strict_object(payload, max_bytes=MAX_ENVELOPE_BYTES).get("predicateType")
    except ValueError as error:
        raise CorruptObject(f"the statement is not well formed: {error}") from None
