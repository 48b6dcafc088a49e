"""The entry as an in-toto Statement: our predicate `cache-entry/v1`.

Specification: in-toto Statement v1, and `docs/provenance.md` for the predicate. A payload is
RFC 8785 (JCS); `parse_statement` accepts exactly what `build_statement` gives. Version 1 is
closed: a member that this reader does not know could narrow what the statement claims, so it is
refused, and a new member means a new predicate type.
"""

import re
from typing import Any, Final, Literal

import msgspec
import rfc8785

from secure_cache.model.clock import parse_rfc3339, rfc3339
from secure_cache.model.digest import Digest
from secure_cache.model.entry import CHUNK_BYTES, Entry
from secure_cache.model.errors import CorruptObject, Malformed
from secure_cache.model.identity_json import identity_document, parse_identity
from secure_cache.model.names import Key, Namespace, parse_key
from secure_cache.model.strict_json import load_strict_object
from secure_cache.model.tiers import Tier
from secure_cache.provenance.dsse import MAX_ENVELOPE_BYTES, Envelope
from secure_cache.provenance.keys import Signer

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
ENTRY_PREDICATE: Final = "https://secure-cache.dev/attestations/cache-entry/v1"
MAX_SAFE_INTEGER = 2**53 - 1
"""JSON readers agree on integers up to here."""

MAX_RULE_CHARACTERS = 2048
"""More than a policy allows: an entry that a rule granted can always be stated."""
MAX_SERVER_CHARACTERS = 128

_ENTRY_ID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


