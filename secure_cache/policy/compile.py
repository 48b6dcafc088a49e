"""From a clean document to the immutable object that answers.

What it answers is in `decide`; what it takes back, in `revoke`.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from msgspec import UNSET

from secure_cache.model.clock import parse_rfc3339
from secure_cache.model.entry import Entry
from secure_cache.model.identity import ContextKind, Identity
from secure_cache.model.names import Namespace
from secure_cache.model.tiers import Tier
from secure_cache.policy import decide, revoke
from secure_cache.policy.compiled import (
    CompiledProject,
    Deny,
    Own,
    Read,
    Revocation,
    Rule,
    Tables,
)
from secure_cache.policy.conditions import When, any_of, claim_checks
from secure_cache.policy.decision import Decision, Hidden, Issuer
from secure_cache.policy.finding import Finding
from secure_cache.policy.issuers import compile_issuer, given, match_alternatives
from secure_cache.policy.lattice import NamespaceTiers
from secure_cache.policy.preset import Preset
from secure_cache.policy.schema import (
    DenyDocument,
    ImportDocument,
    PolicyDocument,
    ProjectDocument,
    RevocationDocument,
    RevocationMatch,
    RuleDocument,
)


@dataclass(frozen=True, slots=True)
class CompiledPolicy:
    """A policy in force. Immutable, deterministic, total: implements `decision.Policy`.

    Attributes:
        sha256: hex SHA-256 of the file's bytes.
        document: what the admin wrote, for `explain` and `diff`.
        tables: what decides.
        warnings: the findings with which it loaded.
    """

    sha256: str
    document: PolicyDocument
    tables: Tables
    warnings: tuple[Finding, ...] = ()

    @property
    def audience(self) -> str:
        return self.document.audience

    @property
    def public_log(self) -> bool:
        return self.document.log.public

    @property
    def require_tests(self) -> bool:
        return self.document.require_tests

    @property
    def shadow_policy(self) -> str | None:
        """The name of a policy that is only compared with this one."""
        name = self.document.shadow_policy
        return name if isinstance(name, str) else None

    @property
    def issuers(self) -> tuple[Issuer, ...]:
        return tuple(compiled.issuer for compiled in self.tables.issuers.values())

    @property
    def projects(self) -> tuple[str, ...]:
        return tuple(self.tables.projects)

    def issuer(self, iss: str) -> Issuer | None:
        found = self.tables.issuers.get(iss)
        return None if found is None else found.issuer

    def decide(self, identity: Identity) -> Decision:
        return decide.decide(self.tables, identity)

    def decide_anonymous(self) -> Decision:
        return self.tables.anonymous

    def refuses_token(self, identity: Identity, *, now: float) -> Hidden | None:
        return revoke.refuses_token(self.tables, identity, now=now)

    def hides(self, entry: Entry, *, now: float) -> Hidden | None:
        return revoke.hides(self.tables, entry, now=now)

    def epoch(self, namespace: Namespace) -> int:
        return self.tables.epochs.get(str(namespace), 0)


def compile_policy(
    document: PolicyDocument,
    data: bytes,
    *,
    presets: Mapping[str, Preset],
) -> CompiledPolicy:
    """Compile a document that `lint` has found clean. `data` is the file, for its digest."""
    return CompiledPolicy(
        sha256=hashlib.sha256(data).hexdigest(),
        document=document,
        tables=compile_tables(document, presets),
    )


def compile_tables(document: PolicyDocument, presets: Mapping[str, Preset]) -> Tables:
    issuers = [compile_issuer(document, name, presets) for name in document.issuers]
    tiers = {name: _tiers(document, name) for name in document.projects}
    projects = {name: _project(document, name, tiers) for name in document.projects}
    of_issuer = {
        name: tuple(project for project in projects.values() if name in project.issuers)
        for name in document.issuers
    }
    return Tables(
        issuers=MappingProxyType({found.issuer.iss: found for found in issuers}),
        projects=MappingProxyType(projects),
        projects_of_issuer=MappingProxyType(of_issuer),
        denies=tuple(_deny(deny) for deny in document.deny),
        revocations=tuple(_revocation(revocation) for revocation in document.revocations),
        epochs=MappingProxyType(dict(document.epochs)),
        anonymous=_anonymous(document),
    )


def local_namespace(project: str, text: str) -> Namespace:
    """Read `kind/id` inside a project.

    Raises:
        ValueError: not in that form.
    """
    kind, slash, namespace_id = text.partition("/")
    if not slash or ":" in kind:
        raise ValueError("a namespace of the same project is written kind/id")
    return Namespace(project, kind, namespace_id)


def _tiers(document: PolicyDocument, name: str) -> NamespaceTiers:
    rules = document.rulesets[document.projects[name].ruleset]
    return NamespaceTiers.of((When.of(rule.when), Tier.parse(rule.tier)) for rule in rules)


def _project(
    document: PolicyDocument, name: str, tiers: Mapping[str, NamespaceTiers]
) -> CompiledProject:
    project = document.projects[name]
    rules = tuple(_rule(rule, name, project, tiers) for rule in document.rulesets[project.ruleset])
    by_kind = {
        kind: tuple(rule for rule in rules if rule.when.kind is kind) for kind in ContextKind
    }
    return CompiledProject(
        name=name,
        issuers=frozenset(project.issuers),
        matches=tuple(claim_checks(claims) for claims in match_alternatives(project.match)),
        rules=rules,
        by_kind=MappingProxyType(by_kind),
        tiers=tiers[name],
    )


def _rule(
    rule: RuleDocument, project: str, of: ProjectDocument, tiers: Mapping[str, NamespaceTiers]
) -> Rule:
    when = When.of(rule.when)
    tier = Tier.parse(rule.tier)
    reads = tuple(_read(project, text) for text in rule.read)
    # A rule that reads nothing asks for nothing of others either; a trusted one never does.
    imports = () if tier is Tier.TRUSTED or not reads else _imports(of.import_)
    return Rule(
        name=rule.name,
        when=when,
        claims=claim_checks(given(rule.claims, {})),
        tier=tier,
        writes=rule.write is not UNSET,
        reads=reads,
        imports=imports,
        granted=tuple(
            read
            for read in (*reads, *imports)
            if isinstance(read, Own) or tiers[read.project].of_namespace(read) >= tier
        ),
        audit=rule.audit,
        when_text=f"the job is not {when}",
    )


def _read(project: str, text: str) -> Read:
    if text in {own.value for own in Own}:
        return Own(text)
    return local_namespace(project, text)


def _imports(imports: tuple[ImportDocument, ...]) -> tuple[Namespace, ...]:
    return tuple(
        local_namespace(found.project, text) for found in imports for text in found.namespaces
    )


def _deny(deny: DenyDocument) -> Deny:
    return Deny(
        name=deny.name,
        projects=frozenset(given(deny.projects, ())),
        issuers=frozenset(given(deny.issuers, ())),
        when=None if deny.when is UNSET else When.of(deny.when),
        claims=claim_checks(given(deny.claims, {})),
    )


def _revocation(revocation: RevocationDocument) -> Revocation:
    match = tuple(
        (key, any_of(values))
        for key in RevocationMatch.__struct_fields__
        if (values := getattr(revocation.match, key)) is not UNSET
    )
    return Revocation(
        id=revocation.id,
        match=match,
        since=None if revocation.since is UNSET else parse_rfc3339(revocation.since),
        until=None if revocation.until is UNSET else parse_rfc3339(revocation.until),
    )


def _anonymous(document: PolicyDocument) -> Decision:
    rule = document.anonymous
    if rule is UNSET:
        return decide.NO_ANONYMOUS
    read = tuple(local_namespace(rule.project, text) for text in rule.read)
    return decide.anonymous_decision(rule.project, read)
