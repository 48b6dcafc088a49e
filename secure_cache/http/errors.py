"""The one table from errors to HTTP statuses, true and build-safe.

The Nx client fails the user's build on any status but 200 and 404 for a look-up, and 200, 403
and 409 for a store. So by default every other outcome is told as a miss or as "not stored",
with the truth in `X-Secure-Cache-Reason`. The one loud exception is a token that is not valid:
silence there would hide a misconfiguration for months.
"""

from secure_cache.model import errors

REASON_HEADER = b"x-secure-cache-reason"

TRUE_STATUS: dict[type[errors.SecureCacheError], int] = {
    errors.SecureCacheError: 500,
    errors.Refused: 400,
    errors.InvalidToken: 401,
    errors.ExpiredToken: 401,
    errors.ReplayedToken: 401,
    errors.Denied: 403,
    errors.Revoked: 403,
    errors.Malformed: 400,
    errors.WrongFilter: 400,
    errors.TooLarge: 413,
    errors.TooSlow: 408,
    errors.DigestMismatch: 422,
    errors.NotFound: 404,
    errors.AlreadyExists: 409,
    errors.VersionMismatch: 409,
    errors.Unavailable: 503,
    errors.Overloaded: 429,
    errors.StorageUnavailable: 503,
    errors.NoQuorum: 503,
    errors.Broken: 500,
    errors.CorruptObject: 500,
    errors.DamagedIndex: 500,
    errors.LogInconsistent: 500,
    errors.HistoryChanged: 500,
    errors.StorageForbidden: 500,
    errors.Misconfigured: 500,
    errors.InvalidPolicy: 500,
    errors.NoAuditIndex: 501,
}

_LOUD: dict[type[errors.SecureCacheError], int] = {
    errors.InvalidToken: 401,
    errors.AlreadyExists: 409,
}


def true_status(error: errors.SecureCacheError) -> int:
    return TRUE_STATUS[type(error)]


def cache_status(error: errors.SecureCacheError, method: str, *, strict: bool) -> int:
    """The status on the cache's data path.

    Args:
        error: what happened.
        method: of the request.
        strict: tell the true status, for clients that bear it. A denied or damaged look-up is
            a miss even then: a caller may not learn what it may not read.
    """
    reading = method != "PUT"
    if reading and isinstance(error, errors.Denied | errors.CorruptObject | errors.NotFound):
        return 404
    if strict:
        return true_status(error)
    loud = _LOUD.get(type(error))
    if loud is not None and (loud == 401 or not reading):
        return loud
    return 404 if reading else 403
