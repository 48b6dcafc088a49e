"""The command line, called as the console script calls it, over real folders."""

import io
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from secure_cache.cli.main import run


@dataclass(frozen=True)
class Called:
    """What one command line did."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("SECURE_CACHE_", "ACTIONS_", "AZURE_", "GITHUB_", "GITLAB_")):
            monkeypatch.delenv(name)


@pytest.fixture
def call(capsys, monkeypatch):
    """Runs one command line; gives its exit code, stdout and stderr."""

    def run_it(*arguments, stdin: str = "") -> Called:
        capsys.readouterr()
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        code = run([str(argument) for argument in arguments], os.environ)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Called(code, captured.out, captured.err)

    return run_it


@dataclass(frozen=True)
class Installation:
    """What `init` made."""

    directory: Path

    @property
    def config(self) -> Path:
        return self.directory / "secure-cache.toml"

    @property
    def policy(self) -> Path:
        return self.directory / "policy.yaml"

    @property
    def keys(self) -> Path:
        return self.directory / "keys"

    @property
    def log(self) -> Path:
        return self.directory / "data" / "log"

    def edit_policy(self, old: str, new: str) -> None:
        text = self.policy.read_text()
        assert old in text
        self.policy.write_text(text.replace(old, new))


@pytest.fixture(scope="session")
def pristine(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pristine") / "server"
    assert run(["init", str(directory)], {}) == 0
    return directory


@pytest.fixture
def installation(pristine, tmp_path):
    """An installation of one's own."""
    directory = tmp_path / "server"
    shutil.copytree(pristine, directory, copy_function=shutil.copy2)
    return Installation(directory)
