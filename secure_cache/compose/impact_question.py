"""What an impact is asked about: an edited policy, one revocation of it, or a file with one."""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from secure_cache.audit.impact import Question
from secure_cache.compose.policies import load_policy, read_document
from secure_cache.compose.policy_log import PolicyLog
from secure_cache.identity.presets import load_presets
from secure_cache.model.clock import Clock
from secure_cache.model.errors import InvalidPolicy, LogInconsistent, Malformed
from secure_cache.policy.compile import CompiledPolicy, compile_policy
from secure_cache.policy.compiled import Revocation
from secure_cache.policy.convert import convert
from secure_cache.policy.finding import Finding
from secure_cache.policy.lint_taken import lint_revocations
from secure_cache.policy.loader import ListNode, MapNode, Node, ScalarNode, load_yaml
from secure_cache.policy.past import read_past_policy
from secure_cache.policy.report import Report
from secure_cache.policy.schema import Document, RevocationDocument

_LIST = "revocations"


class _RevocationFile(Document, frozen=True, kw_only=True):
    revocations: tuple[RevocationDocument, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """What somebody thinks of putting in force. At least one of the two.

    Attributes:
        policy: an edited policy file.
        revocation: the id of one that stands in it; without a policy a file with some.
    """

    policy: Path | None
    revocation: str | None


@dataclass(frozen=True, slots=True)
class Asked:
    """The question, and what belongs to it.

    Attributes:
        policy_event: the entry of the log that put the policy in force.
        warnings: what lint has to say about a file of revocations.
    """

    question: Question
    policy_event: int
    warnings: tuple[Finding, ...] = ()


async def ask_about(change: Change, policies: PolicyLog, *, clock: Clock) -> Asked:
    """Compare a change with the policy that the log says is in force.

    Raises:
        Misconfigured, InvalidPolicy: the file. Malformed: it has no such revocation.
        NotFound, LogInconsistent, CorruptObject: the policy in force is not to be had, or not
            proved.
    """
    now = clock()
    events = policies.proved.events
    if not events:
        raise LogInconsistent("the log names no policy that is in force")
    sha256, index = events[-1].sha256, events[-1].index
    text = await policies.source.policy_text(sha256)
    today = read_past_policy(text, name=f"policy {sha256}", presets=load_presets(), now=now)
    if change.policy is not None:
        then = load_policy(change.policy, clock)
        return Asked(Question.about(today, then, _chosen(change, then), now=now), index)
    if change.revocation is None:
        raise Malformed("neither a policy nor a revocation")
    then, warnings = with_revocations(today, Path(change.revocation), now=now)
    question = Question.about(today, then, then.tables.revocations, now=now)
    return Asked(question, index, warnings)


def _chosen(change: Change, then: CompiledPolicy) -> tuple[Revocation, ...] | None:
    if change.revocation is None:
        return None
    known = {item.id: item for item in then.tables.revocations}
    if change.revocation not in known:
        names = ", ".join(known) or "none"
        raise Malformed(f"{change.policy} has no revocation {change.revocation!a}; it has: {names}")
    return (known[change.revocation],)


def with_revocations(
    today: CompiledPolicy, path: Path, *, now: float
) -> tuple[CompiledPolicy, tuple[Finding, ...]]:
    """Today's policy with the revocations of a file in place of its own, and lint's warnings.

    The file holds one revocation, a list of them, or `revocations:` with a list.

    Raises:
        Misconfigured: it cannot be read. InvalidPolicy: it is wrong.
    """
    name = str(path)
    node = _as_policy(load_yaml(read_document(path), name=name))
    found = convert(node, _RevocationFile, name=name).revocations
    report = Report(node, name)
    document = msgspec.structs.replace(today.document, revocations=found)
    lint_revocations(document, load_presets(), report, now=now)
    if not found:
        raise Malformed(f"{name} holds no revocation")
    if report.has_errors():
        raise InvalidPolicy(f"{name}: first: {report.findings[0]}", report.findings)
    compiled = compile_policy(document, b"", presets=load_presets())
    return compiled, report.findings


def _as_policy(node: Node) -> Node:
    if isinstance(node, MapNode) and node.find(_LIST) is not None:
        return node
    items = node if isinstance(node, ListNode) else ListNode((node,), node.at)
    key = ScalarNode(_LIST, _LIST, unclear=False, plain=True, at=node.at)
    return MapNode(((key, items),), node.at)
