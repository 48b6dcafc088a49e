"""`secure-cache policy`."""

import json
from pathlib import Path
from typing import Any

import click

from secure_cache.cli.boundary import Exit, note, printable
from secure_cache.cli.decision import decision_document
from secure_cache.cli.options import json_option, print_json
from secure_cache.cli.source_options import place_options
from secure_cache.client.ci_token import ci_token
from secure_cache.client.http_answer import new_client
from secure_cache.compose import policies
from secure_cache.model.clock import system_clock
from secure_cache.model.errors import Misconfigured
from secure_cache.model.identity import Identity
from secure_cache.policy.cases import CaseResult, run_cases
from secure_cache.policy.compile import CompiledPolicy
from secure_cache.policy.diff import diff
from secure_cache.policy.explain import Explanation, explain
from secure_cache.policy.finding import Finding, Severity
from secure_cache.policy.schema import json_schema

_FILE = click.Path(path_type=Path)


@click.group("policy")
def policy_command() -> None:
    """Policies, before a server takes them up. Nothing here needs a server or a network."""


@policy_command.command("lint")
@click.argument("files", nargs=-1, required=True, type=_FILE)
@click.option("--tests", type=_FILE, help="The test file; by default NAME_test.yaml beside it.")
@click.option("--strict", is_flag=True, help="Warnings fail, too.")
@json_option
def lint_policies(
    files: tuple[Path, ...], tests: Path | None, *, strict: bool, as_json: bool
) -> int:
    """Say what is wrong in FILES, and what looks wrong; exit 1 when there are errors.

    A policy with an error (E..) does not load. One with warnings (W..) does.
    """
    if tests is not None and len(files) != 1:
        raise click.UsageError("--tests goes with one policy file")
    findings: list[Finding] = []
    for file in files:
        findings += policies.lint_file(file, tests or policies.tests_beside(file), system_clock)
    if as_json:
        print_json(findings)
    else:
        for finding in findings:
            click.echo(printable(str(finding)))
    errors = sum(finding.severity is Severity.ERROR for finding in findings)
    note(f"{errors} errors, {len(findings) - errors} warnings in {len(files)} files")
    return Exit.NO if errors or (strict and findings) else Exit.OK


@policy_command.command("test")
@click.argument("policy", type=_FILE)
@click.argument("tests", type=_FILE, required=False)
@json_option
def test_policy(policy: Path, tests: Path | None, *, as_json: bool) -> int:
    """Decide every case of TESTS (by default NAME_test.yaml beside POLICY); exit 1 on a failure."""
    compiled = policies.load_policy(policy, system_clock)
    found = tests or policies.tests_beside(policy)
    if found is None:
        raise Misconfigured(
            f"{policy} has no test file beside it: write"
            f" {policy.stem}_test{policy.suffix}, or name the file"
        )
    results = run_cases(compiled, policies.load_tests(found))
    failed = [result for result in results if not result.passed]
    if as_json:
        print_json([_result(result) for result in results])
    else:
        for result in results:
            prefix = "" if result.passed else f"FAILED {found}: "
            click.echo(printable(f"{prefix}{result}"))
    note(f"{len(results) - len(failed)} of {len(results)} cases passed")
    return Exit.NO if failed else Exit.OK


@policy_command.command("explain")
@click.argument("policy", type=_FILE)
@click.option("--claims", help="The claims of a token, as a JSON object.")
@click.option("--claims-file", type=_FILE, help="A file with the same.")
@click.option("--token-file", help="A file with a token (- for stdin); it is not verified.")
@click.option(
    "--entry",
    metavar="INDEX",
    type=click.IntRange(min=0),
    help="An entry of the log: would POLICY serve it? Say where the log is.",
)
@place_options
@json_option
def explain_policy(
    policy: Path,
    claims: str | None,
    claims_file: Path | None,
    token_file: str | None,
    *,
    entry: int | None,
    as_json: bool,
    **place: Any,
) -> int:
    """Say what POLICY decides for a job, and for every rule the first condition that fails.

    With --entry: whether that entry is served under POLICY, and which line of it decides; ends
    with 1 when it is not.
    """
    given = (claims, claims_file, token_file, entry)
    if sum(item is not None for item in given) != 1:
        raise click.UsageError(
            "give exactly one of --claims, --claims-file, --token-file and --entry"
        )
    compiled = policies.load_policy(policy, system_clock)
    if entry is not None:
        from secure_cache.cli.policy_entry import (  # noqa: PLC0415 - lint runs in commit hooks
            explain_entry,
        )

        return explain_entry(policy, compiled, entry, place, as_json=as_json)
    explanation = explain(compiled, _identity(compiled, claims, claims_file, token_file))
    if as_json:
        print_json(_explanation(explanation))
    else:
        for line in str(explanation).split("\n"):
            click.echo(printable(line))
    return Exit.OK


@policy_command.command("diff")
@click.argument("old", type=_FILE)
@click.argument("new", type=_FILE)
@click.option("--cases", type=_FILE, help="A test file; by default the one beside NEW.")
@click.option("--exit-code", is_flag=True, help="Exit with 1 when there is a difference.")
@json_option
def diff_policies(
    old: Path, new: Path, cases: Path | None, *, exit_code: bool, as_json: bool
) -> int:
    """Say which decisions and grants change from OLD to NEW, and whether they loosen."""
    found = cases or policies.tests_beside(new)
    difference = diff(
        policies.load_policy(old, system_clock),
        policies.load_policy(new, system_clock),
        () if found is None else policies.load_tests(found),
    )
    if as_json:
        print_json(difference)
    else:
        for line in str(difference).split("\n"):
            click.echo(printable(line))
    if found is None:
        note("Without --cases only the structure was compared.")
    return Exit.NO if exit_code and difference else Exit.OK


@policy_command.command("schema")
def print_schema() -> None:
    """Print the JSON Schema of policy files, for editors."""
    click.echo(json.dumps(json_schema(), indent=2))


def _identity(
    policy: CompiledPolicy, claims: str | None, claims_file: Path | None, token_file: str | None
) -> Identity:
    if claims is not None:
        return policies.identity_from_claims(policy, claims.encode(errors="surrogateescape"))
    if claims_file is not None:
        return policies.identity_from_claims(policy, policies.read_document(claims_file))
    source = "file:/dev/stdin" if token_file == "-" else f"file:{token_file}"  # noqa: S105
    token = ci_token(source, audience="", environ={}, client=new_client)
    note("The token's signature, audience and times are not checked here.")
    return policies.unverified_identity(policy, token)


def _result(result: CaseResult) -> dict[str, object]:
    return {
        "name": result.case.name,
        "line": result.case.line,
        "passed": result.passed,
        "expected": result.expected,
        "actual": result.actual,
    }


def _explanation(found: Explanation) -> dict[str, object]:
    return {
        "issuer": found.issuer,
        "project": found.project,
        "rules": found.rules,
        "decision": decision_document(found.decision),
    }
