"""The integrity lattice (Biba): a reader reads only namespaces at or above its own tier.

A namespace has one tier, a function of its name and the project's rules alone: the highest tier
of any rule that speaks of it. A job writes its namespace only when the rule that it matched has
exactly this tier. So a run on `main` that misses the trusted rule, because its event or a claim is
wrong, and falls through to a contributor rule, cannot write `branch/main`; and no order of rules,
no claim and no provider's oddity can put two tiers of writers into one namespace.

Only branches and merge queues can be above contributor. What their ids mean is fixed here, so that
the tier of a namespace does not depend on the job that asks.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from secure_cache.model.identity import ContextKind
from secure_cache.model.names import Namespace
from secure_cache.model.tiers import Tier
from secure_cache.policy.conditions import When
from secure_cache.policy.pattern import Pattern

TIERED_KINDS = frozenset({ContextKind.BRANCH, ContextKind.MERGE_QUEUE})


@dataclass(frozen=True, slots=True)
class NamespaceTiers:
    """The tiers of one project's namespaces.

    Attributes:
        branches: patterns above contributor with their tiers, highest first.
        queues: the same for the base branches of merge queues.
    """

    branches: tuple[tuple[Pattern, Tier], ...]
    queues: tuple[tuple[Pattern, Tier], ...]

    @classmethod
    def of(cls, rules: Iterable[tuple[When, Tier]]) -> Self:
        """From a ruleset's conditions. Rules that do not write count too: they reserve."""
        tiered = sorted(rules, key=lambda rule: -rule[1])

        def patterns(kind: ContextKind) -> tuple[tuple[Pattern, Tier], ...]:
            return tuple(
                (when.pattern, tier)
                for when, tier in tiered
                if when.kind is kind and when.pattern is not None and tier > Tier.CONTRIBUTOR
            )

        return cls(patterns(ContextKind.BRANCH), patterns(ContextKind.MERGE_QUEUE))

    def tier(self, kind: str, namespace_id: str) -> Tier:
        """The one tier that may write this namespace."""
        if kind == "branch":
            return _first(self.branches, namespace_id)
        if kind == "queue":
            # `<base>/<name of the queued merge>`, and the latter never has a slash.
            return _first(self.queues, namespace_id.rpartition("/")[0])
        return Tier.CONTRIBUTOR

    def of_namespace(self, namespace: Namespace) -> Tier:
        return self.tier(namespace.kind, namespace.id)

    def trusts_branch(self, branch: str) -> bool:
        return _first(self.branches, branch) is Tier.TRUSTED


def _first(patterns: tuple[tuple[Pattern, Tier], ...], name: str) -> Tier:
    for pattern, tier in patterns:
        if pattern.matches(name):
            return tier
    return Tier.CONTRIBUTOR
