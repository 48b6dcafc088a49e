"""Lint of `rulesets:`: each rule by itself, and against those above it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from msgspec import UNSET

from secure_cache.model.identity import ContextKind
from secure_cache.model.tiers import Tier
from secure_cache.policy.compile import local_namespace
from secure_cache.policy.compiled import Own
from secure_cache.policy.conditions import ClaimCheck, When, claim_checks
from secure_cache.policy.finding import show
from secure_cache.policy.issuers import given
from secure_cache.policy.lattice import TIERED_KINDS
from secure_cache.policy.lint_issuers import lint_claim_names
from secure_cache.policy.preset import Preset
from secure_cache.policy.report import Report, Step
from secure_cache.policy.schema import PolicyDocument, RuleDocument, WhenDocument

_HAS_BASE = frozenset({ContextKind.PULL_REQUEST, ContextKind.MERGE_QUEUE})
_OWN_WORDS = frozenset(own.value for own in Own)


@dataclass(frozen=True, slots=True)
class _Subject:
    """The rule that is looked at."""

    rule: RuleDocument
    when: When
    tier: Tier
    path: tuple[Step, ...]
    report: Report

    def add(self, code: str, message: str, fix: str, *path: Step) -> None:
        self.report.add(code, f"rule {self.rule.name}: {message}", fix, *self.path, *path)


def lint_rulesets(document: PolicyDocument, presets: Mapping[str, Preset], report: Report) -> None:
    for name, rules in document.rulesets.items():
        used_by = [
            presets[document.issuers[issuer].preset]
            for project in document.projects.values()
            if project.ruleset == name
            for issuer in project.issuers
            if issuer in document.issuers and document.issuers[issuer].preset in presets
        ]
        above: list[_Subject] = []
        names: set[str] = set()
        for index, rule in enumerate(rules):
            path = ("rulesets", name, index)
            if rule.name in names:
                report.add("E18", f"a second rule {rule.name}", "rename one", *path, "name")
            names.add(rule.name)
            lint_claim_names(given(rule.claims, {}), used_by, report, (*path, "claims"))
            when = compile_when(rule.when, report, (*path, "when"))
            if when is None:
                continue
            subject = _Subject(rule, when, Tier.parse(rule.tier), path, report)
            _lint_rule(subject)
            _lint_reach(subject, above)
            above.append(subject)
    _lint_quotas(document, report)


def compile_when(when: WhenDocument, report: Report, path: tuple[Step, ...]) -> When | None:
    """E04 and E15 for a `when:`; None when it cannot be compiled."""
    keys = [key for key in when.__struct_fields__ if getattr(when, key) is not UNSET]
    if len(keys) != 1:
        what = f"`when` has {len(keys)} keys: {', '.join(keys) or 'none'}"
        report.add("E15", what, "exactly one; write two rules for two kinds of jobs", *path)
        return None
    try:
        return When.of(when)
    except ValueError as error:
        what = f"{show(getattr(when, keys[0]))}: {error}"
        fix = "write the whole name, or `*` for one whole path segment, as in release/*"
        report.add("E04", what, fix, *path, keys[0])
        return None


def _lint_rule(subject: _Subject) -> None:
    _lint_tier(subject)
    _lint_write(subject)
    for index, text in enumerate(subject.rule.read):
        _lint_read(subject, index, text)
    _lint_read_order(subject)


def _lint_tier(subject: _Subject) -> None:
    kind, tier, pattern = subject.when.kind, subject.tier, subject.when.pattern
    if tier is Tier.TRUSTED and kind is not ContextKind.BRANCH:
        subject.add("E07", "only a branch can be trusted", "use `when: {branch: ...}`", "tier")
        return
    if tier > Tier.CONTRIBUTOR and kind not in TIERED_KINDS:
        what = f"a job of the kind {subject.when.key} cannot be {tier}"
        subject.add("E20", what, "make it a contributor", "tier")
    elif tier > Tier.CONTRIBUTOR and pattern is not None and pattern.open_ended:
        what = f"`**` matches what anybody may create, so it cannot be {tier}"
        subject.add("E20", what, "name the branches, or make it a contributor", "tier")
    elif tier is Tier.TRUSTED and pattern is not None and not pattern.literal:
        ack = "branch-creation-is-restricted"
        if ack not in subject.rule.ack:
            what = f"whoever may create a branch {pattern.text} is trusted"
            fix = f"restrict who may, then add `ack: [{ack}]`; or name the branches"
            subject.add("E08", what, fix, "when", "branch")


def _lint_write(subject: _Subject) -> None:
    rule, kind = subject.rule, subject.when.kind
    if rule.write is not UNSET and kind is ContextKind.ROLE:
        subject.add("E15", "a role has no namespace to write", "delete `write`", "write")
    if rule.audit and kind is not ContextKind.ROLE and subject.tier is not Tier.TRUSTED:
        what = "only roles and trusted branches may read the whole log"
        subject.add("E15", what, "delete `audit`, or give it to a role", "audit")


def _lint_read(subject: _Subject, index: int, text: str) -> None:
    path = ("read", index)
    if "*" in text:
        what = f"{show(text)} reads namespaces that somebody else may create"
        subject.add("E05", what, "name each namespace", *path)
        return
    if text == Own.SELF.value and subject.when.kind is ContextKind.ROLE:
        subject.add("E15", "a role has no namespace of its own", "delete `self`", *path)
    elif text == Own.BASE.value and subject.when.kind not in _HAS_BASE:
        what = "only a pull request or a merge queue has a base"
        subject.add("E15", what, "delete `base`", *path)
    elif text not in _OWN_WORDS:
        lint_namespace(text, subject.report, (*subject.path, *path))


def lint_namespace(text: str, report: Report, path: tuple[Step, ...]) -> None:
    """E05 and E15 for `kind/id` where a project's own namespace is named."""
    if "*" in text:
        what = f"{show(text)} stands for namespaces that somebody else may create"
        report.add("E05", what, "name each namespace", *path)
        return
    try:
        local_namespace("x", text)
    except ValueError as error:
        fix = "write kind/id, such as branch/main; another project's needs share and import"
        report.add("E15", f"{show(text)}: {error}", fix, *path)


