"""Every error of the project, in one tree, branched by whose fault it is.

    SecureCacheError
    ├── Refused                 the caller's: the request may not or can not be done
    │   ├── InvalidToken        malformed, unknown issuer, bad signature, wrong audience: 401
    │   ├── ExpiredToken        correctly signed, but past its time
    │   ├── ReplayedToken       a single-use token that was used before
    │   ├── Denied              the policy grants nothing here
    │   ├── Revoked             the policy took back what it granted
    │   ├── Malformed           a key, path, header or body that is not well formed
    │   ├── TooLarge            over a size limit
    │   ├── TooSlow             over a deadline, or under the minimum rate
    │   ├── DigestMismatch      the bytes are not those that were promised
    │   ├── NotFound            nothing there that this caller may see
    │   ├── AlreadyExists       create-if-absent found something
    │   └── VersionMismatch     compare-and-swap found another version
    ├── Unavailable             the world's: try again later
    │   ├── Overloaded          a limit of our own: open requests, pending entries
    │   └── StorageUnavailable  the store did not answer, or said that it can not now
    ├── Broken                  ours or a tamperer's: fail closed and alarm
    │   ├── CorruptObject       stored bytes do not verify
    │   ├── LogInconsistent     the log's stored state contradicts itself or its signatures
    │   └── StorageForbidden    the store refused our identity; never read as "missing"
    └── Misconfigured           the operator's: say which setting, and what to do
        └── InvalidPolicy       the policy file has errors; carries the findings

A client is sent `code` and `title` only, never `str(error)`: the text may hold paths or claims.
"""

from typing import ClassVar


class SecureCacheError(Exception):
    """The root. `code` is stable and machine-readable, `title` is one fixed line for a person."""

    code: ClassVar[str] = "error"
    title: ClassVar[str] = "the request failed"


class Refused(SecureCacheError):
    code = "refused"
    title = "the request was refused"


class InvalidToken(Refused):
    code = "token-invalid"
    title = "the token is not valid"


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
    applied = None


class Broken(SecureCacheError):
    code = "broken"
    title = "an integrity check failed"


class CorruptObject(Broken):
    code = "corrupt"
    title = "stored bytes failed verification and were not served"


class LogInconsistent(Broken):
    code = "log-inconsistent"
    title = "the transparency log failed its self-check"


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
