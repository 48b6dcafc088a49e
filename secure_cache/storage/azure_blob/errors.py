"""What the SDK raises, and what it means to us.

Dispatch is by Azure's error code, never by the SDK's class: every 409 is a ResourceExistsError,
and a missing container is a ResourceNotFoundError like a missing blob. Codes:
https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes

A message names the operation, the status, the code and Azure's request id, and never quotes the
SDK's text: it may hold URLs with signatures, and claims of tokens.
"""

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Final

import aiohttp
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    IncompleteReadError,
    ServiceRequestError,
    ServiceRequestTimeoutError,
    ServiceResponseError,
    ServiceResponseTimeoutError,
)

from secure_cache.model.errors import (
    AlreadyExists,
    CorruptObject,
    Misconfigured,
    NotFound,
    SecureCacheError,
    StorageForbidden,
    StorageUnavailable,
    VersionMismatch,
)


class Kind(StrEnum):
    """What happened. The values are the outcomes that metrics count."""

    MISSING = "missing"
    EXISTS = "exists"
    MISMATCH = "version-mismatch"
    UNCHANGED = "unchanged"
    RANGE = "empty-range"
    BLOCKS_LOST = "blocks-lost"
    DAMAGED = "damaged-in-flight"
    IMMUTABLE = "immutable"
    FORBIDDEN = "forbidden"
    MISCONFIGURED = "misconfigured"
    THROTTLED = "throttled"
    UNAVAILABLE = "unavailable"
    TIMEOUT = "timeout"


RETRIED: Final = frozenset({Kind.DAMAGED, Kind.THROTTLED, Kind.UNAVAILABLE, Kind.TIMEOUT})
LOST: Final = frozenset({Kind.UNAVAILABLE, Kind.TIMEOUT, Kind.THROTTLED})

_BY_CODE: Final[Mapping[str, Kind]] = {
    "BlobNotFound": Kind.MISSING,
    "ResourceNotFound": Kind.MISSING,
    "BlobAlreadyExists": Kind.EXISTS,
    "ContainerAlreadyExists": Kind.EXISTS,
    "ConditionNotMet": Kind.MISMATCH,
    "TargetConditionNotMet": Kind.MISMATCH,
    "BlobImmutableDueToPolicy": Kind.IMMUTABLE,
    "BlobImmutableDueToLegalHold": Kind.IMMUTABLE,
    "InvalidBlockList": Kind.BLOCKS_LOST,
    "InvalidBlobOrBlock": Kind.BLOCKS_LOST,
    # Somebody's append or page blob has the name: blocks cannot be staged, the name is taken.
    "InvalidBlobType": Kind.BLOCKS_LOST,
    "InvalidRange": Kind.RANGE,
    "Md5Mismatch": Kind.DAMAGED,
    "Crc64Mismatch": Kind.DAMAGED,
    "ServerBusy": Kind.THROTTLED,
    "OperationTimedOut": Kind.TIMEOUT,
    "InternalError": Kind.UNAVAILABLE,
    # A lease that a stranger holds answers 412, but reading again would not help.
    "LeaseIdMissing": Kind.FORBIDDEN,
    "LeaseIdMismatchWithBlobOperation": Kind.FORBIDDEN,
    "LeaseLost": Kind.FORBIDDEN,
    # A missing container is never a missing blob: all of the cache would look empty.
    "ContainerNotFound": Kind.MISCONFIGURED,
    "ContainerBeingDeleted": Kind.MISCONFIGURED,
    "ContainerDisabled": Kind.MISCONFIGURED,
    "BlobArchived": Kind.MISCONFIGURED,
}

_BY_STATUS: Final[Mapping[int, Kind]] = {
    304: Kind.UNCHANGED,
    408: Kind.UNAVAILABLE,
    412: Kind.MISMATCH,
    429: Kind.THROTTLED,
    503: Kind.THROTTLED,
}

