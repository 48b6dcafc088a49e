"""The entry: what the server states about one artifact, in values.

`provenance` writes it as a signed in-toto Statement and reads it back; `policy` judges it at
read time.
"""

from dataclasses import dataclass

from secure_cache.model.digest import Digest
from secure_cache.model.identity import Identity
from secure_cache.model.names import Key, Namespace
from secure_cache.model.tiers import Tier

CHUNK_BYTES = 4 * 1024 * 1024
"""Artifacts above this size carry a SHA-256 per chunk of this size (the last may be shorter)."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored artifact: what, under which name, by whom, under which policy.

    Attributes:
        entry_id: a ULID, upper case, 26 characters; also names the stored artifact.
        namespace: the writer's own namespace.
        key: the build tool's cache key.
        tier: the tier that the policy gave the writer when it wrote.
        digest: SHA-256 of the whole artifact.
        size: its bytes.
        chunk_list_digest: SHA-256 over the concatenated raw chunk digests; None up to
            `CHUNK_BYTES`.
        stored_at: whole seconds since 1970.
        writer: the identity that wrote it.
        rule: the name of the policy rule that allowed it.
        policy_sha256: hex SHA-256 of the policy file then in force.
        epoch: the namespace's epoch in that policy.
        server: name and version of the server that signed.
    """

    entry_id: str
    namespace: Namespace
    key: Key
    tier: Tier
    digest: Digest
    size: int
    chunk_list_digest: Digest | None
    stored_at: int
    writer: Identity
    rule: str
    policy_sha256: str
    epoch: int
    server: str
