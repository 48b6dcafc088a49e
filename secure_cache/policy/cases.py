"""Policy test files: tokens by their claims, and the decision that each must get.

A case's claims are laid over `base`; null takes a claim away. `iss: self` stands for tokens of this
server. As with a real token, claims that the provider is not known to send are dropped first.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from msgspec import UNSET

from secure_cache.model.identity import ClaimValue, Identity
from secure_cache.policy.compile import CompiledPolicy
from secure_cache.policy.convert import convert
from secure_cache.policy.decision import Decision
from secure_cache.policy.finding import show
from secure_cache.policy.loader import ListNode, MapNode, load_yaml
from secure_cache.policy.schema import CaseDocument, ExpectDocument, TestDocument

SELF = "self"
_NO_TOKEN = "0" * 64


@dataclass(frozen=True, slots=True)
class Case:
    """One case. `identity` needs a policy, which names the issuers.

    Attributes:
        line: where it stands in the test file.
        claims: base and own claims together; None when the request has no token.
    """

    name: str
    line: int
    claims: Mapping[str, ClaimValue] | None
    expect: ExpectDocument | None

    def decide(self, policy: CompiledPolicy) -> Decision:
        if self.claims is None:
            return policy.decide_anonymous()
        return policy.decide(identity_of(policy, self.claims))


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What became of a case.

    Attributes:
        expected: the decision in words.
        actual: the same for what the policy said, with its reason.
    """

    case: Case
    passed: bool
    expected: str
    actual: str
    decision: Decision

    def __str__(self) -> str:
        name = show(self.case.name)
        if self.passed:
            return f"ok {name}: {self.actual}"
        return f"{name} (line {self.case.line}): expected {self.expected}; got {self.actual}"


def load_cases(data: bytes, *, name: str) -> tuple[Case, ...]:
    """Read a test file.

    Raises:
        InvalidPolicy: it has errors; carries the findings.
    """
    node = load_yaml(data, name=name)
    document = convert(node, TestDocument, name=name, printable=False)
    found = node.find("cases") if isinstance(node, MapNode) else None
    items = found[1].items if found is not None and isinstance(found[1], ListNode) else ()
    return tuple(
        _case(document, case, item.at[0]) for case, item in zip(document.cases, items, strict=True)
    )


def run_cases(policy: CompiledPolicy, cases: tuple[Case, ...]) -> tuple[CaseResult, ...]:
    return tuple(_run(policy, case) for case in cases)


def identity_of(policy: CompiledPolicy, claims: Mapping[str, ClaimValue]) -> Identity:
    """The identity that a token with these claims would have."""
    iss = claims.get("iss")
    if iss == SELF:
        iss = policy.audience
    text = iss if isinstance(iss, str) else ""
    issuer = policy.issuer(text)
    kept = dict(claims)
    if issuer is not None:
        known = issuer.preset.known_claims | {claim for _, claim in issuer.options.claim_names}
        kept = {name: value for name, value in claims.items() if name in known}
    subject = claims.get("sub")
    return Identity(
        issuer="" if issuer is None else issuer.name,
        iss=text,
        subject=subject if isinstance(subject, str) else "",
        claims=tuple(sorted(kept.items())),
        token_id=_NO_TOKEN,
    )


def describe(decision: Decision) -> str:
    """A decision in one line."""
    if not decision.allowed:
        return f"deny ({decision.reason})"
    parts = [f"rule {decision.rule}", f"write {decision.write or 'nothing'}"]
    parts.append(f"read [{', '.join(map(str, decision.read))}]")
    if decision.audit:
        parts.append("audit")
    return f"{decision.tier}, " + ", ".join(parts)


def _case(document: TestDocument, case: CaseDocument, line: int) -> Case:
    claims: dict[str, Any] = {**document.base, **case.claims}
    kept = {name: value for name, value in claims.items() if value is not None}
    expect = case.expect if isinstance(case.expect, ExpectDocument) else None
    return Case(case.name, line, None if case.anonymous else kept, expect)


def _run(policy: CompiledPolicy, case: Case) -> CaseResult:
    decision = case.decide(policy)
    if case.expect is None:
        return CaseResult(case, not decision.allowed, "deny", describe(decision), decision)
    passed = decision.allowed and _agrees(decision, case.expect)
    return CaseResult(case, passed, _expected(case.expect), describe(decision), decision)


def _agrees(decision: Decision, expect: ExpectDocument) -> bool:
    project = decision.project or ""
    write = None if decision.write is None else str(decision.write)
    wanted = None if expect.write is None else _absolute(project, expect.write)
    return (
        decision.rule == expect.rule
        and write == wanted
        and [str(read) for read in decision.read]
        == [_absolute(project, text) for text in expect.read]
        and (expect.tier is UNSET or expect.tier == str(decision.tier))
        and (expect.audit is UNSET or expect.audit == decision.audit)
    )


def _absolute(project: str, text: str) -> str:
    """`branch/main` is the decision's own project's; `web:branch/main` says whose it is."""
    return text if ":" in text.partition("/")[0] else f"{project}:{text}"


def _expected(expect: ExpectDocument) -> str:
    tier = "" if expect.tier is UNSET else f"{expect.tier}, "
    read = ", ".join(expect.read)
    return f"{tier}rule {expect.rule}, write {expect.write or 'nothing'}, read [{read}]"
