"""The rules of `audit monitor`: which writers are expected, and what is always worth an alert.

A YAML file in the strict subset that policies use. What no rule of `expect` covers is unexpected:
a rule that is missing raises an alert, and never hides one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, NamedTuple

from msgspec import UNSET, Meta, Struct, UnsetType

from secure_cache.audit.watch_limits import DAY, Hours, size_in_bytes
from secure_cache.model.errors import Malformed
from secure_cache.model.identity import ClaimValue
from secure_cache.policy.convert import convert
from secure_cache.policy.duration import seconds
from secure_cache.policy.loader import load_yaml
from secure_cache.policy.schema import Duration, Size

MAX_RULES_BYTES = 256 * 1024
_MAX_LATE_SECONDS = 3600

_Text = Annotated[str, Meta(min_length=1, max_length=1024)]
_AnyOf = _Text | Annotated[tuple[_Text, ...], Meta(min_length=1, max_length=256)]
_Day = Annotated[str, Meta(pattern=DAY, extra={"form": "a day such as mon, or days as mon-fri"})]


class ExpectDocument(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of writer. All that is given must hold; a list means any of its patterns.

    That a window of `hours` is one says `Hours.parse`: msgspec 0.22.0 frees a pattern twice that
    stands in a union of a text and a list of texts.
    """

    name: _Text
    issuer: _AnyOf
    iss: _AnyOf | UnsetType = UNSET
    project: _AnyOf | UnsetType = UNSET
    tier: _AnyOf | UnsetType = UNSET
    namespace: _AnyOf | UnsetType = UNSET
    subject: _AnyOf | UnsetType = UNSET
    rule: _AnyOf | UnsetType = UNSET
    claims: Annotated[dict[_Text, _AnyOf], Meta(min_length=1)] | UnsetType = UNSET
    hours: Annotated[dict[_Day, _AnyOf], Meta(min_length=1)] | UnsetType = UNSET
    max_size: Size | UnsetType = UNSET


