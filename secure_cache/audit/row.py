"""One row of the index: what an auditor looks for in one entry of the log, flattened.

A row says nothing that its leaf does not say. `seal` binds its columns to one another and to the
leaf's hash, so that a row which was changed by hand, or by a failing disk, is noticed when it is
shown. It is no signature: whoever rewrites seals too is noticed where the leaf itself is read.
"""

import hashlib
from typing import NamedTuple, Self

import msgspec

from secure_cache.model.errors import DamagedIndex

STORED = "stored"
UNREADABLE = "unreadable"
EVENTS = (STORED, "opened", "policy", "keys", "quarantined", "removed", UNREADABLE)
"""What an entry of the log can be: an artifact that was stored, one of the log's own events, or
a leaf that is no statement of ours."""


class Row(NamedTuple):
    """See the module. Texts are exactly those of the statement; None is what it does not say.

    A tuple, because that is what SQLite takes and gives.

    Attributes:
        number: the entry's index in the log.
        leaf: its RFC 6962 leaf hash.
        event: one of `EVENTS`.
        at: when, by the server's clock, seconds since 1970.
        namespace: `project:kind/id`.
        kind: of the namespace.
        digest: SHA-256 (hex) that the statement is about: of the artifact, policy or key ring.
        size: of the artifact, in bytes.
        issuer: the issuer's name in the policy of then.
        iss: the issuer's `iss`.
        repository_id: the claim `repository_id` or `project_id`.
        repository: the claim `repository` or `project_path`.
        run_id: the claim `run_id` or `pipeline_id`.
        commit: the claim `sha` or `commit`.
        actor_id: the claim `actor_id` or `user_id`.
        actor: the claim `actor`.
        policy_sha256: the policy that allowed it; for a policy's own event that policy.
        jti_sha256: names the token.
        tid: the family of tokens of this server.
        keyid: who is said to have signed; nothing is verified here.
        detail: more of an event, as a JSON object.
    """

    number: int
    leaf: bytes
    event: str
    at: int | None = None
    project: str | None = None
    namespace: str | None = None
    kind: str | None = None
    tier: str | None = None
    key: str | None = None
    digest: str | None = None
    size: int | None = None
    entry_id: str | None = None
    issuer: str | None = None
    iss: str | None = None
    subject: str | None = None
    repository_id: str | None = None
    repository: str | None = None
    run_id: str | None = None
    commit: str | None = None
    actor_id: str | None = None
    actor: str | None = None
    rule: str | None = None
    policy_sha256: str | None = None
    jti_sha256: str | None = None
    tid: str | None = None
    epoch: int | None = None
    server: str | None = None
    keyid: str | None = None
    detail: str | None = None

    def sealed(self) -> tuple[object, ...]:
        """As it is stored: the columns in their order, and the seal."""
        return (*self, _seal(self))

    @classmethod
    def unseal(cls, stored: tuple[object, ...]) -> Self:
        """The inverse of `sealed`.

        Raises:
            DamagedIndex: it is not what was stored.
        """
        values = stored[:-1]
        if len(stored) != len(COLUMNS) + 1 or _seal(values) != stored[-1]:
            raise DamagedIndex(f"the row of entry {stored[0]!r} was changed after it was made")
        return cls._make(values)


COLUMNS = Row._fields

_ENCODER = msgspec.msgpack.Encoder()


def _seal(values: tuple[object, ...]) -> bytes:
    try:
        return hashlib.sha256(_ENCODER.encode(values)).digest()
    except (ValueError, TypeError, OverflowError) as error:
        raise DamagedIndex("a row holds what no row can hold") from error
