"""Who speaks: the claims of a token after its verification, and what they say about a job.

An `Identity` is made from verified claims only. It holds no grant: the policy decides anew at
each request, and decides again about the writer when an entry is read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

ClaimValue: TypeAlias = "str | bool | int | float | tuple[ClaimValue, ...] | None"
"""A claim as it stood in the token; a list becomes a tuple, an object is dropped."""


class ContextKind(StrEnum):
    """What kind of job a token speaks for, after a preset has read its claims."""

    BRANCH = "branch"
    PULL_REQUEST = "pull_request"
    MERGE_QUEUE = "merge_queue"
    TAG = "tag"
    ROLE = "role"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Context:
    """A job, normalised by a preset.

    Attributes:
        kind: what kind of job.
        name: what the policy's `when:` compares: the branch, the number of the pull request,
            the base branch of the queue, the tag, the role, or the event for `other`.
        namespace_kind: first part of the job's own namespace, such as `branch`, `pr`, `mr`.
        namespace_id: its second part; empty when such a job owns none (a role).
        base: the branch that a pull request or queue is to be merged into.
        trustable: the event that started the job runs code of the branch itself. Only then
            may a `trusted` rule match.
    """

    kind: ContextKind
    name: str
    namespace_kind: str = ""
    namespace_id: str = ""
    base: str | None = None
    trustable: bool = False


@dataclass(frozen=True, slots=True)
class Identity:
    """Verified and normalised claims.

    Attributes:
        issuer: the issuer's name in the policy file, such as `gha`.
        iss: the issuer's exact `iss`.
        subject: `sub`, for people to read; no decision parses it.
        claims: the claims that the issuer's preset knows, sorted by name.
        token_id: SHA-256, hex, of `jti`, else of the token's signing input.
        family: `tid`, the family of tokens of this server that one grant gave rise to.
        issued_at: seconds since 1970.
        expires_at: seconds since 1970.
    """

    issuer: str
    iss: str
    subject: str
    claims: tuple[tuple[str, ClaimValue], ...]
    token_id: str = field(compare=False)
    family: str | None = None
    issued_at: int = field(default=0, compare=False)
    expires_at: int = field(default=0, compare=False)

    @property
    def claim_map(self) -> Mapping[str, ClaimValue]:
        return dict(self.claims)
