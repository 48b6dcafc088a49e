"""`secure-cache token inspect`: what a token says, and never the token."""

import json

import pytest


@pytest.fixture
def token(call, installation):
    done = call(
        "token", "issue", "--config", installation.config, "--project", "demo", "--branch", "main"
    )
    return done.out.strip()


def test_it_reads_stdin_a_file_or_the_environment(call, token, tmp_path, monkeypatch):
    file = tmp_path / "token"
    file.write_text(f"  {token}\n")
    monkeypatch.setenv("SECURE_CACHE_TOKEN", token)
    outputs = [call("token", "inspect", "--json").out]
    monkeypatch.delenv("SECURE_CACHE_TOKEN")
    outputs += [
        call("token", "inspect", "--json", stdin=f"{token}\n").out,
        call("token", "inspect", "-", "--json", stdin=token).out,
        call("token", "inspect", file, "--json").out,
    ]
    claims = [json.loads(output)["unverified_claims"] for output in outputs]
    assert claims[0]["branch"] == "main"
    assert claims == [claims[0]] * 4


def test_what_is_not_proved_is_called_so(call, token):
    said = json.loads(call("token", "inspect", "--json", stdin=token).out)
    assert said["verified"] is False
    assert said["unverified_header"]["kind"] == "made by a secure-cache"
    assert said["unverified_claims"]["branch"] == "main"
    assert "claims" not in said


def test_the_token_itself_is_never_printed(call, token, installation):
    for options in (["--json"], [], ["--config", installation.config]):
        done = call("token", "inspect", *options, stdin=token)
        assert done.code == 0
        assert token.rpartition(".")[2] not in done.out + done.err


def test_a_token_on_the_command_line_is_refused_and_not_repeated(call, token):
    done = call("token", "inspect", token)
    assert done.code == 2
    assert "command line" in done.err
    assert token not in done.err


def test_with_settings_it_is_verified_and_decided(call, token, installation):
    done = call("token", "inspect", "--json", "--config", installation.config, stdin=token)
    said = json.loads(done.out)
    assert said["verified"] is True
    assert said["decision"]["write"] == "branch/main"
    assert said["decision"]["read"] == ["branch/main"]


def test_a_forged_token_is_not_verified(call, token, installation):
    head, payload, signature = token.split(".")
    forged = f"{head}.{payload}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"
    assert call("token", "inspect", stdin=forged).code == 0
    done = call("token", "inspect", "--config", installation.config, stdin=forged)
    assert done.code == 4
    assert done.out == ""


def test_another_servers_token_is_not_verified(call, token, tmp_path):
    call("init", tmp_path / "other")
    done = call(
        "token", "inspect", "--config", tmp_path / "other" / "secure-cache.toml", stdin=token
    )
    assert done.code == 4


@pytest.mark.parametrize(
    "text", ["", "x", "a.b", "\xff.\xfe.\xfd", "Bearer a.b.c", "a.b.c\nd.e.f", "a.b.c" * 9000]
)
def test_what_is_no_token_is_refused_without_repeating_it(text, call):
    done = call("token", "inspect", stdin=text)
    assert done.code == 4
    assert done.out == ""
    assert done.err.count("\n") == 1
    assert len(done.err) < 200


def test_a_file_that_is_missing_is_named(call, tmp_path):
    done = call("token", "inspect", tmp_path / "none")
    assert done.code == 2
    assert str(tmp_path / "none") in done.err
