"""`--help` everywhere, quickly, and usage errors in one line."""

import subprocess
import sys

import click
import pytest

from secure_cache.cli.main import root


def commands(command=root, path=()):
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from commands(command.get_command(context, name), (*path, name))


ALL = dict(commands())


def test_the_commands_are_those_of_the_contract():
    assert {
        " ".join(path) for path, command in ALL.items() if not isinstance(command, click.Group)
    } == {
        "init",
        "serve",
        "token issue",
        "token exchange",
        "token inspect",
        "policy lint",
        "policy test",
        "policy explain",
        "policy diff",
        "policy schema",
        "keys list",
        "keys show",
        "keys rotate",
        "keys revoke",
        "log fsck",
        "witness init",
        "witness show",
        "witness serve",
        "witness follow",
        "witness evidence",
        "audit query",
        "audit show",
        "audit policies",
        "audit prove",
        "audit verify-proof",
        "audit verify",
        "audit compare",
        "audit impact",
        "audit monitor",
        "audit mirror",
        "audit index check",
        "audit index rebuild",
        "storage check",
        "storage create",
    }


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_explains_itself_on_stdout(path, call):
    done = call(*path, "--help")
    assert done.code == 0
    assert done.out.startswith("Usage: secure-cache")
    assert done.err == ""


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_option_and_command_has_a_help_text(path):
    command = ALL[path]
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


def test_no_command_takes_a_secret_as_an_argument():
    """The process list shows arguments to every user of the machine."""
    for path, command in ALL.items():
        for parameter in command.params:
            assert parameter.name not in {"token", "password", "secret", "private_key"}, path


@pytest.mark.parametrize("path", [(), ("token",), ("policy",), ("keys",), ("log",), ("storage",)])
def test_a_group_alone_shows_its_help_on_stderr(path, call):
    done = call(*path)
    assert done.code == 2
    assert done.out == ""
    assert "Commands:" in done.err


@pytest.mark.parametrize(
    "line",
    [
        ["frobnicate"],
        ["--frobnicate"],
        ["init"],
        ["init", "--frobnicate", "x"],
        ["token", "issue"],
        ["policy", "lint"],
        ["serve", "--port", "x"],
        ["keys", "rotate", "house"],
    ],
)
def test_a_usage_error_is_one_line_that_names_the_help(line, call):
    done = call(*line)
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("secure-cache: ")
    assert done.err.count("\n") == 1
    assert "--help`" in done.err


def test_help_loads_neither_the_server_nor_cryptography():
    script = (
        "import sys; from secure_cache.cli.main import run; code = run(['--help'], {});"
        "heavy = {'litestar', 'uvicorn', 'httpx', 'cryptography', 'yaml', 'anyio', 'msgspec'};"
        "sys.exit(code or ' '.join(sorted(heavy & sys.modules.keys())) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_package_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "secure_cache", "--version"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("secure-cache ")