class RulesDocument(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file."""

    version: Annotated[int, Meta(ge=1, le=1)]
    expect: Annotated[tuple[ExpectDocument, ...], Meta(min_length=1)]
    ignore: tuple[_Text, ...] = ()
    max_age: Duration | UnsetType = UNSET
    max_late: Duration | UnsetType = UNSET


@dataclass(frozen=True, slots=True)
class Glob:
    """A text in which each `*` stands for any characters, also none, also `/`.

    Not a policy's pattern: claims such as `workflow_ref` hold `:`, `@` and slashes of their own.
    """

    text: str

    def matches(self, value: str) -> bool:
        """In one pass, whatever the two are."""
        first, *rest = self.text.split("*")
        if not rest:
            return value == first
        *middle, last = rest
        if not value.startswith(first):
            return False
        at = len(first)
        for part in middle:
            found = value.find(part, at)
            if found < 0:
                return False
            at = found + len(part)
        return len(value) - len(last) >= at and value.endswith(last)


class Writing(NamedTuple):
    """What patterns are held against: who wrote, and where.

    Attributes:
        claims: of the token, by name.
    """

    issuer: str
    iss: str
    project: str
    tier: str
    namespace: str
    subject: str
    rule: str
    claims: Mapping[str, ClaimValue]


@dataclass(frozen=True, slots=True)
class Expected:
    """One rule, compiled.

    Attributes:
        facts: patterns, by the fact that they are held against.
        claims: patterns, by the claim.
        hours: when it writes; None at any time.
        max_size: how many bytes at most; None any number.
    """

    name: str
    facts: tuple[tuple[str, tuple[Glob, ...]], ...]
    claims: tuple[tuple[str, tuple[Glob, ...]], ...]
    hours: Hours | None
    max_size: int | None

    def speaks_of(self, writing: Writing) -> bool:
        """Exactly as written; a claim that is missing, or is no text, is never expected."""
        return all(
            _matches(getattr(writing, name), patterns) for name, patterns in self.facts
        ) and all(_matches(writing.claims.get(name), patterns) for name, patterns in self.claims)

    def knows_issuer(self, writing: Writing) -> bool:
        return all(
            _matches(writing.issuer, patterns) for name, patterns in self.facts if name == "issuer"
        )

    def breach(self, at: int, size: int) -> str | None:
        """The alert for an entry of whom it speaks; None when it keeps to the limits."""
        if self.max_size is not None and size > self.max_size:
            return "unexpected-size"
        if self.hours is not None and not self.hours.allows(at):
            return "unexpected-hours"
        return None


@dataclass(frozen=True, slots=True)
class WatchRules:
    """What is expected.

    Attributes:
        expected: kinds of writers.
        ignored: codes of alerts that nobody wants.
        max_age_seconds: of the newest sign of life of the log; None: it may sleep.
        max_late_seconds: how long after its key's end an entry may reach the log.
        text: of the file, from which another process makes the same rules.
    """

    expected: tuple[Expected, ...]
    ignored: frozenset[str]
    max_age_seconds: int | None
    max_late_seconds: int
    text: bytes

    @classmethod
    def parse(cls, data: bytes, *, name: str) -> "WatchRules":
        """Read a rules file.

        Raises:
            InvalidPolicy: it has errors; carries the findings, each with its line.
            Malformed: it ignores what is no alert or must not be ignored, or hours end too soon.
        """
        document = convert(load_yaml(data, name=name), RulesDocument, name=name)
        for code in document.ignore:
            if code not in IGNORABLE:
                what = "must not be ignored" if code in CODES else "is no alert"
                raise Malformed(
                    f"{name}: ignore: {code!a} {what}; it takes: {', '.join(sorted(IGNORABLE))}"
                )
        age, late = document.max_age, document.max_late
        return cls(
            tuple(_compile(item, name) for item in document.expect),
            frozenset(document.ignore),
            None if isinstance(age, UnsetType) else seconds(age),
            _MAX_LATE_SECONDS if isinstance(late, UnsetType) else seconds(late),
            data,
        )

    def unexpected(self, writing: Writing, at: int, size: int) -> str | None:
        """The alert for an entry; None when a rule covers it, its limits included.

        Args:
            writing: who wrote, and where.
            at: when, seconds since 1970, as the entry says.
            size: of the artifact, in bytes.
        """
        return judge_limits(self.speaking_of(writing), at, size)

    def speaking_of(self, writing: Writing) -> "Speaking":
        """What does not change from one entry of a job to the next."""
        found = tuple(rule for rule in self.expected if rule.speaks_of(writing))
        known = any(rule.knows_issuer(writing) for rule in self.expected)
        return found, "unexpected-writer" if known else "unknown-issuer"


Speaking = tuple[tuple[Expected, ...], str]
"""The rules that speak of a writing, and the alert where there is none."""


def judge_limits(speaking: Speaking, at: int, size: int) -> str | None:
    """The rest of `WatchRules.unexpected`."""
    rules, otherwise = speaking
    worst: str | None = otherwise
    for rule in rules:
        worst = rule.breach(at, size)
        if worst is None:
            break
    return worst


IGNORABLE = frozenset({"policy-changed", "keys-changed", "removed", "quarantined"})
"""The log's own news. All else means that somebody or something is not what it should be."""

CODES = IGNORABLE | {
    "unknown-issuer",
    "unexpected-writer",
    "unexpected-size",
    "unexpected-hours",
    "unknown-policy",
    "policy-out-of-order",
    "bad-signature",
    "late-signature",
    "unreadable",
    "log-opened-again",
    "stale",
    "log-inconsistent",
    "history-changed",
}
"""Stable: scripts match on them."""

_FACTS = Writing._fields[:-1]


def _matches(value: ClaimValue, patterns: tuple[Glob, ...]) -> bool:
    return isinstance(value, str) and any(pattern.matches(value) for pattern in patterns)


def _compile(document: ExpectDocument, file: str) -> Expected:
    facts = tuple(
        (fact, _globs(value))
        for fact in _FACTS
        if not isinstance(value := getattr(document, fact), UnsetType)
    )
    given = {} if isinstance(document.claims, UnsetType) else document.claims
    claims = tuple((claim, _globs(value)) for claim, value in given.items())
    hours, most = document.hours, document.max_size
    try:
        return Expected(
            document.name,
            facts,
            claims,
            None
            if isinstance(hours, UnsetType)
            else Hours.parse({day: _list(value) for day, value in hours.items()}),
            None if isinstance(most, UnsetType) else size_in_bytes(most),
        )
    except Malformed as error:
        raise Malformed(f"{file}: expect: {document.name!a}: {error}") from error


def _globs(value: str | tuple[str, ...]) -> tuple[Glob, ...]:
    return tuple(Glob(text) for text in _list(value))


def _list(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value
