"""Lint of what takes away, and of the anonymous rule: `deny:`, `revocations:`, `epochs:`."""

import re
from collections.abc import Callable, Iterable, Mapping

from msgspec import UNSET, UnsetType

from secure_cache.model.clock import parse_rfc3339
from secure_cache.model.names import Namespace, parse_key
from secure_cache.policy.conditions import FACTS, any_of
from secure_cache.policy.duration import seconds
from secure_cache.policy.finding import show
from secure_cache.policy.issuers import given
from secure_cache.policy.lint_issuers import lint_claim_names
from secure_cache.policy.lint_projects import is_private
from secure_cache.policy.lint_rules import compile_when, lint_namespace
from secure_cache.policy.preset import Preset
from secure_cache.policy.report import Report, Step
from secure_cache.policy.schema import DenyDocument, PolicyDocument, RevocationDocument

UNLIMITED_TTL_SECONDS = 366 * 86_400
"""How long an entry is expected to be kept at most where no rule says."""

_WIDE = frozenset({"issuer", "project", "rule"})
"""What many writers have in common."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_NUMBER = re.compile(r"[0-9]+")
_PUBLIC_READ = "public-read"


def lint_denies(document: PolicyDocument, presets: Mapping[str, Preset], report: Report) -> None:
    names: set[str] = set()
    for index, deny in enumerate(document.deny):
        path = ("deny", index)
        if deny.name in names:
            report.add("E18", f"a second deny rule {deny.name}", "rename one", *path, "name")
        names.add(deny.name)
        _lint_names(deny, document, report, path)
        if deny.when is not UNSET:
            compile_when(deny.when, report, (*path, "when"))
        # A misspelt claim would deny nobody.
        asked = _presets_of(document, given(deny.issuers, tuple(document.issuers)), presets)
        lint_claim_names(given(deny.claims, {}), asked, report, (*path, "claims"))
        conditions = (deny.projects, deny.issuers, deny.when, deny.claims)
        if all(condition is UNSET for condition in conditions):
            what = "a deny rule without any condition"
            report.add("E15", what, "add projects, issuers, when or claims", *path)


def _presets_of(
    document: PolicyDocument, issuers: Iterable[str], presets: Mapping[str, Preset]
) -> list[Preset]:
    found = [document.issuers[name].preset for name in issuers if name in document.issuers]
    return [presets[name] for name in found if name in presets]


def _lint_names(
    deny: DenyDocument, document: PolicyDocument, report: Report, path: tuple[Step, ...]
) -> None:
    for name in given(deny.projects, ()):
        if name not in document.projects:
            report.add("E17", f"there is no project {name}", "name one", *path, "projects")
    for name in given(deny.issuers, ()):
        if name not in document.issuers:
            report.add("E17", f"there is no issuer {name}", "name one", *path, "issuers")


def lint_epochs(document: PolicyDocument, report: Report) -> None:
    for text in document.epochs:
        _lint_full_namespace(document, text, report, ("epochs", text))


def _lint_full_namespace(
    document: PolicyDocument, text: str, report: Report, path: tuple[Step, ...]
) -> None:
    try:
        namespace = Namespace.parse(text)
    except ValueError as error:
        fix = "write project:kind/id, such as mono:branch/main"
        report.add("E15", f"{show(text)}: {error}", fix, *path)
        return
    if namespace.project not in document.projects:
        what = f"there is no project {namespace.project}, so this takes nothing back"
        report.add("E17", what, "check its spelling", *path)


def lint_revocations(
    document: PolicyDocument, presets: Mapping[str, Preset], report: Report, *, now: float
) -> None:
    ids: set[str] = set()
    for index, revocation in enumerate(document.revocations):
        path = ("revocations", index)
        if revocation.id in ids:
            report.add("E18", f"a second revocation {revocation.id}", "rename one", *path, "id")
        ids.add(revocation.id)
        _lint_match(document, revocation, report, (*path, "match"))
        _lint_facts(document, revocation, presets, report, (*path, "match"))
        since = _time(revocation.since, report, (*path, "since"))
        until = _time(revocation.until, report, (*path, "until"))
        if since is not None and until is not None and since > until:
            what = "until comes before since, so this takes nothing back"
            report.add("E13", what, "swap them", *path, "until")
        if until is not None and until + _longest_ttl(document) < now:
            what = "nothing that this can cover should be left"
            fix = "look for them in the log, then delete it"
            report.add("W05", what, fix, *path, "until")


def _time(text: str | UnsetType, report: Report, path: tuple[Step, ...]) -> int | None:
    if isinstance(text, UnsetType):
        return None
    try:
        return parse_rfc3339(text)
    except ValueError:
        report.add("E13", f"there is no time {show(text)}", "write 2026-01-02T03:04:05Z", *path)
        return None


def _longest_ttl(document: PolicyDocument) -> int:
    longest = 0
    for rules in document.rulesets.values():
        for rule in rules:
            if rule.write is UNSET:
                continue
            if rule.quota is UNSET or rule.quota.ttl is UNSET:
                return UNLIMITED_TTL_SECONDS
            longest = max(longest, seconds(rule.quota.ttl))
    return longest


def _lint_match(
    document: PolicyDocument,
    revocation: RevocationDocument,
    report: Report,
    path: tuple[Step, ...],
) -> None:
    """A revocation with a slip of the pen takes nothing back, so what can be checked is."""
    match = revocation.match
    keys = [key for key in match.__struct_fields__ if getattr(match, key) is not UNSET]
    if not keys:
        report.add("E15", "an empty match would take back everything", "name something", *path)
    times = (revocation.since, revocation.until)
    if keys and set(keys) <= _WIDE and all(time is UNSET for time in times):
        what = f"takes back all that its {' and '.join(keys)} ever wrote and ever will write"
        report.add("W11", what, "add since and until, or a writer, run or namespace", *path)
    checks: dict[str, Callable[[str], object]] = {
        "key": parse_key,
        "jti_sha256": _check_sha256,
        "policy_sha256": _check_sha256,
    }
    known = {
        "project": frozenset(document.projects),
        "issuer": frozenset(document.issuers)
        | {issuer.iss for issuer in document.issuers.values() if isinstance(issuer.iss, str)},
    }
    for key in keys:
        for value in sorted(any_of(getattr(match, key))):
            if key == "namespace":
                _lint_full_namespace(document, value, report, (*path, key))
            elif key in known and value not in known[key]:
                what = f"there is no {key} {show(value)}, so this takes nothing back"
                report.add(
                    "E17", what, f"the choice is {', '.join(sorted(known[key]))}", *path, key
                )
            elif key in checks:
                _lint_form(checks[key], value, report, (*path, key))


def _lint_facts(
    document: PolicyDocument,
    revocation: RevocationDocument,
    presets: Mapping[str, Preset],
    report: Report,
    path: tuple[Step, ...],
) -> None:
    """W09: no issuer that it speaks of has such a fact in its tokens; W12: or not this one."""
    named = revocation.match.issuer
    issuers = document.issuers if named is UNSET else any_of(named)
    asked = _presets_of(document, issuers, presets)
    for fact in FACTS:
        if getattr(revocation.match, fact) is UNSET or not asked:
            continue
        claims = [preset.facts.get(fact, fact) for preset in asked]
        known = any(
            preset.mappable or claim in preset.known_claims
            for preset, claim in zip(asked, claims, strict=True)
        )
        if not known:
            what = f"no token that this speaks of has a {fact}"
            report.add("W09", what, "match by namespace, rule or jti_sha256", *path, fact)
        elif not any(preset.mappable for preset in asked):
            _lint_ids(fact, revocation, report, (*path, fact))


def _lint_ids(
    fact: str, revocation: RevocationDocument, report: Report, path: tuple[Step, ...]
) -> None:
    """W12: a name, or the beginning of a hash, where providers have a number or the whole."""
    whole, what = (_COMMIT, "hash") if fact == "commit" else (_NUMBER, "number")
    for value in sorted(any_of(getattr(revocation.match, fact))):
        if whole.fullmatch(value) is None:
            found = f"no token has the {fact} {show(value)}, so this takes nothing back"
            report.add("W12", found, f"write the whole {what}, as the entry has it", *path)


def _lint_form(
    check: Callable[[str], object], value: str, report: Report, path: tuple[Step, ...]
) -> None:
    try:
        check(value)
    except ValueError as error:
        report.add("E15", f"{show(value)}: {error}", "copy it from the entry", *path)


def _check_sha256(text: str) -> None:
    if _SHA256.fullmatch(text) is None:
        raise ValueError("not a lower-case hex SHA-256")


def lint_anonymous(document: PolicyDocument, report: Report) -> None:
    rule = document.anonymous
    if isinstance(rule, UnsetType):
        return
    if rule.project not in document.projects:
        what = f"there is no project {rule.project}"
        report.add("E17", what, "name a project of this file", "anonymous", "project")
    elif is_private(document.projects[rule.project]):
        what = f"the project {rule.project} is private"
        report.add(
            "E19", what, "delete the rule, or say visibility: public", "anonymous", "project"
        )
    if _PUBLIC_READ not in rule.ack:
        what = "anybody who can reach the server reads this"
        report.add("E19", what, f"if that is meant, add `ack: [{_PUBLIC_READ}]`", "anonymous")
    for index, text in enumerate(rule.read):
        path = ("anonymous", "read", index)
        if text in {"self", "base"}:
            what = f"a request without a token has no {text}"
            report.add("E19", what, "name the namespaces, such as branch/main", *path)
        else:
            lint_namespace(text, report, path)
