"""`secure-cache policy`: for admins, before a server sees the file."""

import json
import shutil
from pathlib import Path

import pytest

POLICIES = Path(__file__).resolve().parents[2] / "policies"
EXAMPLES = sorted(path for path in POLICIES.glob("*.yaml") if not path.stem.endswith("_test"))


@pytest.fixture
def policy(tmp_path):
    """A policy and its test file, to be edited."""
    for name in ("self-issued.yaml", "self-issued_test.yaml"):
        shutil.copy(POLICIES / name, tmp_path / name)
    return tmp_path / "self-issued.yaml"


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_there_are_examples():
    assert len(EXAMPLES) >= 4


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_lints_and_passes_its_tests(path, call):
    assert call("policy", "lint", path).code == 0
    done = call("policy", "test", path)
    assert done.code == 0
    assert "FAILED" not in done.out


def test_test_files_are_linted_as_such(call):
    done = call("policy", "lint", *sorted(POLICIES.glob("*.yaml")))
    assert done.code == 0


def test_a_finding_says_file_line_column_code_and_fix(policy, call):
    edit(policy, "tier: trusted", "teir: trusted")
    done = call("policy", "lint", policy)
    assert done.code == 1
    assert f"{policy}:" in done.out
    assert "E01" in done.out
    assert "did you mean tier?" in done.out
    assert "errors" in done.err


def test_findings_come_as_json(policy, call):
    edit(policy, "version: 1", "version: 2")
    done = call("policy", "lint", policy, "--json")
    assert done.code == 1
    (finding,) = json.loads(done.out)
    assert finding["severity"] == "error"
    assert (finding["path"], finding["line"]) == (str(policy), 4)
    assert finding["code"].startswith("E")
    assert finding["fix"]


def test_warnings_fail_only_when_told_to(policy, call):
    policy.with_name("self-issued_test.yaml").unlink()
    done = call("policy", "lint", policy)
    assert done.code == 0
    assert "W02" in done.out
    assert call("policy", "lint", policy, "--strict").code == 1


def test_a_clean_file_prints_nothing_and_an_empty_list(policy, call):
    assert call("policy", "lint", policy, "--strict").out == ""
    assert json.loads(call("policy", "lint", policy, "--json").out) == []


def test_a_test_file_that_is_not_one_is_found(policy, call):
    tests = policy.with_name("self-issued_test.yaml")
    edit(tests, "cases:", "case:")
    assert call("policy", "lint", tests).code == 1
    done = call("policy", "test", policy)
    assert done.code == 2
    assert "E01" in done.err


@pytest.mark.parametrize("line", ["lint", "test", "explain", "diff"])
def test_a_file_that_is_missing_is_named(line, call, tmp_path):
    rest = {"explain": ["--claims", "{}"], "diff": [tmp_path / "none"]}.get(line, [])
    done = call("policy", line, tmp_path / "none", *rest)
    assert done.code == 2
    assert done.err == (
        f"secure-cache: {tmp_path / 'none'}: No such file or directory: give a policy file\n"
    )


@pytest.mark.parametrize("line", ["lint", "test", "explain", "diff"])
def test_a_folder_in_place_of_a_file_is_named(line, call):
    rest = {"explain": ["--claims", "{}"], "diff": ["."]}.get(line, [])
    done = call("policy", line, ".", *rest)
    assert (done.code, done.err) == (2, "secure-cache: .: Is a directory: give a policy file\n")


def test_a_failing_case_is_told_and_the_answer_is_no(policy, call):
    edit(policy, "read: [branch/main, self]", "read: [self]")
    done = call("policy", "test", policy)
    assert done.code == 1
    assert "FAILED" in done.out
    assert "'feature branch' (line" in done.out
    results = json.loads(call("policy", "test", policy, "--json").out)
    assert {result["name"] for result in results if not result["passed"]} == {
        "feature branch",
        "case",
    }


def test_failing_cases_are_told_also_when_the_policy_requires_them(policy, call):
    edit(policy, "read: [branch/main, self]", "read: [self]")
    policy.write_text(policy.read_text() + "\nrequire_tests: true\n")
    done = call("policy", "test", policy)
    assert done.code == 1
    assert "'feature branch' (line" in done.out
    assert call("policy", "lint", policy).code == 1


