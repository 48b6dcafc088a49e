"""Who was refused, counted by the hour: for the auditor's timeline, which the log cannot fill.

What is refused is not logged: whoever is refused could fill the log with it. So each process
counts, in memory and within bounds, and keeps its counts in the `state` store now and then
(`denial_records`). They are counts and no evidence: nobody signs them, and those of the last
minute of a process that is killed are lost (ADR 0027).

Every text in them is the policy's or ours. Of a caller whose token proves nothing, and of one that
has none, only that is counted: a label that a stranger can choose is a memory that a stranger can
fill, and a text that an auditor would believe.
"""

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from secure_cache.core.access import Caller, proved_of
from secure_cache.model.clock import Clock
from secure_cache.model.errors import (
    Denied,
    ExpiredToken,
    InvalidToken,
    Refused,
    ReplayedToken,
    Revoked,
    SecureCacheError,
    TokenProblem,
)

KNOWN, ANONYMOUS, UNPROVED, OTHER = "known", "anonymous", "unproved", "other"
"""Who was refused: an identity that was proved; nobody; a token that proves nothing; and those
beyond what is told apart."""

METHODS = ("GET", "PUT", "token", "audit", "log", "other")
HOUR_SECONDS = 3600
MAX_KINDS = 512
"""So many kinds of refusals are told apart in one hour of one process."""

_MAX_HOURS = 48
"""So many hours are held while the store does not take them."""

_COUNTED = (Denied, InvalidToken, ExpiredToken, ReplayedToken, Revoked)


class Denial(NamedTuple):
    """What is counted together. Texts are the policy's; empty where nothing is proved.

    Attributes:
        method: one of `METHODS`; a HEAD counts as a GET.
        code: the error's.
        who: `known`, `anonymous`, `unproved` or `other`.
        issuer: the issuer's name in the policy.
        project: of the caller's decision.
        rule: that matched, and granted something else.
        tier: of the decision.
    """

    method: str
    code: str
    who: str
    issuer: str = ""
    project: str = ""
    rule: str = ""
    tier: str = ""


class CountsDenials(Protocol):
    """Is told of every refusal; never raises, never waits."""

    def count(self, method: str, error: SecureCacheError, caller: Caller | None = None) -> None:
        """Count `error` if it is a denial; `caller`, if it is known who was refused."""
        ...


class NoDenials:
    """Counts nothing."""

    def count(self, method: str, error: SecureCacheError, caller: Caller | None = None) -> None: ...


@dataclass(slots=True)
class Hour:
    """What one process counted in one hour; `changed` since it was kept, as `version`."""

    counts: dict[Denial, int] = field(default_factory=dict)
    changed: bool = False
    version: str | None = None


class DenialCounts:
    """Counts, within bounds. One per process.

    Attributes:
        hours: by the hours since 1970; those that are not kept yet, and the newest.
        lost: how many were dropped because the store took nothing for days.
    """

    def __init__(self, *, clock: Clock, max_kinds: int = MAX_KINDS) -> None:
        self._clock = clock
        self._max_kinds = max_kinds
        self.hours: dict[int, Hour] = {}
        self.lost = 0

    def count(self, method: str, error: SecureCacheError, caller: Caller | None = None) -> None:
        """As `CountsDenials`."""
        if not isinstance(error, _COUNTED):
            return
        hour = self._hour(int(self._clock()) // HOUR_SECONDS)
        denial = denial_of(method, error, caller)
        counts = hour.counts
        if denial not in counts and len(counts) >= self._max_kinds:
            denial = Denial(denial.method, denial.code, OTHER)
        counts[denial] = counts.get(denial, 0) + 1
        hour.changed = True

    def _hour(self, number: int) -> Hour:
        hour = self.hours.get(number)
        if hour is None:
            hour = self.hours[number] = Hour()
            while len(self.hours) > _MAX_HOURS:
                self.lost += sum(self.hours.pop(min(self.hours)).counts.values())
        return hour

    def forget(self, number: int) -> None:
        """An hour that is over and kept."""
        if number != int(self._clock()) // HOUR_SECONDS:
            self.hours.pop(number, None)


def denial_of(method: str, error: Refused, caller: Caller | None) -> Denial:
    """What of a refusal is counted."""
    if method not in METHODS:
        method = "GET" if method == "HEAD" else "other"
    if caller is not None and caller.identity is None:
        return Denial(method, error.code, ANONYMOUS)
    proved = error.proved if caller is None else proved_of(caller)
    if proved is not None:
        return Denial(
            method, error.code, KNOWN, proved.issuer, proved.project, proved.rule, proved.tier
        )
    missing = isinstance(error, InvalidToken) and error.problem is TokenProblem.MISSING
    return Denial(method, error.code, ANONYMOUS if missing else UNPROVED)
