"""What one identity may do: the matching semantics, in this order.

1. issuer, by its exact `iss`;
2. its pins;
3. project: exactly one whose `match` holds (for tokens of this server: the claim `prj`);
4. the preset reads the claims and gives the job's context, or cannot tell;
5. deny rules;
6. the project's rules, top-down: the first whose `when` and `claims` hold, and, if it is a
   trusted rule, only for a job that proves that it runs the branch's own code;
7. one write namespace or none, and the namespaces to read, in order.

Whatever does not get to 7 is denied. Every step is total: no identity makes it raise. Two guards of
the lattice hold here whatever the rules say: a namespace is written only at its own tier, and
nothing below the rule's tier is read.
"""

from dataclasses import dataclass

from secure_cache.model.identity import Context, Identity
from secure_cache.model.names import Namespace
from secure_cache.model.tiers import Tier
from secure_cache.policy.compiled import CompiledIssuer, CompiledProject, Own, Rule, Tables
from secure_cache.policy.conditions import first_failing, namespace_subject
from secure_cache.policy.decision import Decision
from secure_cache.policy.preset import Claims, Unclassifiable

PROJECT_CLAIM = "prj"


@dataclass(frozen=True, slots=True)
class Job:
    """An identity that has passed steps 1 to 5."""

    issuer: CompiledIssuer
    project: CompiledProject
    context: Context
    claims: Claims
    own: Namespace | None


def decide(tables: Tables, identity: Identity) -> Decision:
    """Steps 1 to 7. Never raises; no match is a denial."""
    job = find_job(tables, identity)
    if isinstance(job, Decision):
        return job
    for rule in job.project.by_kind.get(job.context.kind, ()):
        if rule.mismatch(job.context, job.claims) is None:
            return grant(job, rule)
    return _denied("no rule matches this job", job.project.name, job.context)


def find_job(tables: Tables, identity: Identity) -> Job | Decision:
    """Steps 1 to 5, or the denial in which they end."""
    claims = identity.claim_map
    issuer = tables.issuers.get(identity.iss)
    if issuer is None:
        return _denied("the policy does not know this issuer")
    failing = first_failing(issuer.pins, claims)
    if failing is not None:
        return _denied(f"the claim {failing.name} is not what the issuer is pinned to")
    project = _find_project(tables, issuer, claims)
    if isinstance(project, str):
        return _denied(project)
    return _classified(tables, issuer, project, claims)


def _classified(
    tables: Tables, issuer: CompiledIssuer, project: CompiledProject, claims: Claims
) -> Job | Decision:
    """Steps 4 and 5."""
    context = issuer.issuer.preset.classify(claims, issuer.issuer.options)
    if isinstance(context, Unclassifiable):
        return _denied(context.why, project.name)
    if context.trustable and not issuer.trustable:
        context = _untrusted(context)
    for deny in tables.denies:
        if deny.applies(project.name, issuer.issuer.name, context, claims):
            return _denied(f"the deny rule {deny.name} covers this job", project.name, context)
    try:
        own = _own_namespace(project.name, context)
    except ValueError:
        return _denied("this job's namespace cannot be named", project.name, context)
    return Job(issuer, project, context, claims, own)


def grant(job: Job, rule: Rule) -> Decision:
    """Step 7."""
    reason = f"rule {rule.name}"
    own = job.own
    own_tier = Tier.CONTRIBUTOR if own is None else job.project.tiers.of_namespace(own)
    write = None
    if rule.writes and own is not None:
        if own_tier is rule.tier and _names(rule, own):
            write = own
        else:
            reason += f"; it may not write its namespace, which is kept for {own_tier} jobs"
    return Decision(
        allowed=True,
        reason=reason,
        project=job.project.name,
        rule=rule.name,
        tier=rule.tier,
        write=write,
        read=_reads(job, rule, own_tier),
        audit=rule.audit,
        context=job.context,
    )


def _find_project(tables: Tables, issuer: CompiledIssuer, claims: Claims) -> CompiledProject | str:
    """Step 3; a text says why there is none."""
    candidates = tables.projects_of_issuer.get(issuer.issuer.name, ())
    if issuer.issuer.preset.self_issued:
        wanted = claims.get(PROJECT_CLAIM)
        found = [project for project in candidates if project.name == wanted]
    else:
        found = [project for project in candidates if project.claims_match(claims)]
    if len(found) == 1:
        return found[0]
    if found:
        return "more than one project matches these claims"
    return "no project that lists this issuer matches these claims"


def _untrusted(context: Context) -> Context:
    return Context(
        context.kind,
        context.name,
        context.namespace_kind,
        context.namespace_id,
        context.base,
        trustable=False,
    )


def _own_namespace(project: str, context: Context) -> Namespace | None:
    if not context.namespace_id:
        return None
    return Namespace(project, context.namespace_kind, context.namespace_id)


def _names(rule: Rule, own: Namespace) -> bool:
    """Above contributor a rule gives only namespaces that it speaks of by their own names."""
    if rule.tier is Tier.CONTRIBUTOR:
        return True
    subject = namespace_subject(own.kind, own.id)
    return subject is not None and rule.when.speaks_of(subject)


def _reads(job: Job, rule: Rule, own_tier: Tier) -> tuple[Namespace, ...]:
    """What the rule grants, in its order and without repetition. `rule.granted` holds no fixed
    namespace below the rule's tier; what depends on the job is judged here."""
    found: dict[Namespace, None] = {}
    for read in rule.granted:
        if isinstance(read, Namespace):
            found[read] = None
            continue
        # A base is trusted, or it is none: see `_base`.
        namespace = _base(job) if read is Own.BASE else job.own
        if namespace is not None and (read is Own.BASE or own_tier >= rule.tier):
            found[namespace] = None
    return tuple(found)


def _base(job: Job) -> Namespace | None:
    base = job.context.base
    # An untrusted base is somebody else's unreviewed branch.
    if not base or not job.project.tiers.trusts_branch(base):
        return None
    try:
        return Namespace(job.project.name, "branch", base)
    except ValueError:
        return None


def _denied(reason: str, project: str | None = None, context: Context | None = None) -> Decision:
    return Decision(allowed=False, reason=reason, project=project, context=context)


NO_ANONYMOUS = _denied("a request without a token gets nothing here")


def anonymous_decision(project: str, read: tuple[Namespace, ...]) -> Decision:
    """What the `anonymous` rule grants: reads, never a write."""
    return Decision(
        allowed=True,
        reason="the anonymous rule",
        project=project,
        rule="anonymous",
        tier=Tier.CONTRIBUTOR,
        read=read,
    )
