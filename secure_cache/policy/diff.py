"""What a change of the policy changes: decisions, by cases, and grants, by structure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

from secure_cache.policy.cases import Case, describe
from secure_cache.policy.compile import CompiledPolicy
from secure_cache.policy.compiled import Rule
from secure_cache.policy.finding import show


class Direction(StrEnum):
    """Whether a change grants more. What cannot be told apart is `changed`: read it."""

    LOOSENED = "loosened"
    TIGHTENED = "tightened"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class DecisionChange:
    """A case that is decided differently."""

    case: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{show(self.case)}: {self.before} -> {self.after}"


@dataclass(frozen=True, slots=True)
class GrantChange:
    """A part of the policy that grants more, less or something else."""

    direction: Direction
    what: str

    def __str__(self) -> str:
        return f"{self.direction}: {self.what}"


@dataclass(frozen=True, slots=True)
class PolicyDiff:
    """The difference between two policies; false when there is none."""

    decisions: tuple[DecisionChange, ...]
    grants: tuple[GrantChange, ...]

    def __bool__(self) -> bool:
        return bool(self.decisions or self.grants)

    def __str__(self) -> str:
        return "\n".join(map(str, (*self.decisions, *self.grants))) or "no difference"


def diff(old: CompiledPolicy, new: CompiledPolicy, cases: tuple[Case, ...] = ()) -> PolicyDiff:
    """Compare two policies over cases, and by their structure."""
    changes = []
    for case in cases:
        before, after = describe(case.decide(old)), describe(case.decide(new))
        if before != after:
            changes.append(DecisionChange(case.name, before, after))
    grants = [
        *_rules(old, new),
        *_parts(old, new, "issuers", "projects"),
        *_taken(old, new),
        *_single(old, new),
    ]
    return PolicyDiff(tuple(changes), tuple(grants))


def _rules(old: CompiledPolicy, new: CompiledPolicy) -> list[GrantChange]:
    changes: list[GrantChange] = []
    for name in sorted(old.tables.projects.keys() & new.tables.projects.keys()):
        before = {rule.name: rule for rule in old.tables.projects[name].rules}
        after = {rule.name: rule for rule in new.tables.projects[name].rules}
        changes += [
            _change(Direction.LOOSENED, f"{name}: rule {rule} is new")
            for rule in after.keys() - before.keys()
        ]
        changes += [
            _change(Direction.TIGHTENED, f"{name}: rule {rule} is gone")
            for rule in before.keys() - after.keys()
        ]
        for rule in sorted(before.keys() & after.keys()):
            changes += _one_rule(name, before[rule], after[rule])
        common = before.keys() & after.keys()
        if [rule for rule in before if rule in common] != [
            rule for rule in after if rule in common
        ]:
            changes.append(_change(Direction.CHANGED, f"{name}: the order of its rules"))
    return sorted(changes, key=str)


def _one_rule(project: str, before: Rule, after: Rule) -> list[GrantChange]:
    where = f"{project}: rule {before.name}"
    found: list[GrantChange] = []
    if before.when != after.when:
        wider, narrower = after.when.covers(before.when), before.when.covers(after.when)
        direction = _direction(more=wider and not narrower, less=narrower and not wider)
        found.append(_change(direction, f"{where}: when {before.when} -> {after.when}"))
    if before.claims != after.claims:
        more = all(any(a.covers(b) for b in before.claims) for a in after.claims)
        less = all(any(b.covers(a) for a in after.claims) for b in before.claims)
        found.append(_change(_direction(more=more, less=less), f"{where}: claims"))
    if before.tier != after.tier:
        direction = _direction(more=after.tier > before.tier, less=after.tier < before.tier)
        found.append(_change(direction, f"{where}: tier {before.tier} -> {after.tier}"))
    for name, had, has in (
        ("write", before.writes, after.writes),
        ("audit", before.audit, after.audit),
    ):
        if had != has:
            found.append(_change(_direction(more=has, less=had), f"{where}: {name}"))
    if before.reads != after.reads:
        had_reads, has_reads = set(before.reads), set(after.reads)
        direction = _direction(more=has_reads > had_reads, less=has_reads < had_reads)
        found.append(_change(direction, f"{where}: read"))
    return found


def _parts(old: CompiledPolicy, new: CompiledPolicy, *sections: str) -> list[GrantChange]:
    changes = []
    for section in sections:
        before: Mapping[str, Any] = getattr(old.document, section)
        after: Mapping[str, Any] = getattr(new.document, section)
        for name in sorted(before.keys() | after.keys()):
            where = f"{section}: {name}"
            if name not in before:
                changes.append(_change(Direction.LOOSENED, f"{where} is new"))
            elif name not in after:
                changes.append(_change(Direction.TIGHTENED, f"{where} is gone"))
            elif before[name] != after[name]:
                keys = _changed_keys(before[name], after[name])
                changes.append(_change(Direction.CHANGED, f"{where}: {', '.join(keys)}"))
    return changes


def _changed_keys(before: msgspec.Struct, after: msgspec.Struct) -> list[str]:
    fields = msgspec.structs.fields(before)
    return [
        field.encode_name
        for field in fields
        if getattr(before, field.name) != getattr(after, field.name)
    ]


def _taken(old: CompiledPolicy, new: CompiledPolicy) -> list[GrantChange]:
    """Deny rules, revocations and epochs: what is new here tightens."""
    changes: list[GrantChange] = []
    changes += _entries(
        "deny",
        {item.name: item for item in old.document.deny},
        {item.name: item for item in new.document.deny},
    )
    changes += _entries(
        "revocation",
        {item.id: item for item in old.document.revocations},
        {item.id: item for item in new.document.revocations},
    )
    had, has = old.document.epochs, new.document.epochs
    for name in sorted(had.keys() | has.keys()):
        left, right = had.get(name, 0), has.get(name, 0)
        if left != right:
            direction = _direction(more=right < left, less=right > left)
            changes.append(_change(direction, f"epoch of {name}: {left} -> {right}"))
    return changes


def _entries(
    what: str, before: Mapping[str, object], after: Mapping[str, object]
) -> list[GrantChange]:
    changes = []
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            direction = _direction(more=name not in after, less=name not in before)
            changes.append(_change(direction, f"{what} {name}"))
    return changes


def _single(old: CompiledPolicy, new: CompiledPolicy) -> list[GrantChange]:
    changes = []
    if old.audience != new.audience:
        changes.append(_change(Direction.CHANGED, f"audience {old.audience} -> {new.audience}"))
    had, has = old.tables.anonymous, new.tables.anonymous
    if had != has:
        more = set(has.read) > set(had.read)
        less = set(has.read) < set(had.read)
        changes.append(_change(_direction(more=more, less=less), "what anonymous requests read"))
    if old.public_log != new.public_log:
        direction = _direction(more=new.public_log, less=old.public_log)
        changes.append(_change(direction, "log: public"))
    if old.require_tests != new.require_tests:
        direction = _direction(more=old.require_tests, less=new.require_tests)
        changes.append(_change(direction, "require_tests"))
    return changes


def _direction(*, more: bool, less: bool) -> Direction:
    if more == less:
        return Direction.CHANGED
    return Direction.LOOSENED if more else Direction.TIGHTENED


def _change(direction: Direction, what: str) -> GrantChange:
    return GrantChange(direction, what)
