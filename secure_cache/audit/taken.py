"""What the policy in force takes back: each revocation and epoch, since when, and what it covers.

Since when: the policies of the log are read from the newest back, for as long as they say the same.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from secure_cache.audit.auditor import Auditor, PolicyInForce
from secure_cache.audit.coverage import Counting, Coverage
from secure_cache.audit.policy_history import PolicyHistory
from secure_cache.model.clock import Clock, rfc3339
from secure_cache.model.errors import (
    CorruptObject,
    InvalidPolicy,
    NotFound,
    StorageForbidden,
    Unavailable,
)
from secure_cache.policy.compile import CompiledPolicy
from secure_cache.policy.schema import PolicyDocument

MAX_WALK = 200
"""So many policies are read to find where something began."""
_REMEMBERED = 512


@dataclass(frozen=True, slots=True)
class Taken:
    """One thing that a policy takes back, as it says it; equal when it takes the same.

    Attributes:
        line: what decides, as `policy explain` names lines.
        match: a revocation's keys and their values; an epoch's namespace and number.
        since: the beginning of its window, RFC 3339.
        until: its end.
    """

    line: str
    match: tuple[tuple[str, tuple[str, ...]], ...]
    since: str | None = None
    until: str | None = None


@dataclass(frozen=True, slots=True)
class ActiveRevocation:
    """A revocation or epoch of the policy in force.

    Attributes:
        taken: what it says.
        reason: what the admin wrote for people.
        began: the policy that brought it; None while that is not in the log.
        exactly: false when it may have begun earlier: an older text is missing.
        covers: what it covers.
    """

    taken: Taken
    reason: str
    began: PolicyInForce | None
    exactly: bool
    covers: Coverage

    def document(self) -> dict[str, Any]:
        return {
            "line": self.taken.line,
            "match": {key: list(values) for key, values in self.taken.match},
            "since": self.taken.since,
            "until": self.taken.until,
            "reason": self.reason,
            "began": None if self.began is None else self.began.document(),
            "began_exactly": self.exactly,
            "covers": self.covers.entries,
            "covers_at_most": self.covers.at_most,
            "not_counted": self.covers.why,
        }


class Revocations:
    """Answers. Methods raise StorageUnavailable, LogInconsistent and DamagedIndex."""

    def __init__(
        self,
        *,
        auditor: Auditor,
        history: PolicyHistory,
        policy: Callable[[], CompiledPolicy],
        clock: Clock,
    ) -> None:
        self._auditor = auditor
        self._history = history
        self._policy = policy
        self._clock = clock
        self._counting = Counting(auditor, clock)
        self._taken: dict[str, frozenset[Taken]] = {}
        self._covered: dict[tuple[str, str, int, bool], Coverage] = {}

    async def active(self) -> tuple[ActiveRevocation, ...]:
        """Those of the policy in force, in its order; the revocations first."""
        policy = self._policy()
        reasons = {
            f"revocation {item.id}": item.reason if isinstance(item.reason, str) else ""
            for item in policy.document.revocations
        }
        taken = taken_by(policy.document)
        began = await self._began(policy.sha256, taken)
        size = await self._auditor.indexed()
        found = []
        for item in taken:
            begun = item.since is None or item.since <= rfc3339(self._clock())
            key = (policy.sha256, item.line, size, begun)
            if key not in self._covered:
                covers = await self._covers(policy, item)
                _remember(self._covered, key, covers)
            version, exactly = began.get(item, (None, False))
            found.append(
                ActiveRevocation(
                    item, reasons.get(item.line, ""), version, exactly, self._covered[key]
                )
            )
        return tuple(found)

    async def _began(
        self, sha256: str, taken: tuple[Taken, ...]
    ) -> dict[Taken, tuple[PolicyInForce, bool]]:
        """The policy that brought each, and whether that is sure."""
        versions = await self._auditor.policies()
        while versions and versions[-1].sha256 != sha256:
            versions.pop()
        if not versions:
            return {}
        found: dict[Taken, tuple[PolicyInForce, bool]] = {}
        waiting, newer = set(taken), versions.pop()
        for _ in range(MAX_WALK):
            if not waiting:
                return found
            older = versions.pop() if versions else None
            said = frozenset() if older is None else await self._taken_by(older)
            if said is None:
                break
            for item in waiting - said:
                found[item] = (newer, True)
            waiting &= said
            newer = older or newer
        return found | dict.fromkeys(waiting, (newer, False))

    async def _taken_by(self, version: PolicyInForce) -> frozenset[Taken] | None:
        """None when its text is not kept, or cannot be read."""
        if version.sha256 not in self._taken:
            try:
                document = await self._history.document(version)
            except (NotFound, CorruptObject, InvalidPolicy, Unavailable, StorageForbidden):
                return None
            _remember(self._taken, version.sha256, frozenset(taken_by(document)))
        return self._taken[version.sha256]

    async def _covers(self, policy: CompiledPolicy, item: Taken) -> Coverage:
        for revocation in policy.tables.revocations:
            if item.line == f"revocation {revocation.id}":
                return await self._counting.covered_by(policy.tables, revocation)
        (_, (namespace,)), (_, (epoch,)) = item.match
        return await self._counting.ended(namespace, int(epoch))


def taken_by(document: PolicyDocument) -> tuple[Taken, ...]:
    """What a policy takes back, in its order."""
    found = []
    for item in document.revocations:
        match = msgspec.to_builtins(item.match)
        found.append(
            Taken(
                f"revocation {item.id}",
                tuple(
                    (key, (values,) if isinstance(values, str) else tuple(values))
                    for key, values in match.items()
                ),
                item.since if isinstance(item.since, str) else None,
                item.until if isinstance(item.until, str) else None,
            )
        )
    for namespace, epoch in document.epochs.items():
        match_of_epoch = (("namespace", (namespace,)), ("epoch", (str(epoch),)))
        found.append(Taken(f"epoch of {namespace}", match_of_epoch))
    return tuple(found)


def _remember(memory: dict[Any, Any], key: object, value: object) -> None:
    while len(memory) >= _REMEMBERED:
        del memory[next(iter(memory))]
    memory[key] = value
