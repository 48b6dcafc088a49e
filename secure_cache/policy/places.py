"""What a policy speaks of: jobs by a rule's `when`, and namespaces that a read list names. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from secure_cache.model.identity import ContextKind
from secure_cache.model.names import Namespace
from secure_cache.policy.compiled import Tables
from secure_cache.policy.conditions import When
from secure_cache.policy.pattern import Pattern

_KINDS: Mapping[str, ContextKind] = {
    "branch": ContextKind.BRANCH,
    "pr": ContextKind.PULL_REQUEST,
    "mr": ContextKind.PULL_REQUEST,
    "queue": ContextKind.MERGE_QUEUE,
    "tag": ContextKind.TAG,
}
"""What namespaces are called, by the kind of job that owns them; all others are `other`."""

_Specific: TypeAlias = tuple[bool, bool, int, int, bool, str]


@dataclass(frozen=True, slots=True)
class Place:
    """What makes a node: jobs by `when`, or the one namespace that a read list names."""

    project: str
    when: When | None
    exact: Namespace | None

    @property
    def kind(self) -> ContextKind:
        if self.when is not None:
            return self.when.kind
        assert self.exact is not None  # noqa: S101 - it has one of the two
        return kind_of(self.exact)

    @property
    def pattern(self) -> str:
        if self.when is not None:
            return "any" if self.when.pattern is None else self.when.pattern.text
        assert self.exact is not None  # noqa: S101 - as above
        return self.exact.id

    @property
    def id(self) -> str:
        if self.exact is not None:
            return str(self.exact)
        return f"{self.project}:{self.kind}/{self.pattern}"

    @property
    def owns(self) -> bool:
        """Whether its jobs have namespaces at all."""
        return self.kind is not ContextKind.ROLE

    @property
    def specific(self) -> _Specific:
        """Of two that hold one namespace, it falls under the one that is greater here."""
        pattern = None if self.when is None else self.when.pattern
        if pattern is None:
            return (self.exact is not None, False, 0, 0, False, self.id)
        fixed = sum(segment != "*" for segment in pattern.segments)
        return (
            False,
            pattern.literal,
            fixed,
            len(pattern.segments),
            not pattern.open_ended,
            self.id,
        )

    def holds(self, namespace: Namespace) -> bool:
        if self.exact is not None:
            return namespace == self.exact
        assert self.when is not None  # noqa: S101 - as above
        if namespace.project != self.project or kind_of(namespace) is not self.when.kind:
            return False
        return self.when.pattern is None or self.when.pattern.matches(subject_of(namespace))

    def meets(self, when: When) -> bool:
        """Whether some job here can be one that `when` speaks of."""
        if self.kind is not when.kind:
            return False
        if self.exact is not None:
            return when.pattern is None or when.pattern.matches(subject_of(self.exact))
        assert self.when is not None  # noqa: S101 - as above
        if self.when.pattern is None or when.pattern is None:
            return True
        return _meet(self.when.pattern, when.pattern)

    @property
    def as_queue(self) -> When:
        """The queues of these branches."""
        if self.when is not None:
            return replace(self.when, kind=ContextKind.MERGE_QUEUE)
        pattern = Pattern(self.pattern, (), literal=True, open_ended=False)
        return When("merge_queue", ContextKind.MERGE_QUEUE, pattern)

    def is_within(self, when: When) -> bool:
        """Whether every job here is one that `when` speaks of."""
        if self.exact is not None:
            return self.meets(when)
        return self.when is not None and when.covers(self.when)


def kind_of(namespace: Namespace) -> ContextKind:
    """The kind of job that owns a namespace."""
    return _KINDS.get(namespace.kind, ContextKind.OTHER)


def subject_of(namespace: Namespace) -> str:
    """What a rule's pattern is compared with: the base branch of a queue, else the id."""
    if namespace.kind == "queue":
        return namespace.id.rpartition("/")[0]
    return namespace.id


def _meet(one: Pattern, other: Pattern) -> bool:
    """Whether some name may match both."""
    if one.literal:
        return other.matches(one.text)
    if other.literal:
        return one.matches(other.text)
    lengths = len(one.segments), len(other.segments)
    if one.open_ended and other.open_ended:
        fits = True
    elif one.open_ended:
        fits = lengths[1] > lengths[0]
    elif other.open_ended:
        fits = lengths[0] > lengths[1]
    else:
        fits = lengths[0] == lengths[1]
    pairs = zip(one.segments, other.segments, strict=False)
    return fits and all(a == b or "*" in {a, b} for a, b in pairs)


def places_of(tables: Tables) -> list[Place]:
    """One for each `when` of each project, and one for each named namespace without its own."""
    found: dict[str, Place] = {}
    for project in tables.projects.values():
        for rule in project.rules:
            place = Place(project.name, rule.when, None)
            found.setdefault(place.id, place)
    for namespace in _named(tables):
        place = Place(namespace.project, None, namespace)
        literal = found.get(f"{namespace.project}:{kind_of(namespace)}/{namespace.id}")
        is_it = (
            literal is not None
            and literal.when is not None
            and literal.when.pattern is not None
            and literal.when.pattern.literal
            and literal.holds(namespace)
        )
        if not is_it:
            found.setdefault(place.id, place)
    return list(found.values())


def _named(tables: Tables) -> Iterator[Namespace]:
    for project in tables.projects.values():
        for rule in project.rules:
            yield from (read for read in rule.granted if isinstance(read, Namespace))
    yield from tables.anonymous.read
