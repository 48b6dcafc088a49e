"""Everything that can be said about a policy before it decides anything."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from secure_cache.model.names import Namespace
from secure_cache.policy.compiled import CompiledProject, Rule, Tables
from secure_cache.policy.finding import show
from secure_cache.policy.lint_issuers import is_plain_name, lint_issuers
from secure_cache.policy.lint_projects import lint_projects
from secure_cache.policy.lint_rules import lint_rulesets
from secure_cache.policy.lint_taken import (
    lint_anonymous,
    lint_denies,
    lint_epochs,
    lint_revocations,
)
from secure_cache.policy.preset import Preset
from secure_cache.policy.report import Report
from secure_cache.policy.schema import PolicyDocument


def lint_document(
    document: PolicyDocument, presets: Mapping[str, Preset], report: Report, *, now: float
) -> None:
    """All that needs no compiled policy. With no error reported, the document compiles."""
    _lint_audience(document, report)
    lint_issuers(document, presets, report)
    lint_rulesets(document, presets, report)
    lint_projects(document, presets, report)
    lint_denies(document, presets, report)
    lint_revocations(document, presets, report, now=now)
    lint_epochs(document, report)
    lint_anonymous(document, report)
    name = document.shadow_policy
    if isinstance(name, str) and not is_plain_name(name):
        what = "shadow_policy is not the name of a file beside this one"
        report.add("E15", what, "write a relative path without `..`", "shadow_policy")


def _lint_audience(document: PolicyDocument, report: Report) -> None:
    text = document.audience
    try:
        parts = urlsplit(text)
        good = parts.scheme == "https" and bool(parts.hostname) and parts.username is None
        good = good and not parts.query and not parts.fragment and text == parts.geturl()
    except ValueError:
        good = False
    if not good or not text.isascii() or not text.isprintable() or " " in text:
        what = f"the audience is {show(text)}"
        report.add("E10", what, "write the server's https URL, as CI asks for it", "audience")


def lint_lattice(document: PolicyDocument, tables: Tables, report: Report) -> None:
    """E06: that no rule names a namespace below its own tier. `decide` holds to the same law at
    each request; this tells the admin before."""
    for project in tables.projects.values():
        ruleset = document.projects[project.name].ruleset
        for index, rule in enumerate(project.rules):
            path = ("rulesets", ruleset, index)
            _lint_reads(project, rule, report, path)
            _lint_imports(tables, project, rule, report)


def _lint_reads(
    project: CompiledProject, rule: Rule, report: Report, path: tuple[str | int, ...]
) -> None:
    for index, read in enumerate(rule.reads):
        if not isinstance(read, Namespace):
            continue
        tier = project.tiers.of_namespace(read)
        if tier < rule.tier:
            what = f"rule {rule.name} is {rule.tier} and reads {read}, which {tier}s can write"
            fix = "delete it; what a lower tier writes never reaches a higher one"
            report.add("E06", what, fix, *path, "read", index)


def _lint_imports(tables: Tables, project: CompiledProject, rule: Rule, report: Report) -> None:
    for namespace in rule.imports:
        tier = tables.projects[namespace.project].tiers.of_namespace(namespace)
        if tier < rule.tier:
            what = f"rule {rule.name} is {rule.tier} and imports {namespace}, a {tier} namespace"
            fix = "import what is at or above the reader's tier"
            report.add("E06", what, fix, "projects", project.name, "import")