class Sha256(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An in-toto DigestSet with the one algorithm we use."""

    sha256: str


class Subject(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a statement is about."""

    name: str
    digest: Sha256


class NamespaceDocument(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A namespace without its project."""

    kind: str
    id: str


class _Chunks(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"
):
    size_bytes: int
    list_sha256: str


class _Predicate(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"
):
    entry_id: str
    project: str
    namespace: NamespaceDocument
    key: str
    tier: str
    size_bytes: int
    stored_at: str
    writer: dict[str, Any]
    rule: str
    policy_sha256: str
    epoch: int
    server: str
    chunks: _Chunks | msgspec.UnsetType = msgspec.UNSET


class _Statement(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"
):
    type_: Literal["https://in-toto.io/Statement/v1"] = msgspec.field(name="_type")
    subject: tuple[Subject]
    predicate_type: Literal["https://secure-cache.dev/attestations/cache-entry/v1"]
    predicate: _Predicate


def subject_name(namespace: Namespace, key: Key) -> str:
    """`project:kind/id/key`. A key has no slash, so the last one parts it from the id."""
    return f"{namespace}/{key}"


def build_statement(entry: Entry) -> bytes:
    """The payload that states `entry`.

    Raises:
        Malformed: the entry cannot be stated: a value outside its grammar or limits, or claims
            that no JSON document can hold.
    """
    try:
        _check(entry)
        return rfc8785.dumps(msgspec.to_builtins(_document(entry)))
    except ValueError as error:
        raise Malformed(f"the entry cannot be stated: {error}") from error


def parse_statement(payload: bytes) -> Entry:
    """Read a payload back. Call it on proved bytes only.

    Raises:
        CorruptObject: anything but what `build_statement` gives.
    """
    try:
        document = load_strict_object(payload, max_bytes=MAX_ENVELOPE_BYTES)
        entry = _entry(msgspec.convert(document, _Statement))
        canonical = build_statement(entry)
    except (ValueError, Malformed) as error:
        raise CorruptObject(f"the statement is not well formed: {error}") from error
    # Also refuses what stands twice in a statement (subject and predicate) and does not agree.
    if canonical != payload:
        raise CorruptObject("the statement is not in its canonical form, or contradicts itself")
    return entry


async def sign_entry(entry: Entry, signer: Signer) -> bytes:
    """State and sign `entry`: the envelope's bytes, which are the leaf of the log.

    Raises:
        Malformed: as `build_statement`, or the envelope would be too large for the log.
        Unavailable: the signer could not be reached.
    """
    return await sign_payload(build_statement(entry), signer)


async def sign_payload(payload: bytes, signer: Signer) -> bytes:
    """Sign any statement's payload. Raises as `sign_entry`."""
    unsigned = Envelope(payload, signer.keyid, b"")
    return Envelope(payload, signer.keyid, await signer.sign(unsigned.pae())).encode()


def chunk_count(size: int) -> int:
    """How many chunk digests an artifact of `size` bytes carries: none up to `CHUNK_BYTES`."""
    return -(-size // CHUNK_BYTES) if size > CHUNK_BYTES else 0


def check_entry_id(text: str) -> str:
    """Check a ULID and give it back.

    Raises:
        ValueError: not 26 characters of upper-case Crockford base 32 below 2^128.
    """
    if _ENTRY_ID.fullmatch(text) is None:
        raise ValueError("an entry id is an upper-case ULID")
    return text


def check_line(text: str, *, what: str, max_characters: int) -> str:
    """Check one line of printable text and give it back.

    Raises:
        ValueError: empty, too long, or with control characters.
    """
    if not 0 < len(text) <= max_characters or not text.isprintable():
        raise ValueError(f"{what} is one printable line of 1 to {max_characters} characters")
    return text


def _check(entry: Entry) -> None:
    check_entry_id(entry.entry_id)
    parse_key(entry.key)
    if not 0 <= entry.size <= MAX_SAFE_INTEGER or not 0 <= entry.epoch <= MAX_SAFE_INTEGER:
        raise ValueError("a size or an epoch is not between 0 and 2^53 - 1")
    if (entry.chunk_list_digest is None) != (chunk_count(entry.size) == 0):
        raise ValueError("chunk digests are there for larger artifacts, and for those only")
    Digest.parse(entry.policy_sha256)
    if not 0 < len(entry.rule) <= MAX_RULE_CHARACTERS:
        raise ValueError(f"a rule's name has 1 to {MAX_RULE_CHARACTERS} characters")
    check_line(entry.server, what="the server's name", max_characters=MAX_SERVER_CHARACTERS)


def _document(entry: Entry) -> _Statement:
    chunks: _Chunks | msgspec.UnsetType = msgspec.UNSET
    if entry.chunk_list_digest is not None:
        chunks = _Chunks(size_bytes=CHUNK_BYTES, list_sha256=str(entry.chunk_list_digest))
    return _Statement(
        type_=STATEMENT_TYPE,
        subject=(
            Subject(
                name=subject_name(entry.namespace, entry.key),
                digest=Sha256(sha256=str(entry.digest)),
            ),
        ),
        predicate_type=ENTRY_PREDICATE,
        predicate=_Predicate(
            entry_id=entry.entry_id,
            project=entry.namespace.project,
            namespace=NamespaceDocument(kind=entry.namespace.kind, id=entry.namespace.id),
            key=entry.key,
            tier=str(entry.tier),
            size_bytes=entry.size,
            stored_at=rfc3339(entry.stored_at),
            writer=identity_document(entry.writer),
            rule=entry.rule,
            policy_sha256=entry.policy_sha256,
            epoch=entry.epoch,
            server=entry.server,
            chunks=chunks,
        ),
    )


def _entry(statement: _Statement) -> Entry:
    it = statement.predicate
    chunk_list = None if it.chunks is msgspec.UNSET else Digest.parse(it.chunks.list_sha256)
    return Entry(
        entry_id=it.entry_id,
        namespace=Namespace(it.project, it.namespace.kind, it.namespace.id),
        key=parse_key(it.key),
        tier=Tier.parse(it.tier),
        digest=Digest.parse(statement.subject[0].digest.sha256),
        size=it.size_bytes,
        chunk_list_digest=chunk_list,
        stored_at=parse_rfc3339(it.stored_at),
        writer=parse_identity(it.writer),
        rule=it.rule,
        policy_sha256=it.policy_sha256,
        epoch=it.epoch,
        server=it.server,
    )
