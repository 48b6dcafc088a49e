"""Lint of `projects:`: whose tokens belong where, and what one project lets another read."""

from collections.abc import Mapping
from itertools import combinations

from msgspec import UNSET

from secure_cache.policy.conditions import any_of
from secure_cache.policy.finding import show
from secure_cache.policy.issuers import match_alternatives
from secure_cache.policy.lint_issuers import lint_claim_names
from secure_cache.policy.lint_rules import lint_namespace
from secure_cache.policy.preset import Preset
from secure_cache.policy.report import Report
from secure_cache.policy.schema import AnyOf, PolicyDocument, ProjectDocument, RuleDocument

_VISIBILITY_CLAIMS = ("repository_visibility", "project_visibility")
_NOT_PUBLIC = frozenset({"private", "internal"})
_PRIVATE_ACK = "pull-requests-read-private"


def lint_projects(document: PolicyDocument, presets: Mapping[str, Preset], report: Report) -> None:
    for name, project in document.projects.items():
        _lint_references(document, name, project, report)
        _lint_match(document, name, presets, report)
        _lint_sharing(document, name, project, report)
        if is_private(project):
            _lint_private(document, name, project, report)
    _lint_overlaps(document, presets, report)


def is_private(project: ProjectDocument) -> bool:
    """The admin says so, or the tokens that it matches do."""
    if project.visibility is not UNSET:
        return project.visibility == "private"
    return any(
        any_of(claims[name]) & _NOT_PUBLIC
        for claims in match_alternatives(project.match)
        for name in _VISIBILITY_CLAIMS
        if name in claims
    )


def _lint_references(
    document: PolicyDocument, name: str, project: ProjectDocument, report: Report
) -> None:
    for index, issuer in enumerate(project.issuers):
        if issuer not in document.issuers:
            known = ", ".join(document.issuers)
            what = f"there is no issuer {issuer}"
            report.add("E17", what, f"the issuers are {known}", "projects", name, "issuers", index)
    if project.ruleset not in document.rulesets:
        known = ", ".join(document.rulesets)
        what = f"there is no ruleset {project.ruleset}"
        report.add("E17", what, f"the rulesets are {known}", "projects", name, "ruleset")


def _lint_match(
    document: PolicyDocument, name: str, presets: Mapping[str, Preset], report: Report
) -> None:
    project = document.projects[name]
    used = _presets_of(document, project, presets)
    foreign = [preset for preset in used.values() if not preset.self_issued]
    alternatives = match_alternatives(project.match)
    many = isinstance(project.match, tuple)
    for index, claims in enumerate(alternatives):
        path = ("projects", name, "match", *((index,) if many else ()))
        lint_claim_names(claims, foreign, report, path)
    if alternatives or not foreign:
        return
    path = ("projects", name)
    if any(preset.required_pins for preset in foreign):
        what = "nothing says which repositories belong to this project"
        report.add("E03", what, "add `match:` with the repository's id", *path)
    else:
        issuers = ", ".join(key for key, preset in used.items() if not preset.self_issued)
        what = f"every token of {issuers} belongs to {name}"
        report.add("W10", what, "add `match:`, unless it signs for this project alone", *path)


def _presets_of(
    document: PolicyDocument, project: ProjectDocument, presets: Mapping[str, Preset]
) -> dict[str, Preset]:
    return {
        issuer: presets[document.issuers[issuer].preset]
        for issuer in project.issuers
        if issuer in document.issuers and document.issuers[issuer].preset in presets
    }


def _lint_sharing(
    document: PolicyDocument, name: str, project: ProjectDocument, report: Report
) -> None:
    for index, share in enumerate(project.share):
        path = ("projects", name, "share", index)
        if share.with_ not in document.projects:
            what = f"there is no project {share.with_}"
            report.add("E17", what, "name a project of this file", *path, "with")
        for place, text in enumerate(share.namespaces):
            lint_namespace(text, report, (*path, "namespaces", place))
    for index, wanted in enumerate(project.import_):
        path = ("projects", name, "import", index)
        other = document.projects.get(wanted.project)
        if other is None or wanted.project == name:
            what = f"there is no other project {wanted.project}"
            report.add("E17", what, "name a project of this file", *path, "project")
            continue
        shared = {text for item in other.share if item.with_ == name for text in item.namespaces}
        for place, text in enumerate(wanted.namespaces):
            lint_namespace(text, report, (*path, "namespaces", place))
            if text not in shared:
                what = f"{wanted.project} does not share {show(text)} with {name}"
                fix = f"add it to share: in {wanted.project}; both sides have to agree"
                report.add("E17", what, fix, *path, "namespaces", place)


def _lint_private(
    document: PolicyDocument, name: str, project: ProjectDocument, report: Report
) -> None:
    """W04: artifacts of private code may hold secrets, and whoever opens a pull request can print
    what its job reads."""
    for index, rule in enumerate(document.rulesets.get(project.ruleset, ())):
        if _pull_request_reads_others(rule) and _PRIVATE_ACK not in rule.ack:
            what = f"rule {rule.name}: pull requests read the private project {name}"
            fix = f"read only self, or add `ack: [{_PRIVATE_ACK}]`"
            report.add("W04", what, fix, "rulesets", project.ruleset, index, "read")


def _pull_request_reads_others(rule: RuleDocument) -> bool:
    return rule.when.pull_request is not UNSET and any(text != "self" for text in rule.read)


def _lint_overlaps(document: PolicyDocument, presets: Mapping[str, Preset], report: Report) -> None:
    for (first, one), (second, other) in combinations(document.projects.items(), 2):
        common = {
            issuer
            for issuer, preset in _presets_of(document, one, presets).items()
            if issuer in other.issuers and not preset.self_issued
        }
        if common and not _disjoint(one, other):
            what = f"a token of {min(common)} can match {first} and {second}, and is then denied"
            fix = "compare the same claim with different values in both"
            report.add("W07", what, fix, "projects", second, "match")


def _disjoint(one: ProjectDocument, other: ProjectDocument) -> bool:
    return all(
        _exclusive(left, right)
        for left in match_alternatives(one.match) or ({},)
        for right in match_alternatives(other.match) or ({},)
    )


def _exclusive(left: Mapping[str, AnyOf], right: Mapping[str, AnyOf]) -> bool:
    return any(not any_of(left[name]) & any_of(right[name]) for name in left.keys() & right.keys())
