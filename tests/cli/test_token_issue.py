"""`secure-cache token issue`: a token that the server accepts, alone on stdout."""

import anyio
import pytest

from secure_cache.compose.offline import open_offline
from secure_cache.identity.tokens import parse_token
from secure_cache.model.clock import system_clock
from secure_cache.settings import load_settings

BRANCH = ("--project", "demo", "--branch", "main")


@pytest.fixture
def issue(call, installation):
    return lambda *options: call("token", "issue", "--config", installation.config, *options)


@pytest.mark.parametrize(
    ("options", "rule", "write"),
    [
        (["--branch", "main"], "main", "demo:branch/main"),
        (["--branch", "fix/typo"], "feature-branch", "demo:branch/fix/typo"),
        (["--pull-request", "7", "--base", "main"], "pull-request", "demo:pr/7"),
        (["--role", "developer"], "developer", "None"),
        (["--role", "auditor"], "auditor", "None"),
    ],
)
def test_what_it_prints_verifies_against_the_keys(options, rule, write, issue, installation):
    done = issue("--project", "demo", *options)
    assert done.code == 0
    token = done.out.removesuffix("\n")
    assert token.count(".") == 2
    assert "\n" not in token
    offline = open_offline(load_settings(installation.config, {}), system_clock)
    judged = anyio.run(offline.judge, token)
    assert (judged.decision.rule, str(judged.decision.write)) == (rule, write)
    assert f"rule: {rule} of project demo" in done.err
    assert token not in done.err


def test_the_token_lives_for_an_hour_unless_told_otherwise(issue):
    claims = parse_token(issue(*BRANCH).out.strip()).unverified_claims
    assert claims["exp"] - claims["iat"] == 3600
    claims = parse_token(issue(*BRANCH, "--ttl", "90d").out.strip()).unverified_claims
    assert claims["exp"] - claims["iat"] == 90 * 86_400


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--project", "nope", "--branch", "main"], "one of: demo"),
        (["--project", "../x", "--branch", "main"], "one of: demo"),
        (["--project", "demo", "--role", "admin"], "no rule matches"),
        (["--project", "demo", "--branch", "a b"], "branch is not a usable name"),
        (["--project", "demo", "--branch", ""], "branch is not a usable name"),
        (["--project", "demo", "--branch", "x\ny"], "branch is not a usable name"),
        (["--project", "demo", "--pull-request", "x", "--base", "main"], "not a number"),
        (["--project", "demo", "--pull-request", "07", "--base", "main"], "not a number"),
        (["--project", "demo", "--pull-request", "7"], "go together"),
        (["--project", "demo", "--branch", "main", "--base", "main"], "go together"),
        (["--project", "demo"], "exactly one of"),
        (["--project", "demo", "--branch", "main", "--role", "auditor"], "exactly one of"),
        (["--branch", "main"], "--project"),
        ([*BRANCH, "--ttl", "91d"], "at most 7776000 seconds"),
        (["--project", "demo", "--role", "auditor", "--ttl", "13h"], "at most 43200 seconds"),
        ([*BRANCH, "--ttl", "0h"], "length of time"),
        ([*BRANCH, "--ttl", "1"], "length of time"),
        ([*BRANCH, "--ttl", "-1h"], "length of time"),
        ([*BRANCH, "--ttl", "1h\n"], "length of time"),
    ],
)
def test_a_token_that_no_server_would_honour_is_not_made(options, said, issue):
    done = issue(*options)
    assert done.code == 2
    assert done.out == ""
    assert said in done.err
    assert done.err.count("\n") == 1


def test_a_policy_without_an_issuer_for_own_tokens_is_named(issue, installation):
    installation.edit_policy(
        "preset: self ",
        'preset: github\n    pin: { repository_owner_id: "65" } ',
    )
    installation.edit_policy(
        "ruleset: standard\n", 'ruleset: standard\n    match: { repository_id: "74" }\n'
    )
    done = issue(*BRANCH)
    assert done.code == 2
    assert f"{installation.policy} has no issuer for tokens of this server" in done.err


def test_a_revocation_that_would_cover_it_is_told(issue, installation):
    installation.edit_policy(
        "revocations: []",
        "revocations:\n  - { id: stop, match: { project: demo }, reason: incident }",
    )
    done = issue(*BRANCH)
    assert done.code == 4
    assert done.out == ""
    assert "stop" in done.err


def test_a_bad_policy_is_told_with_its_line(issue, installation):
    installation.edit_policy("tier: trusted", "tier: trusty")
    done = issue(*BRANCH)
    assert done.code == 2
    assert f"{installation.policy}:" in done.err
    assert "E15" in done.err


def test_keys_that_others_can_read_are_refused(issue, installation):
    (installation.keys / "log.key").chmod(0o644)
    done = issue(*BRANCH)
    assert done.code == 2
    assert "chmod 600" in done.err


def test_the_settings_file_comes_from_the_environment_too(call, installation, monkeypatch):
    monkeypatch.setenv("SECURE_CACHE_CONFIG", str(installation.config))
    assert call("token", "issue", *BRANCH).code == 0


def test_settings_that_are_missing_say_how_to_get_some(call, tmp_path):
    done = call("token", "issue", "--config", tmp_path / "no.toml", *BRANCH)
    assert done.code == 2
    assert "secure-cache init DIR" in done.err
