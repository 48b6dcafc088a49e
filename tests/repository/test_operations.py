"""The operator's manual says what is there: every setting, metric, event, path and command."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from msgspec.structs import fields

from secure_cache.cli.main import root
from secure_cache.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
CODE = sorted((ROOT / "secure_cache").rglob("*.py"))
DOCUMENTS = ("docs/operations.md", "SECURITY.md", "README.md", "docs/policy.md")
_LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}


def manual():
    return (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


def test_the_tables_of_settings_and_metrics_are_fresh():
    done = subprocess.run(
        [sys.executable, "scripts/docs_tables.py", "--check"], cwd=ROOT, check=False
    )
    assert done.returncode == 0, "run: .venv/bin/python scripts/docs_tables.py"


def logged_events():
    """Names that are handed to a logger, or to the log's teller."""
    found = set()
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            receiver = ast.unparse(node.func.value)
            told = node.func.attr == "_tell"
            logged = node.func.attr in _LEVELS and (
                receiver.endswith("_log") or "get_logger" in receiver
            )
            names = [item.value for item in node.args if isinstance(item, ast.Constant)]
            if (told or logged) and names and isinstance(names[0], str):
                found.add(names[0])
    return found


def test_every_event_of_the_servers_log_is_explained_and_no_other():
    (section,) = re.findall(r"^## 7\..*?(?=^## 8\.)", manual(), re.MULTILINE | re.DOTALL)
    explained = set(re.findall(r"^\| `([a-z]+\.[a-z_]+)` \| [a-z, ]+ \|", section, re.MULTILINE))
    assert len(explained) > 15
    assert logged_events() - {"request"} == explained


def test_every_alarm_names_a_metric_that_is_there():
    names = set(re.findall(r"\| `(secure_cache_[a-z_]+)` \|", manual()))
    asked = set(re.findall(r"secure_cache_[a-z_]+", manual().split("### Alarms")[1]))
    asked -= {"secure_cache"}
    assert asked
    assert asked <= names


def leaves(struct):
    for info in fields(struct):
        if isinstance(info.type, type) and hasattr(info.type, "__struct_fields__"):
            yield from leaves(info.type)
        else:
            yield info.name


@pytest.mark.parametrize("name", sorted(set(leaves(Settings))))
def test_no_setting_is_without_effect(name):
    """A limit that nobody reads is a limit that is off."""
    read = re.compile(rf"\.{name}\b")
    assert any(
        read.search(path.read_text(encoding="utf-8"))
        for path in CODE
        if path.parent.name != "settings"
    )


def commands():
    """Every `secure-cache ...` of a shell block, with its document."""
    for document in DOCUMENTS:
        text = (ROOT / document).read_text(encoding="utf-8")
        for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                for part in re.split(r"[|;(]|&&|\$\(", line.partition(" #")[0]):
                    words = re.sub(r"[\"')]", " ", part).split()
                    if words and words[0] == "secure-cache":
                        yield document, tuple(words[1:])


@pytest.mark.parametrize(
    ("document", "words"),
    [
        pytest.param(*found, id=f"{found[0]}: {' '.join(found[1])}")
        for found in sorted(set(commands()))
    ],
)
def test_every_command_in_the_documents_exists_with_its_options(document, words):
    command: click.Command = root
    rest = list(words)
    while isinstance(command, click.Group):
        found = command.get_command(click.Context(command), rest[0])
        assert found is not None, rest[0]
        command, rest = found, rest[1:]
    known = {option for parameter in command.params for option in parameter.opts}
    for word in rest:
        if word.startswith("-"):
            assert word.partition("=")[0] in known, word
