"""The conditions of rules: what must hold of a job and of its claims.

A grant compares exactly: a missing claim, or one that is not a string, never matches. What takes
away (deny rules and revocations) also reads numbers, booleans and lists as the text that an admin
would write, so that a provider's change of type never lets a revoked writer through.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from msgspec import UNSET

from secure_cache.model.identity import ClaimValue, Context, ContextKind
from secure_cache.policy.pattern import Pattern
from secure_cache.policy.preset import Claims
from secure_cache.policy.schema import AnyOf, WhenDocument

WHEN_KINDS: Mapping[str, ContextKind] = {
    "branch": ContextKind.BRANCH,
    "pull_request": ContextKind.PULL_REQUEST,
    "merge_queue": ContextKind.MERGE_QUEUE,
    "tag": ContextKind.TAG,
    "role": ContextKind.ROLE,
    "context": ContextKind.OTHER,
}
FACTS: Mapping[str, tuple[str, ...]] = {
    "actor_id": ("actor_id", "user_id"),
    "commit": ("sha", "commit"),
    "repository_id": ("repository_id", "project_id"),
    "run_id": ("run_id", "pipeline_id"),
}
"""What revocations call by one name whatever the provider does, and the claims that usually hold
it. The audit index fills its columns of these names from the same claims, the first that is there:
so what an auditor found by one of them is revoked by writing the same."""
PLAIN_NAME_KINDS = frozenset({"pull_request"})
"""Their names are numbers, or whatever the provider has instead: compared as text, not globbed."""


@dataclass(frozen=True, slots=True)
class When:
    """What kind of job a rule speaks of, and which.

    Attributes:
        key: as written, such as `branch`.
        kind: the context's kind.
        pattern: None stands for every name.
    """

    key: str
    kind: ContextKind
    pattern: Pattern | None

    @classmethod
    def of(cls, document: WhenDocument) -> Self:
        """Compile the one key that is set.

        Raises:
            ValueError: not exactly one key, or its pattern is none.
        """
        found = [
            (key, value) for key in WHEN_KINDS if (value := getattr(document, key)) is not UNSET
        ]
        if len(found) != 1:
            raise ValueError("`when` has exactly one key")
        key, text = found[0]
        if key == "context" or (key == "pull_request" and text == "any"):
            return cls(key, WHEN_KINDS[key], None)
        if key in PLAIN_NAME_KINDS:
            if "*" in text:
                raise ValueError("a pull request is `any` or one exact number")
            return cls(key, WHEN_KINDS[key], Pattern(text, (), literal=True, open_ended=False))
        return cls(key, WHEN_KINDS[key], Pattern.parse(text))

    def matches(self, context: Context) -> bool:
        return context.kind is self.kind and (
            self.pattern is None or self.pattern.matches(context.name)
        )

    def speaks_of(self, subject: tuple[ContextKind, str]) -> bool:
        """True when a namespace is by its own name one of those that this speaks of."""
        kind, name = subject
        return self.kind is kind and self.pattern is not None and self.pattern.matches(name)

    def covers(self, other: "When") -> bool:
        """True when every job that `other` speaks of is one of these."""
        if self.kind is not other.kind:
            return False
        if self.pattern is None:
            return True
        return other.pattern is not None and self.pattern.covers(other.pattern)

    def __str__(self) -> str:
        return f"{self.key}: {'any' if self.pattern is None else self.pattern.text}"


def namespace_subject(kind: str, namespace_id: str) -> tuple[ContextKind, str] | None:
    """What a rule has to match to speak of a namespace, by the namespace's own name: its branch,
    or the base branch of its queue. None for kinds that no rule can raise above contributor."""
    if kind == "branch":
        return ContextKind.BRANCH, namespace_id
    if kind == "queue":
        # `<base>/<name of the queued merge>`, and the latter never has a slash.
        return ContextKind.MERGE_QUEUE, namespace_id.rpartition("/")[0]
    return None


@dataclass(frozen=True, slots=True)
class ClaimCheck:
    """One claim and the values that will do."""

    name: str
    values: frozenset[str]

    def holds(self, claims: Claims) -> bool:
        """Exactly: for grants."""
        value = claims.get(self.name)
        return type(value) is str and value in self.values

    def suspects(self, claims: Claims) -> bool:
        """Generously: for what takes away."""
        return says(claims.get(self.name), self.values)

    def covers(self, other: "ClaimCheck") -> bool:
        """True when whatever satisfies `other` satisfies this."""
        return self.name == other.name and self.values >= other.values


def claim_checks(claims: Mapping[str, AnyOf]) -> tuple[ClaimCheck, ...]:
    return tuple(ClaimCheck(name, any_of(values)) for name, values in claims.items())


def any_of(values: AnyOf) -> frozenset[str]:
    return frozenset((values,) if isinstance(values, str) else values)


def first_failing(checks: Iterable[ClaimCheck], claims: Claims) -> ClaimCheck | None:
    for check in checks:
        if not check.holds(claims):
            return check
    return None


def says(value: ClaimValue, wanted: frozenset[str]) -> bool:
    """True when a claim, or an item of it, is one of `wanted`, in whatever type."""
    if isinstance(value, tuple):
        return any(says(item, wanted) for item in value)
    if isinstance(value, bool):
        return str(value).lower() in wanted
    if isinstance(value, float) and value.is_integer():
        return str(int(value)) in wanted
    return value is not None and str(value) in wanted