def _lint_read_order(subject: _Subject) -> None:
    read = subject.rule.read
    if Own.SELF.value in read[:-1] and subject.tier is not Tier.TRUSTED:
        what = "its own namespace comes before others: a poisoned own entry would win"
        subject.add("W08", what, "put `self` last", "read", read.index(Own.SELF.value))


def _lint_reach(subject: _Subject, above: Iterable[_Subject]) -> None:
    """E11: a rule above takes every job that this one speaks of."""
    checks = claim_checks(given(subject.rule.claims, {}))
    for earlier in above:
        if not earlier.when.covers(subject.when):
            continue
        # A trusted rule lets pass what is not trustable; only a trusted one needs no more.
        if earlier.tier is Tier.TRUSTED and subject.tier is not Tier.TRUSTED:
            continue
        wanted = claim_checks(given(earlier.rule.claims, {}))
        if all(_implied(check, checks) for check in wanted):
            what = f"rule {earlier.rule.name} above takes all of its jobs"
            subject.add("E11", what, "move it up, or delete it", "when")
            return


def _implied(check: ClaimCheck, by: Iterable[ClaimCheck]) -> bool:
    return any(check.covers(other) for other in by)


def _lint_quotas(document: PolicyDocument, report: Report) -> None:
    for name, rules in document.rulesets.items():
        for index, rule in enumerate(rules):
            if rule.quota is not UNSET:
                what = "quotas are read but not enforced by this version"
                fix = "keep it; until enforcement comes, watch the store's size"
                report.add("W06", what, fix, "rulesets", name, index, "quota")
                return
