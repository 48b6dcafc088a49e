"""The tables that a policy compiles into. Values only; `decide` and `revoke` read them."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from secure_cache.model.identity import Context, ContextKind
from secure_cache.model.names import Namespace
from secure_cache.model.tiers import Tier
from secure_cache.policy.conditions import ClaimCheck, When, first_failing
from secure_cache.policy.decision import Decision, Issuer
from secure_cache.policy.lattice import NamespaceTiers
from secure_cache.policy.preset import Claims


class Own(Enum):
    """The two words of a read list that depend on the job."""

    SELF = "self"
    BASE = "base"


Read: TypeAlias = Namespace | Own


@dataclass(frozen=True, slots=True)
class CompiledIssuer:
    """An issuer and what its tokens must hold.

    Attributes:
        issuer: what the floors above see.
        pins: claims that every token must have.
        trustable: false clears `Context.trustable`: a missing acknowledgement.
    """

    issuer: Issuer
    pins: tuple[ClaimCheck, ...]
    trustable: bool


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, for one project.

    Attributes:
        reads: as written, in the order to look.
        imports: namespaces of other projects, looked up last.
        granted: both, without the namespaces below the rule's tier.
        when_text: what to say when `when` does not match.
    """

    name: str
    when: When
    claims: tuple[ClaimCheck, ...]
    tier: Tier
    writes: bool
    reads: tuple[Read, ...]
    imports: tuple[Namespace, ...]
    granted: tuple[Read, ...]
    audit: bool
    when_text: str

    def mismatch(self, context: Context, claims: Claims) -> str | None:
        """The first condition that fails, in words; None when the rule matches."""
        if not self.when.matches(context):
            return self.when_text
        failing = first_failing(self.claims, claims) if self.claims else None
        if failing is not None:
            return f"the claim {failing.name} is not what the rule asks for"
        if self.tier is Tier.TRUSTED and not context.trustable:
            return "what started this job does not prove that it runs the branch's own code"
        return None


@dataclass(frozen=True, slots=True)
class Deny:
    """A deny rule. `projects` and `issuers` are names; empty means all."""

    name: str
    projects: frozenset[str]
    issuers: frozenset[str]
    when: When | None
    claims: tuple[ClaimCheck, ...]

    def applies(self, project: str, issuer: str, context: Context, claims: Claims) -> bool:
        if self.projects and project not in self.projects:
            return False
        if self.issuers and issuer not in self.issuers:
            return False
        if self.when is not None and not self.when.matches(context):
            return False
        return all(check.suspects(claims) for check in self.claims)


@dataclass(frozen=True, slots=True)
class CompiledProject:
    """One project.

    Attributes:
        matches: alternatives, each a set of claims that must all hold; empty means any token
            of its issuers.
        rules: top-down.
        by_kind: the same rules, only those that speak of one kind of job.
    """

    name: str
    issuers: frozenset[str]
    matches: tuple[tuple[ClaimCheck, ...], ...]
    rules: tuple[Rule, ...]
    by_kind: Mapping[ContextKind, tuple[Rule, ...]]
    tiers: NamespaceTiers

    def claims_match(self, claims: Claims) -> bool:
        if not self.matches:
            return True
        return any(first_failing(checks, claims) is None for checks in self.matches)


@dataclass(frozen=True, slots=True)
class Revocation:
    """One revocation. `match` pairs a key of the language with the values that will do;
    `since` and `until` are seconds since 1970, both inside."""

    id: str
    match: tuple[tuple[str, frozenset[str]], ...]
    since: int | None
    until: int | None


@dataclass(frozen=True, slots=True)
class Tables:
    """All that a decision needs."""

    issuers: Mapping[str, CompiledIssuer]
    projects: Mapping[str, CompiledProject]
    projects_of_issuer: Mapping[str, tuple[CompiledProject, ...]]
    denies: tuple[Deny, ...]
    revocations: tuple[Revocation, ...]
    epochs: Mapping[str, int]
    anonymous: Decision
