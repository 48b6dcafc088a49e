"""How many entries of the log a revocation or epoch covers, counted where that can be right.

By the index, where its keys are columns that are derived in the same way; else entry by entry,
within bounds, by the very function that hides them. Otherwise it is said not to be counted.
"""

from dataclasses import dataclass, replace

from secure_cache.audit.auditor import Auditor
from secure_cache.audit.filters import Condition, Filter, Range
from secure_cache.audit.queries import PageRequest
from secure_cache.audit.reading import statement_of
from secure_cache.audit.row import STORED
from secure_cache.model.clock import Clock
from secure_cache.model.entry import Entry
from secure_cache.policy.compiled import Revocation, Tables
from secure_cache.policy.conditions import FACTS
from secure_cache.policy.revoke import fact_claims, hides

MAX_LEAVES = 1000
"""So many entries are read from the log to count one revocation."""
MAX_ROWS = 20_000
"""So many rows are looked at to count one epoch."""

_STORED = Condition(("event",), frozenset({STORED}))

_COLUMNS = ("project", "rule", "namespace", "key", "policy_sha256", "jti_sha256", "tid", "subject")
"""Keys of a revocation that are columns as they are."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many indexed entries something covers.

    Attributes:
        entries: exactly; None where it was not counted.
        at_most: no more than so many, where that is known.
        why: why it was not counted.
    """

    entries: int | None
    at_most: int | None = None
    why: str = ""


class Counting:
    """Counts what is covered, over an index and its log."""

    def __init__(self, auditor: Auditor, clock: Clock) -> None:
        self._auditor = auditor
        self._clock = clock

    async def covered_by(self, tables: Tables, revocation: Revocation) -> Coverage:
        """Raises: StorageUnavailable, LogInconsistent, DamagedIndex."""
        now = int(self._clock())
        if revocation.since is not None and revocation.since > now:
            return Coverage(0)
        wanted, exact = candidates(tables, revocation, now=now, plain=await self._plain(tables))
        count = await self._auditor.count(wanted)
        if exact:
            return Coverage(count)
        if count > MAX_LEAVES:
            why = "it names what the index does not hold; `secure-cache audit impact` counts it"
            return Coverage(None, count, why)
        alone = replace(tables, revocations=(revocation,), epochs={})
        covered = 0
        async for rows in self._auditor.export(wanted, PageRequest()):
            for row in rows:
                entry = statement_of(await self._auditor.envelope(row.number))
                if isinstance(entry, Entry):
                    hidden = hides(alone, entry, now=now)
                    covered += hidden is not None and hidden.line == f"revocation {revocation.id}"
        return Coverage(covered)

    async def _plain(self, tables: Tables) -> bool:
        """Whether each stored entry is of an issuer of today: how the claims of others were
        called is not known."""
        known = Condition(("iss",), frozenset(tables.issuers))
        every = await self._auditor.count(Filter((_STORED,), ()))
        return every == await self._auditor.count(Filter((_STORED, known), ()))

    async def ended(self, namespace: str, epoch: int) -> Coverage:
        """By an epoch of a namespace that has come. Raises: as above."""
        wanted = Filter((_STORED, Condition(("namespace",), frozenset({namespace}))), ())
        count = await self._auditor.count(wanted)
        if count > MAX_ROWS:
            return Coverage(None, count, "there are too many entries to look at one by one")
        covered = 0
        async for rows in self._auditor.export(wanted, PageRequest()):
            covered += sum(row.epoch is not None and row.epoch < epoch for row in rows)
        return Coverage(covered)


def candidates(
    tables: Tables, revocation: Revocation, *, now: int, plain: bool
) -> tuple[Filter, bool]:
    """A filter that finds all stored entries that a revocation covers, and whether it finds no
    others.

    Args:
        tables: of the policy.
        revocation: one that has begun.
        now: seconds since 1970.
        plain: each stored entry is of an issuer of today.
    """
    conditions, exact = [_STORED], True
    for key, values in revocation.match:
        if key in _COLUMNS:
            conditions.append(Condition((key,), values))
        elif key == "issuer":
            # An issuer answers to its name of then, its name of today and its `iss`.
            named = {iss for iss, item in tables.issuers.items() if item.issuer.name in values}
            conditions.append(Condition(("issuer", "iss"), values | named))
        elif key in FACTS and plain and _is_derived_alike(tables, key):
            conditions.append(Condition((key,), values))
        else:
            exact = False
    # Who stored in the future is covered by what is open until now: see `policy.revoke.hides`.
    high = None if revocation.until is None or revocation.until >= now else revocation.until
    ranges = (
        () if revocation.since is None and high is None else (Range("at", revocation.since, high),)
    )
    return Filter(tuple(conditions), ranges), exact


def _is_derived_alike(tables: Tables, fact: str) -> bool:
    """Whether the claim of this fact is the column's, with every issuer of today."""
    for item in tables.issuers.values():
        preset, claim = item.issuer.preset, fact_claims(item.issuer).get(fact)
        known = preset.known_claims.intersection(FACTS[fact])
        if preset.mappable or claim is None or not known <= {claim}:
            return False
    return True
