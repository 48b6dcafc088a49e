"""The way in: from the bytes of a policy file to a policy in force, or to what is wrong with it."""

from collections.abc import Mapping
from dataclasses import replace

from secure_cache.model.errors import InvalidPolicy
from secure_cache.policy.cases import CaseResult, load_cases, run_cases
from secure_cache.policy.compile import CompiledPolicy, compile_policy
from secure_cache.policy.convert import convert
from secure_cache.policy.coverage import lint_coverage
from secure_cache.policy.finding import Finding, errors_in
from secure_cache.policy.lint import lint_document, lint_lattice
from secure_cache.policy.loader import load_yaml
from secure_cache.policy.preset import Preset
from secure_cache.policy.report import Report
from secure_cache.policy.schema import PolicyDocument


def parse_policy(
    data: bytes,
    *,
    name: str,
    presets: Mapping[str, Preset],
    now: float,
    tests: bytes | None = None,
) -> CompiledPolicy:
    """Load a policy: strictly, or not at all.

    Args:
        data: the file's bytes.
        name: the file's name, for findings.
        presets: the CI providers, by name.
        now: seconds since 1970.
        tests: the bytes of the test file that goes with it.

    Raises:
        InvalidPolicy: carries every finding, warnings too.
    """
    policy, findings = _examine(data, name=name, presets=presets, now=now, tests=tests)
    errors = errors_in(findings)
    if policy is None or errors:
        raise InvalidPolicy(f"{name}: {len(errors)} errors; first: {errors[0]}", findings)
    return policy


def lint_policy(
    data: bytes,
    *,
    name: str,
    presets: Mapping[str, Preset],
    now: float,
    tests: bytes | None = None,
) -> tuple[Finding, ...]:
    """Everything that is wrong, or looks wrong, in the order of the file. Arguments as for
    `parse_policy`. Never raises."""
    return _examine(data, name=name, presets=presets, now=now, tests=tests)[1]


def _examine(
    data: bytes,
    *,
    name: str,
    presets: Mapping[str, Preset],
    now: float,
    tests: bytes | None,
) -> tuple[CompiledPolicy | None, tuple[Finding, ...]]:
    try:
        node = load_yaml(data, name=name)
        document = convert(node, PolicyDocument, name=name)
    except InvalidPolicy as error:
        return None, _findings_of(error)
    report = Report(node, name)
    lint_document(document, presets, report, now=now)
    if report.has_errors():
        return None, report.findings
    policy = compile_policy(document, data, presets=presets)
    lint_lattice(document, policy.tables, report)
    if report.has_errors():
        return None, report.findings
    try:
        results = None if tests is None else run_cases(policy, load_cases(tests, name="tests"))
    except InvalidPolicy as error:
        return None, report.findings + _findings_of(error)
    _lint_tests(policy, results, report)
    if report.has_errors():
        return None, report.findings
    return replace(policy, warnings=report.findings), report.findings


def _lint_tests(
    policy: CompiledPolicy, results: tuple[CaseResult, ...] | None, report: Report
) -> None:
    lint_coverage(policy, results, report)
    if not policy.require_tests:
        return
    fix = "a policy with require_tests loads only when its test file passes"
    if results is None:
        name = "name the test file: a server by the setting policy_tests, `policy lint` by --tests"
        report.add("E21", "the tests that it requires are missing", name, "require_tests")
    for result in results or ():
        if not result.passed:
            report.add("E21", f"failed: {result}", fix, "require_tests")


def _findings_of(error: InvalidPolicy) -> tuple[Finding, ...]:
    return tuple(finding for finding in error.findings if isinstance(finding, Finding))