def test_a_policy_without_tests_says_where_they_would_be(policy, call):
    policy.with_name("self-issued_test.yaml").unlink()
    done = call("policy", "test", policy)
    assert done.code == 2
    assert "self-issued_test.yaml" in done.err


def test_a_policy_with_errors_is_not_tested(policy, call):
    edit(policy, "tier: trusted", "tier: trusty")
    for line in (["test", policy], ["explain", policy, "--claims", "{}"], ["diff", policy, policy]):
        done = call("policy", *line)
        assert done.code == 2
        assert "E15" in done.err
        assert done.out == ""


def test_explain_says_for_every_rule_what_failed_first(policy, call):
    claims = '{"iss": "self", "prj": "demo", "branch": "fix"}'
    done = call("policy", "explain", policy, "--claims", claims)
    assert done.code == 0
    assert "rule main: the job is not branch: main" in done.out
    assert "rule feature-branch: matches, and decides" in done.out
    said = json.loads(call("policy", "explain", policy, "--claims", claims, "--json").out)
    assert said["decision"]["write"] == "branch/fix"
    assert [rule["rule"] for rule in said["rules"] if rule["decided"]] == ["feature-branch"]


def test_explain_reads_claims_from_a_file(policy, call, tmp_path):
    file = tmp_path / "claims.json"
    file.write_text('{"iss": "self", "prj": "demo", "role": "auditor"}')
    assert "audit" in call("policy", "explain", policy, "--claims-file", file).out


def test_explain_reads_a_token_and_says_that_it_is_not_verified(policy, call, installation):
    token = call(
        "token", "issue", "--config", installation.config, "--project", "demo", "--branch", "x"
    ).out
    file = policy.with_name("token")
    file.write_text(token)
    done = call("policy", "explain", policy, "--token-file", file)
    assert done.code == 0
    assert "rule feature-branch: matches, and decides" in done.out
    assert "not checked" in done.err
    assert token.strip() not in done.out + done.err


@pytest.mark.parametrize("claims", ["", "[]", "{", '{"iss": 1, "iss": 2}', '{"a": NaN}', '"x"'])
def test_claims_that_are_not_one_object_are_refused(claims, policy, call):
    done = call("policy", "explain", policy, "--claims", claims)
    assert done.code == 2
    assert done.err.count("\n") == 1


def test_explain_wants_exactly_one_source(policy, call):
    assert call("policy", "explain", policy).code == 2
    done = call("policy", "explain", policy, "--claims", "{}", "--claims-file", "x")
    assert done.code == 2
    assert "exactly one" in done.err


def test_what_a_claim_holds_cannot_steer_the_terminal(policy, call):
    claims = json.dumps({"iss": "\x1b[2J", "prj": "demo", "branch": "\u202emain"})
    done = call("policy", "explain", policy, "--claims", claims)
    assert "\x1b" not in done.out
    assert "\u202e" not in done.out


def test_diff_says_what_changes_and_which_way(policy, call, tmp_path):
    new = tmp_path / "new.yaml"
    shutil.copy(policy, new)
    assert call("policy", "diff", policy, new).out == "no difference\n"
    edit(new, "read: [branch/main, self]", "read: [self]")
    done = call("policy", "diff", policy, new, "--cases", tmp_path / "self-issued_test.yaml")
    assert done.code == 0
    assert "tightened: demo: rule feature-branch: read" in done.out
    assert "'feature branch': " in done.out
    assert call("policy", "diff", policy, new, "--exit-code").code == 1
    said = json.loads(call("policy", "diff", policy, new, "--json").out)
    assert said["grants"] == [{"direction": "tightened", "what": "demo: rule feature-branch: read"}]


def test_the_schema_is_the_one_that_editors_are_given(call):
    done = call("policy", "schema")
    assert done.code == 0
    assert json.loads(done.out) == json.loads((POLICIES / "policy.v1.schema.json").read_text())
