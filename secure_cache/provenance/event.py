"""What the operator and the server itself did, as values; `event_statement` writes them.

Without these an auditor sees what was stored, but not under which policy and keys, nor what was
taken away again.
"""

from dataclasses import dataclass
from typing import Self, TypeAlias

from secure_cache.model.digest import Digest
from secure_cache.model.entry import Entry
from secure_cache.model.names import Key, Namespace


@dataclass(frozen=True, slots=True)
class LogOpened:
    """The first leaf of a log.

    Attributes:
        origin: the log's name in its checkpoints.
        vkey: the log's own verifier key (C2SP signed-note).
    """

    origin: str
    vkey: str


@dataclass(frozen=True, slots=True)
class PolicyTookEffect:
    """From here on this policy decides.

    Attributes:
        sha256: of the policy file's bytes.
        number: 1 for the first policy of this log, then one more each time.
        previous: the policy before; None for the first.
    """

    sha256: Digest
    number: int
    previous: Digest | None


@dataclass(frozen=True, slots=True)
class KeysChanged:
    """From here on this key ring verifies entries. Key ids are hex and sorted.

    Attributes:
        ring: SHA-256 of the ring's document (`KeyRing.encode`).
        added: keys that were not in the ring before.
        retired: keys that stopped signing.
        revoked: keys that prove nothing any more.
    """

    ring: Digest
    added: tuple[str, ...] = ()
    retired: tuple[str, ...] = ()
    revoked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EntryQuarantined:
    """The server stopped serving an entry because stored bytes failed verification.

    Attributes:
        entry_id: of the entry.
        namespace: where it stands.
        key: where it stands.
        digest: SHA-256 of the artifact that the entry states.
        reason: one line.
    """

    entry_id: str
    namespace: Namespace
    key: Key
    digest: Digest
    reason: str

    @classmethod
    def of(cls, entry: Entry, *, reason: str) -> Self:
        return cls(entry.entry_id, entry.namespace, entry.key, entry.digest, reason)


@dataclass(frozen=True, slots=True)
class EntryRemoved:
    """An entry can no longer be read under its key.

    Attributes:
        entry_id: of the entry that went.
        namespace: where it stood.
        key: where it stood.
        digest: SHA-256 of the artifact that it stated.
        line: what decided it, such as `revocation <id>` or `retention`.
        replaced_by: the id of the entry that stands there now; None when nothing does.
    """

    entry_id: str
    namespace: Namespace
    key: Key
    digest: Digest
    line: str
    replaced_by: str | None = None

    @classmethod
    def of(cls, entry: Entry, *, line: str, replaced_by: str | None = None) -> Self:
        return cls(entry.entry_id, entry.namespace, entry.key, entry.digest, line, replaced_by)


Happening: TypeAlias = LogOpened | PolicyTookEffect | KeysChanged | EntryQuarantined | EntryRemoved


@dataclass(frozen=True, slots=True)
class Event:
    """One event of the log.

    Attributes:
        what: what happened.
        at: when, whole seconds since 1970.
        server: name and version of the server that signed.
    """

    what: Happening
    at: int
    server: str
