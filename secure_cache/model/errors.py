"""Every error of the project, in one tree, branched by whose fault it is.

    SecureCacheError
    ├── Refused                 the caller's: the request may not or can not be done
    │   ├── InvalidToken        malformed, unknown issuer, bad signature, wrong audience: 401
    │   ├── ExpiredToken        correctly signed, but past its time
    │   ├── ReplayedToken       a single-use token that was used before
    │   ├── Denied              the policy grants nothing here
    │   ├── Revoked             the policy took back what it granted
    │   ├── Malformed           a key, path, header or body that is not well formed
    │   │   └── WrongFilter     an auditor's question that cannot be asked so
    │   ├── TooLarge            over a size limit
    │   ├── TooSlow             over a deadline, or under the minimum rate
    │   ├── DigestMismatch      the bytes are not those that were promised
    │   ├── NotFound            nothing there that this caller may see
    │   ├── AlreadyExists       create-if-absent found something
    │   └── VersionMismatch     compare-and-swap found another version
    ├── Unavailable             the world's: try again later
    │   ├── Overloaded          a limit of our own: open requests, pending entries
    │   ├── StorageUnavailable  the store did not answer, or said that it can not now
    │   └── NoQuorum            too few witnesses have cosigned what the log wants to publish
    ├── Broken                  ours or a tamperer's: fail closed and alarm
    │   ├── CorruptObject       stored bytes do not verify
    │   │   └── DamagedIndex    the audit index is not what was written; the log is not touched
    │   ├── LogInconsistent     the log's stored state contradicts itself or its signatures
    │   │   └── HistoryChanged  two signed checkpoints of a log that do not follow each other
    │   └── StorageForbidden    the store refused our identity; never read as "missing"
    └── Misconfigured           the operator's: say which setting, and what to do
        ├── InvalidPolicy       the policy file has errors; carries the findings
        └── NoAuditIndex        this server keeps none

A client is sent `code` and `title` only, never `str(error)`: the text may hold paths or claims.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Self


class SecureCacheError(Exception):
    """The root. `code` is stable and machine-readable, `title` is one fixed line for a person."""

    code: ClassVar[str] = "error"
    title: ClassVar[str] = "the request failed"


@dataclass(frozen=True, slots=True)
class Proved:
    """What was proved of a caller before it was refused, in the policy's words; for counts."""

    issuer: str
    project: str = ""
    rule: str = ""
    tier: str = ""


class Refused(SecureCacheError):
    """`proved` says who was refused, where that is known and nobody else can say it."""

    code = "refused"
    title = "the request was refused"
    proved: Proved | None = None

    def of(self, proved: Proved | None) -> Self:
        """The same, and who was refused."""
        self.proved = proved
        return self


class TokenProblem(StrEnum):
    """What a caller is told of its invalid token: one of these lines, nothing of the token."""

    GENERAL = "the token is not valid"
    MISSING = "there is no token in the request"
    AUTHORIZATION = "the Authorization header is not one of the form 'Bearer TOKEN'"
    NOT_A_JWT = "the token is not a JWT in compact form"
    HEADER = "the token's header has a field or value that is not accepted here"
    TYPE = "the token is of another type than this server accepts from its issuer"
    UNKNOWN_ISSUER = "the token's issuer is not among the issuers in this server's policy"
    UNKNOWN_KEY = "the token is signed with a key that its issuer does not publish"
    SIGNATURE = "the token's signature is wrong"
    AUDIENCE = "the token is for another audience"
    TIMES = "the token's iat, nbf or exp is missing, in the future or too far apart"
    CLAIMS = "a claim of the token is missing, too long or of the wrong type"
    NOT_EXCHANGEABLE = "only the token of a CI can be exchanged, not one of this server"


class InvalidToken(Refused):
    """The token proves nothing.

    Attributes:
        problem: from a closed set, so that no text of the token comes back.
        expected_audience: ours, when the audience is the problem.
    """

    code = "token-invalid"
    title = "the token is not valid"

    def __init__(
        self,
        message: str = "",
        problem: TokenProblem = TokenProblem.GENERAL,
        *,
        expected_audience: str | None = None,
    ) -> None:
        super().__init__(message or problem.value)
        self.problem = problem
        self.expected_audience = expected_audience

    @property
    def hint(self) -> str:
        """One line for the person who configured the CI job."""
        if self.expected_audience is None:
            return self.problem.value
        return f"{self.problem.value}: ask your CI for one with audience {self.expected_audience}"