_PUBLIC: Final[Mapping[Kind, type[SecureCacheError]]] = {
    Kind.MISSING: NotFound,
    Kind.EXISTS: AlreadyExists,
    Kind.MISMATCH: VersionMismatch,
    Kind.IMMUTABLE: StorageForbidden,
    Kind.FORBIDDEN: StorageForbidden,
    Kind.MISCONFIGURED: Misconfigured,
    Kind.UNCHANGED: Misconfigured,
    Kind.RANGE: CorruptObject,
}

_HINTS: Final[Mapping[str, str]] = {
    "ContainerNotFound": "the container does not exist: make it, or correct its name",
    "ContainerBeingDeleted": "the container is being deleted",
    "BlobArchived": "the object is in the archive tier: exempt this container from tiering",
    "InvalidHeaderValue": "the storage does not know a header or the API version of this server",
    "UnsupportedHttpVerb": "the endpoint does not look like Blob Storage",
    "AuthenticationFailed": "the key, token or signature is wrong or expired, or this machine's"
    " clock is off by more than 15 minutes",
    "AuthorizationFailure": "the key is wrong, or the account's network rules refuse this machine",
    "AuthorizationPermissionMismatch": "the identity lacks the role for this; new role assignments"
    " take up to ten minutes",
    "InsufficientAccountPermissions": "the identity lacks the role for this",
    "PublicAccessNotPermitted": "the request carried no identity, and the account is not public",
    "NoAuthenticationInformation": "the request carried no identity",
    "KeyBasedAuthenticationNotPermitted": "the account refuses account keys: use an identity",
    "LeaseIdMissing": "somebody holds a lease on the object: break it",
    "BlobImmutableDueToPolicy": "the container's immutability policy refuses it",
    "BlobImmutableDueToLegalHold": "a legal hold refuses it",
}

_TIMEOUTS: Final = (ServiceRequestTimeoutError, ServiceResponseTimeoutError, TimeoutError)
_CONNECTION: Final = (
    ServiceRequestError,
    ServiceResponseError,
    IncompleteReadError,
    aiohttp.ClientError,
)

_CODE: Final = re.compile(r"[A-Za-z0-9]{1,64}")
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
_ENTRA_CODE: Final = re.compile(r"AADSTS[0-9]{4,9}")


