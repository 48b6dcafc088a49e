"""The rules of `audit monitor`: which writers are expected, and what is always worth an alert.

A YAML file in the strict subset that policies use. What no rule of `expect` covers is unexpected:
a rule that is missing raises an alert, and never hides one.
"""

from dataclasses import dataclass
from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from secure_cache.model.entry import Entry
from secure_cache.model.errors import Malformed
from secure_cache.model.identity import ClaimValue
from secure_cache.policy.convert import convert
from secure_cache.policy.duration import seconds
from secure_cache.policy.loader import load_yaml

MAX_RULES_BYTES = 256 * 1024
_DURATION = "[1-9][0-9]{0,5}[smhd]"

_Text = Annotated[str, Meta(min_length=1, max_length=1024)]
_AnyOf = _Text | Annotated[tuple[_Text, ...], Meta(min_length=1, max_length=256)]


class ExpectDocument(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of writer. All that is given must hold; a list means any of its patterns."""

    name: _Text
    issuer: _AnyOf
    iss: _AnyOf | UnsetType = UNSET
    project: _AnyOf | UnsetType = UNSET
    tier: _AnyOf | UnsetType = UNSET
    namespace: _AnyOf | UnsetType = UNSET
    subject: _AnyOf | UnsetType = UNSET
    rule: _AnyOf | UnsetType = UNSET
    claims: Annotated[dict[_Text, _AnyOf], Meta(min_length=1)] | UnsetType = UNSET


class RulesDocument(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file."""

    version: Annotated[int, Meta(ge=1, le=1)]
    expect: Annotated[tuple[ExpectDocument, ...], Meta(min_length=1, max_length=1000)]
    ignore: tuple[_Text, ...] = ()
    max_age: Annotated[str, Meta(pattern=f"^{_DURATION}$")] | UnsetType = UNSET


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


@dataclass(frozen=True, slots=True)
class Expected:
    """One rule, compiled: patterns by what they are held against."""

    name: str
    facts: tuple[tuple[str, tuple[Glob, ...]], ...]
    claims: tuple[tuple[str, tuple[Glob, ...]], ...]

    def covers(self, entry: Entry) -> bool:
        """Exactly as written; a claim that is missing, or is no text, is never expected."""
        facts = _facts(entry)
        if not all(_matches(facts[name], patterns) for name, patterns in self.facts):
            return False
        held = entry.writer.claim_map
        return all(_matches(held.get(name), patterns) for name, patterns in self.claims)


@dataclass(frozen=True, slots=True)
class WatchRules:
    """What is expected.

    Attributes:
        expected: kinds of writers.
        ignored: codes of alerts that nobody wants.
        max_age_seconds: of the newest sign of life of the log; None: it may sleep.
    """

    expected: tuple[Expected, ...]
    ignored: frozenset[str]
    max_age_seconds: int | None

    @classmethod
    def parse(cls, data: bytes, *, name: str) -> "WatchRules":
        """Read a rules file.

        Raises:
            InvalidPolicy: it has errors; carries the findings, each with its line.
            Malformed: it ignores an alert that there is none of.
        """
        document = convert(load_yaml(data, name=name), RulesDocument, name=name)
        unknown = sorted(set(document.ignore) - CODES)
        if unknown:
            known = ", ".join(sorted(CODES))
            raise Malformed(f"{name}: ignore: there is no alert {unknown[0]!a}; there are: {known}")
        age = document.max_age
        return cls(
            tuple(_compile(item) for item in document.expect),
            frozenset(document.ignore),
            None if isinstance(age, UnsetType) else seconds(age),
        )

    def expects(self, entry: Entry) -> bool:
        return any(rule.covers(entry) for rule in self.expected)

    def knows_issuer(self, entry: Entry) -> bool:
        """Whether any rule speaks of its issuer at all."""
        return any(
            _matches(entry.writer.issuer, patterns)
            for rule in self.expected
            for name, patterns in rule.facts
            if name == "issuer"
        )


CODES = frozenset(
    {
        "unknown-issuer",
        "unexpected-writer",
        "unknown-policy",
        "bad-signature",
        "unreadable",
        "policy-changed",
        "keys-changed",
        "log-opened-again",
        "quarantined",
        "removed",
        "stale",
        "history-changed",
    }
)
"""Stable: scripts match on them."""

_FACTS = ("issuer", "iss", "project", "tier", "namespace", "subject", "rule")


def _facts(entry: Entry) -> dict[str, str]:
    return {
        "issuer": entry.writer.issuer,
        "iss": entry.writer.iss,
        "project": entry.namespace.project,
        "tier": str(entry.tier),
        "namespace": str(entry.namespace),
        "subject": entry.writer.subject,
        "rule": entry.rule,
    }


def _matches(value: ClaimValue, patterns: tuple[Glob, ...]) -> bool:
    return isinstance(value, str) and any(pattern.matches(value) for pattern in patterns)


def _compile(document: ExpectDocument) -> Expected:
    facts = tuple(
        (fact, _globs(value))
        for fact in _FACTS
        if not isinstance(value := getattr(document, fact), UnsetType)
    )
    given = {} if isinstance(document.claims, UnsetType) else document.claims
    claims = tuple((claim, _globs(value)) for claim, value in given.items())
    return Expected(document.name, facts, claims)


def _globs(value: str | tuple[str, ...]) -> tuple[Glob, ...]:
    return tuple(Glob(text) for text in ((value,) if isinstance(value, str) else value))


__all__ = ["CODES", "MAX_RULES_BYTES", "Expected", "WatchRules"]