class ExpiredToken(Refused):
    code = "token-expired"
    title = "the token has expired: ask for a new one, or for one that outlives the job"


class ReplayedToken(Refused):
    code = "token-replayed"
    title = "the token was already exchanged: each CI token is accepted here once"


class Denied(Refused):
    code = "denied"
    title = "the policy does not allow this: GET /v1/whoami says what it allows"


class Revoked(Refused):
    code = "revoked"
    title = "a revocation in the policy covers this token"


class Malformed(Refused):
    code = "malformed"
    title = "the request is not well formed"


class WrongFilter(Malformed):
    """Says which filter is wrong and what is allowed. Of all errors' texts this one is sent to
    the caller: it holds the caller's own words, made printable, and nothing else."""

    code = "filter-invalid"
    title = "the question cannot be understood"

    @property
    def hint(self) -> str:
        """One line for the auditor."""
        return str(self) or self.title


class TooLarge(Refused):
    code = "too-large"
    title = "the body is larger than this server accepts"


class TooSlow(Refused):
    code = "too-slow"
    title = "the body arrived too slowly"


class DigestMismatch(Refused):
    code = "digest-mismatch"
    title = "the bytes that arrived are not those that were announced"


class NotFound(Refused):
    code = "miss"
    title = "not in the cache"


class AlreadyExists(Refused):
    code = "exists"
    title = "this namespace already has an entry under this key"


class VersionMismatch(Refused):
    code = "version-mismatch"
    title = "the object changed meanwhile"


class Unavailable(SecureCacheError):
    """Try again later.

    `applied` says what is known of a write that failed so: False when it certainly did not
    take effect, None when nobody knows.
    """

    code = "unavailable"
    title = "temporarily unavailable"
    applied: bool | None = False


class Overloaded(Unavailable):
    code = "overloaded"
    title = "too many requests at once"


class StorageUnavailable(Unavailable):
    code = "storage-unavailable"
    title = "the storage did not answer"
    applied: bool | None = None


class NoQuorum(Unavailable):
    code = "no-quorum"
    title = "too few witnesses have cosigned the newest checkpoint"


class Broken(SecureCacheError):
    code = "broken"
    title = "an integrity check failed"


class CorruptObject(Broken):
    code = "corrupt"
    title = "stored bytes failed verification and were not served"


class DamagedIndex(CorruptObject):
    code = "index-damaged"
    title = "the audit index is damaged, the log is not: `secure-cache audit index rebuild`"


class LogInconsistent(Broken):
    code = "log-inconsistent"
    title = "the transparency log failed its self-check"


class HistoryChanged(LogInconsistent):
    """Carries what to keep: the two signed notes, and the proof that they contradict each other,
    None for a log that was only put back."""

    code = "history-changed"
    title = "the transparency log's history was changed"

    def __init__(
        self, text: str, *, older: bytes = b"", newer: bytes = b"", proof: bytes | None = None
    ) -> None:
        super().__init__(text)
        self.older = older
        self.newer = newer
        self.proof = proof


class StorageForbidden(Broken):
    code = "storage-forbidden"
    title = "the storage refused the server's own identity"


class Misconfigured(SecureCacheError):
    code = "misconfigured"
    title = "the server's configuration is not usable"


class InvalidPolicy(Misconfigured):
    """The policy file can not be used.

    `findings` holds what is wrong, one item a finding; `str(finding)` is one line with file,
    line, column, code, what is wrong and how to mend it.
    """

    code = "policy-invalid"
    title = "the policy file has errors"

    def __init__(self, message: str, findings: tuple[object, ...] = ()) -> None:
        super().__init__(message)
        self.findings = findings


class NoAuditIndex(Misconfigured):
    code = "no-audit-index"
    title = "this server keeps no audit index: the setting audit.index says where"