class AzureFault(Exception):
    """One failed request, judged. Stays inside this package: `public` makes it one of our tree.

    Attributes:
        kind: what happened.
        detail: one line of safe words for the operator.
        retry_after: seconds that the storage asked us to wait, or None.
    """

    def __init__(self, kind: Kind, detail: str, *, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.retry_after = retry_after

    def public(self, operation: str, name: str, *, write: bool = False) -> SecureCacheError:
        """The error of our tree.

        `BlobImmutableDueToPolicy` becomes StorageForbidden (a create has asked before whether
        the object is there, and said AlreadyExists): the storage will never do it, whoever asks
        and however often, so it is neither a race lost nor an outage.
        """
        message = f"{operation} {name}: {self.detail}"
        error_type = _PUBLIC.get(self.kind)
        if error_type is not None:
            return error_type(message)
        error = StorageUnavailable(message)
        # A connection that failed says nothing of what the storage did with the request.
        certain = not write or self.kind in {Kind.DAMAGED, Kind.BLOCKS_LOST}
        error.applied = False if certain else None
        return error


def fault_of(error: BaseException, now: float) -> AzureFault:
    """Judge what the SDK raised.

    Args:
        error: what it raised; cancellation is not among it.
        now: seconds since 1970, for `Retry-After` dates.
    """
    if isinstance(error, AzureFault):
        return error
    if isinstance(error, HttpResponseError):
        if error.status_code is not None:
            return _of_identity(error) or _of_answer(error, now)
        return _of_no_answer(error, now)
    if isinstance(error, _TIMEOUTS):
        return AzureFault(Kind.TIMEOUT, f"no answer in time ({type(error).__name__})")
    if isinstance(error, _CONNECTION):
        return AzureFault(Kind.UNAVAILABLE, f"no connection or a broken one ({_root(error)})")
    return _of_refusal(error, now)


def _of_no_answer(error: HttpResponseError, now: float) -> AzureFault:
    """What the SDK raises as an answer that it never got."""
    if isinstance(error, ClientAuthenticationError):
        return _no_token(error)
    # A body that broke off.
    inner = error.inner_exception
    return AzureFault(Kind.UNAVAILABLE, "broken answer") if inner is None else fault_of(inner, now)


def _of_refusal(error: BaseException, now: float) -> AzureFault:
    """What failed before there was any request, or in reading the answer's error."""
    if isinstance(error, AzureError | ValueError):
        return AzureFault(Kind.MISCONFIGURED, f"the SDK refused to ask ({type(error).__name__})")
    if isinstance(error, OSError) and error.filename is not None:
        return AzureFault(
            Kind.FORBIDDEN,
            "no token could be got for the server's identity:"
            f" {error.filename!a} cannot be read ({error.strerror})",
        )
    below = error.__context__
    while below is not None and not isinstance(below, HttpResponseError):
        below = below.__context__
    if below is not None:
        # The SDK stumbled over its own report of it: an error without a message, for one.
        return fault_of(below, now)
    return AzureFault(Kind.UNAVAILABLE, f"the SDK failed ({type(error).__name__})")


def _of_identity(error: HttpResponseError) -> AzureFault | None:
    """A refusal by the token service, which the SDK raises like one by the storage."""
    headers: Mapping[str, str] = getattr(error.response, "headers", None) or {}
    ours = "x-ms-version" in headers or "x-ms-error-code" in headers
    return None if ours or not isinstance(error, ClientAuthenticationError) else _no_token(error)


def _no_token(error: ClientAuthenticationError) -> AzureFault:
    entra = _ENTRA_CODE.search(str(error))
    why = entra.group() if entra else type(error).__name__
    return AzureFault(Kind.FORBIDDEN, f"no token could be got for the server's identity: {why}")


def _of_answer(error: HttpResponseError, now: float) -> AzureFault:
    status = error.status_code or 0
    headers: Mapping[str, str] = getattr(error.response, "headers", None) or {}
    code = _code_of(error, headers)
    asked = _REQUEST_ID.fullmatch(headers.get("x-ms-request-id", ""))
    detail = " ".join(
        filter(None, [str(status), code, f"(request {asked.group()})" if asked else ""])
    )
    hint = _HINTS.get(code)
    if hint is not None:
        detail += f": {hint}"
    # 304 has the code ConditionNotMet as 412 has.
    named = None if status == 304 else _BY_CODE.get(code)
    kind = named or _by_status(error, status)
    if kind is Kind.MISCONFIGURED and status == 404 and not code:
        detail += ": not an answer of Blob Storage: is the endpoint right?"
    retry_after = _retry_after(headers, now) if kind in RETRIED else None
    return AzureFault(kind, detail, retry_after=retry_after)


def _code_of(error: HttpResponseError, headers: Mapping[str, str]) -> str:
    code = getattr(error, "error_code", None) or headers.get("x-ms-error-code") or ""
    text = str(getattr(code, "value", code))
    return text if _CODE.fullmatch(text) else ""


def _by_status(error: HttpResponseError, status: int) -> Kind:
    if status in {304, 408, 412, 429, 503}:
        return _BY_STATUS[status]
    if isinstance(error, ClientAuthenticationError) or status in {401, 403}:
        return Kind.FORBIDDEN
    if 400 <= status < 500:
        # 404 without a code too: Blob Storage says what is missing, a stranger's server does not.
        return Kind.MISCONFIGURED
    return Kind.UNAVAILABLE


def _retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds or an HTTP date (RFC 9110, 10.2.3); anything else is ignored."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def _root(error: BaseException) -> str:
    """The name of the innermost class: ClientConnectorDNSError says more than its wrapper."""
    inner = getattr(error, "inner_exception", None)
    return type(inner if isinstance(inner, BaseException) else error).__name__
