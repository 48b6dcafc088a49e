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

TIERED_KINDS = frozenset({ContextKind.BRANCH, ContextKind.MERGE_QUEUE})


@dataclass(frozen=True, slots=True)
class NamespaceTiers:
    """The tiers of one project's namespaces.

    Attributes:
        raised: what is above contributor, highest first.
    """

    raised: tuple[tuple[When, Tier], ...]

    @classmethod
    def of(cls, rules: Iterable[tuple[When, Tier]]) -> Self:
        """From a ruleset's conditions. Rules that do not write count too: they reserve."""
        above = [rule for rule in rules if rule[1] > Tier.CONTRIBUTOR]
        return cls(tuple(sorted(above, key=lambda rule: -rule[1])))

    def tier(self, kind: str, namespace_id: str) -> Tier:
        """The one tier that may write this namespace."""
        for when, tier in self.raised:
            if when.owns(kind, namespace_id):
                return tier
        return Tier.CONTRIBUTOR

    def of_namespace(self, namespace: Namespace) -> Tier:
        return self.tier(namespace.kind, namespace.id)

    def may_write(self, when: When, tier: Tier, namespace: Namespace) -> bool:
        """True when a rule may give this namespace to a job: at the namespace's own tier, and,
        above contributor, only a namespace that the rule itself speaks of."""
        if self.of_namespace(namespace) is not tier:
            return False
        return tier is Tier.CONTRIBUTOR or when.owns(namespace.kind, namespace.id)

    def trusts_branch(self, branch: str) -> bool:
        return self.tier("branch", branch) is Tier.TRUSTED
