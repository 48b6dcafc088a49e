"""The locks: names, versions and hashes for everything that is declared, and not one address."""

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PYTHON_LOCKS = {path.stem: path for path in (ROOT / "requirements").glob("*.txt")}
NODE_LOCKS = sorted(
    ROOT / line
    for line in subprocess.run(
        ["git", "ls-files", "*package-lock.json"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
)
_PINNED = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>[^ ;\\]+)(?: ; .+?)? \\\n")
_HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}(?: \\)?\n")
_ADDRESS = re.compile(r"[a-z+]+://|--(?:extra-)?index|--find-links|--trusted-host|\s@\s|file:")


def pinned(lock: Path) -> dict[str, str]:
    return {found["name"]: found["version"] for found in _PINNED.finditer(lock.read_text())}


def declared() -> dict[str, list[Requirement]]:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    run = document["project"]["dependencies"]
    groups = document["dependency-groups"]
    build = groups["build"]
    dev = [item for item in groups["dev"] if isinstance(item, str)]
    azure = document["project"]["optional-dependencies"]["azure"]
    texts = {
        "run": run,
        "azure": [*run, *azure],
        "build": build,
        "dev": [*run, *azure, *build, *dev],
        "deploy": groups["deploy"],
    }
    return {name: [Requirement(text) for text in found] for name, found in texts.items()}


def test_every_lock_is_made_from_a_declaration():
    assert PYTHON_LOCKS.keys() == declared().keys()


@pytest.mark.parametrize("name", sorted(PYTHON_LOCKS))
def test_a_lock_holds_everything_that_is_declared(name):
    versions = pinned(PYTHON_LOCKS[name])
    for requirement in declared()[name]:
        version = versions.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement} is not in the {name} lock: make lock"
        assert requirement.specifier.contains(version), f"{requirement} != {version}: make lock"


@pytest.mark.parametrize("name", sorted(PYTHON_LOCKS))
def test_every_line_of_a_lock_is_a_pin_or_a_hash(name):
    lines = PYTHON_LOCKS[name].read_text().splitlines(keepends=True)
    assert lines
    for before, line in zip(["", *lines], lines, strict=False):
        assert _PINNED.fullmatch(line) or _HASH.fullmatch(line), line
        assert not (_PINNED.fullmatch(before) and _PINNED.fullmatch(line)), f"no hash: {before}"


def test_tests_run_with_the_versions_that_users_run():
    development = pinned(PYTHON_LOCKS["dev"])
    for name in ("run", "azure", "build"):
        assert pinned(PYTHON_LOCKS[name]).items() <= development.items()


def test_the_azure_lock_is_the_run_lock_and_more():
    assert pinned(PYTHON_LOCKS["run"]).items() < pinned(PYTHON_LOCKS["azure"]).items()


@pytest.mark.parametrize(
    "path", [*PYTHON_LOCKS.values(), *NODE_LOCKS], ids=lambda path: str(path.relative_to(ROOT))
)
def test_no_lock_holds_an_address(path):
    found = _ADDRESS.search(path.read_text())
    assert found is None, f"{path}: {found}"


@pytest.mark.parametrize("path", NODE_LOCKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_node_lock_holds_what_its_package_declares(path):
    packages = json.loads(path.read_text())["packages"]
    package = json.loads((path.parent / "package.json").read_text())
    for kind in ("dependencies", "devDependencies"):
        assert packages[""].get(kind, {}) == package.get(kind, {}), "make lock"
    for name, entry in packages.items():
        # Without a hash stands only what the platform of the tests can not install.
        elsewhere = entry.get("os", ["linux"]) != ["linux"] or "musl" in entry.get("libc", [])
        other_cpu = entry.get("cpu", ["x64"]) not in (["x64"], ["arm64"])
        assert name == "" or "integrity" in entry or elsewhere or other_cpu, name
