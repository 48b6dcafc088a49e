"""What a test needs from the machine: a missing tool skips on a laptop and fails in CI."""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

VECTORS = Path(__file__).resolve().parents[2] / "shared" / "vectors"


def missing(what: str, install: str) -> NoReturn:
    """Skip, saying what to install; with CI=true fail, because there nothing may be left out."""
    message = f"{what} is missing: {install}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def require_tool(name: str, install: str) -> str:
    """The path of a program."""
    path = shutil.which(name)
    if path is None:
        missing(name, install)
    return path


def require_vectors(name: str) -> Path:
    """A file of public test vectors, kept beside the repository. Data, no tool: where the folder
    is absent the test skips, on any machine, and says which file it wants."""
    path = VECTORS / name
    if not path.is_file():
        pytest.skip(f"shared/vectors/{name} is not beside the checkout")
    return path
