"""`iat`, `nbf` and `exp`: typed, in range, and not too far apart (RFC 7519 section 4.1)."""

from collections.abc import Mapping
from dataclasses import dataclass

from secure_cache.model.clock import LEEWAY_SECONDS
from secure_cache.model.errors import InvalidToken, TokenProblem
from secure_cache.model.strict_json import JsonValue

_LATEST = 253_402_300_799
"""The end of the year 9999, the last that RFC 3339 can write."""


@dataclass(frozen=True, slots=True)
class Times:
    """When a token was made, and until when it counts, in whole seconds since 1970.

    Attributes:
        issued_at: `iat`.
        expires_at: `exp`, or earlier where the issuer's maximal age ends before it.
    """

    issued_at: int
    expires_at: int

    def is_over(self, now: float) -> bool:
        return now > self.expires_at + LEEWAY_SECONDS


def check_times(
    claims: Mapping[str, JsonValue],
    *,
    now: float,
    max_lifetime_seconds: int,
    max_age_seconds: int,
) -> Times:
    """Check all but whether the token has expired: `Times.is_over` tells.

    Raises:
        InvalidToken: missing, not a finite number (a string or boolean is none), outside the
            years that we can write, from the future, or a longer life than the issuer may give.
    """
    issued_at, expires_at = _seconds(claims, "iat"), _seconds(claims, "exp")
    not_before = _seconds(claims, "nbf") if "nbf" in claims else issued_at
    if issued_at > now + LEEWAY_SECONDS or not_before > now + LEEWAY_SECONDS:
        raise InvalidToken("iat or nbf is in the future", TokenProblem.TIMES)
    if not 0 < expires_at - issued_at <= max_lifetime_seconds:
        raise InvalidToken("exp is too far from iat, or before it", TokenProblem.TIMES)
    return Times(int(issued_at), int(min(expires_at, issued_at + max_age_seconds)))


def _seconds(claims: Mapping[str, JsonValue], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidToken(f"{name} is missing or not a number", TokenProblem.TIMES)
    if not 0 <= value <= _LATEST:
        raise InvalidToken(f"{name} is out of range", TokenProblem.TIMES)
    return value
