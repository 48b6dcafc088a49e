"""Why an identity gets what it gets: every step, and for every rule the first failing condition."""

from dataclasses import dataclass

from secure_cache.model.identity import Context, Identity
from secure_cache.policy.cases import describe
from secure_cache.policy.compile import CompiledPolicy
from secure_cache.policy.decide import Job, find_job
from secure_cache.policy.decision import Decision
from secure_cache.policy.finding import show


@dataclass(frozen=True, slots=True)
class RuleStep:
    """One rule: `failed` is its first failing condition, None when it matched; `decided` is true
    for the one rule that counted, and `skipped` for those below it."""

    rule: str
    failed: str | None
    decided: bool = False

    def __str__(self) -> str:
        if self.decided:
            return f"rule {self.rule}: matches, and decides"
        return f"rule {self.rule}: " + (self.failed or "matches, but a rule above has decided")


@dataclass(frozen=True, slots=True)
class Explanation:
    """The whole way of one identity through the policy.

    Attributes:
        issuer: its name in the policy; None when the policy does not know its `iss`.
        project: the one project, or None.
        context: what the preset made of the claims, or None.
        rules: empty when the way ended before them.
        decision: the answer.
    """

    issuer: str | None
    project: str | None
    context: Context | None
    rules: tuple[RuleStep, ...]
    decision: Decision

    def __str__(self) -> str:
        lines = [
            f"issuer:   {self.issuer or 'unknown'}",
            f"project:  {self.project or 'none'}",
            f"context:  {_context_text(self.context)}",
            *map(str, self.rules),
            f"decision: {describe(self.decision)}",
        ]
        return "\n".join(lines)


def explain(policy: CompiledPolicy, identity: Identity) -> Explanation:
    """The same steps as `decide`, with their reasons. Never raises."""
    decision = policy.decide(identity)
    issuer = policy.issuer(identity.iss)
    job = find_job(policy.tables, identity)
    steps: list[RuleStep] = []
    if isinstance(job, Job):
        decided = False
        for rule in job.project.rules:
            failed = rule.mismatch(job.context, job.claims)
            steps.append(RuleStep(rule.name, failed, decided=failed is None and not decided))
            decided = decided or failed is None
    return Explanation(
        issuer=None if issuer is None else issuer.name,
        project=decision.project,
        context=decision.context,
        rules=tuple(steps),
        decision=decision,
    )


def compare(live: CompiledPolicy, shadow: CompiledPolicy, identity: Identity) -> str | None:
    """What a shadow policy would decide differently, in one line to be logged; None when it
    agrees. It is only ever observed."""
    today, other = live.decide(identity), shadow.decide(identity)
    if _essence(today) == _essence(other):
        return None
    return f"live: {describe(today)}; shadow: {describe(other)}"


def _essence(decision: Decision) -> tuple[object, ...]:
    """What a decision grants, without how it got there."""
    return (
        decision.allowed,
        decision.project,
        decision.tier,
        decision.write,
        decision.read,
        decision.audit,
    )


def _context_text(context: Context | None) -> str:
    if context is None:
        return "none"
    parts = [f"{context.kind} {show(context.name)}"]
    if context.namespace_id:
        parts.append(f"namespace {context.namespace_kind}/{show(context.namespace_id)[1:-1]}")
    if context.base is not None:
        parts.append(f"base {show(context.base)}")
    parts.append("trustable" if context.trustable else "not trustable")
    return ", ".join(parts)
