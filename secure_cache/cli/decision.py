"""A decision of the policy, for people and for programs."""

from typing import Any

from secure_cache.model.names import Namespace
from secure_cache.policy.decision import Decision


def decision_document(decision: Decision) -> dict[str, Any]:
    """With the names of `GET /v1/whoami`."""
    context = decision.context
    return {
        "allowed": decision.allowed,
        "reason": decision.reason,
        "project": decision.project,
        "rule": decision.rule,
        "tier": str(decision.tier) if decision.tier is not None else None,
        "write": decision.write.local if decision.write else None,
        "read": [_name(space, decision.project) for space in decision.read],
        "audit": decision.audit,
        "kind": str(context.kind) if context else None,
        "name": context.name if context else None,
        "base": context.base if context else None,
        "trustable": context.trustable if context else None,
    }


def decision_lines(decision: Decision) -> list[str]:
    if not decision.allowed:
        return [f"denied: {decision.reason}"]
    read = ", ".join(_name(space, decision.project) for space in decision.read)
    lines = [
        f"rule: {decision.rule} of project {decision.project}, tier {decision.tier}",
        f"writes: {decision.write.local if decision.write else 'nothing'}",
        f"reads: {read or 'nothing'}",
    ]
    if decision.audit:
        lines.append("audits: the whole log")
    return lines


def _name(space: Namespace, project: str | None) -> str:
    return space.local if space.project == project else str(space)
