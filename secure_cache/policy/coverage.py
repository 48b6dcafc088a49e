"""W02: every rule wants a case that it matches, and one near it that it must not.

Near means: a token of the same issuer that gets another decision. A rule that matches whatever the
issuer signs would pass any number of positive cases.
"""

from secure_cache.policy.cases import CaseResult
from secure_cache.policy.compile import CompiledPolicy
from secure_cache.policy.report import Report


def lint_coverage(
    policy: CompiledPolicy, results: tuple[CaseResult, ...] | None, report: Report
) -> None:
    """Report what the results, None without a test file, leave untested."""
    if results is None:
        fix = "write a test file, as beside the examples in policies/"
        report.add("W02", "no rule is tested: there is no test file", fix, "rulesets")
        return
    for name, rules in policy.document.rulesets.items():
        projects = {key for key, of in policy.document.projects.items() if of.ruleset == name}
        for index, rule in enumerate(rules):
            missing = _missing(rule.name, projects, results)
            if missing is not None:
                fix = "add one to the test file"
                path = ("rulesets", name, index, "name")
                report.add("W02", f"rule {rule.name} has no {missing} case", fix, *path)


def _missing(rule: str, projects: set[str], results: tuple[CaseResult, ...]) -> str | None:
    issuers = set()
    for result in results:
        decision = result.decision
        expect = result.case.expect
        hit = result.passed and expect is not None and expect.rule == rule
        if hit and decision.project in projects and result.case.claims is not None:
            issuers.add(result.case.claims.get("iss"))
    if not issuers:
        return "positive"
    for result in results:
        expect = result.case.expect
        other = expect is None or expect.rule != rule
        claims = result.case.claims
        if result.passed and other and claims is not None and claims.get("iss") in issuers:
            return None
    return "negative"
