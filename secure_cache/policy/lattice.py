"""The integrity lattice (Biba): a reader reads only namespaces at or above its own tier.

A namespace has one tier, a function of its name and the project's rules alone: the highest tier
of any rule that speaks of it. A job writes its namespace only when the rule that it matched has
exactly this tier. So a run on `main` that misses the trusted rule, because its event or a claim is
wrong, and falls through to a contributor rule, cannot write `branch/main`; and no order of rules,
no claim and no provider's oddity can put two tiers of writers into one namespace.

Only branches and merge queues can be above contributor. What their ids mean is fixed here, so that
the tier of a namespace does not depend on the job that asks.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

from secure_cache.model.identity import ContextKind
from secure_cache.model.names import Namespace
from secure_cache.model.tiers import Tier
from secure_cache.policy.conditions import When, namespace_subject

TIERED_KINDS = frozenset({ContextKind.BRANCH, ContextKind.MERGE_QUEUE})


@dataclass(frozen=True, slots=True)
class NamespaceTiers:
    """The tiers of one project's namespaces.

    Attributes:
        exact: what is above contributor by its whole name: (kind, branch or base) to tier.
        raised: what is above contributor by a pattern, highest first.
    """

    exact: Mapping[tuple[ContextKind, str], Tier]
    raised: tuple[tuple[When, Tier], ...]

    @classmethod
    def of(cls, rules: Iterable[tuple[When, Tier]]) -> Self:
        """From a ruleset's conditions. Rules that do not write count too: they reserve."""
        exact: dict[tuple[ContextKind, str], Tier] = {}
        patterns: list[tuple[When, Tier]] = []
        for when, tier in rules:
            if tier is Tier.CONTRIBUTOR or when.pattern is None:
                continue
            if when.pattern.literal:
                name = (when.kind, when.pattern.text)
                exact[name] = max(tier, exact.get(name, tier))
            else:
                patterns.append((when, tier))
        return cls(MappingProxyType(exact), tuple(sorted(patterns, key=lambda rule: -rule[1])))

    def tier(self, kind: str, namespace_id: str) -> Tier:
        """The one tier that may write this namespace."""
        subject = namespace_subject(kind, namespace_id)
        if subject is None:
            return Tier.CONTRIBUTOR
        found = self.exact.get(subject, Tier.CONTRIBUTOR)
        for when, tier in self.raised:
            if tier <= found:
                break
            if when.speaks_of(subject):
                return tier
        return found

    def of_namespace(self, namespace: Namespace) -> Tier:
        return self.tier(namespace.kind, namespace.id)

    def trusts_branch(self, branch: str) -> bool:
        return self.tier("branch", branch) is Tier.TRUSTED
