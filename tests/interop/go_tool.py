"""Builds the Go programs of `tests/interop/go` from Debian packages, without a network."""

import functools
import os
import subprocess
import tempfile
from pathlib import Path

from tools import missing, require_tool

SOURCES = Path(__file__).parent / "go"
GOPATH = Path("/usr/share/gocode")
INSTALL = "apt-get install golang-go golang-golang-x-mod-dev"


@functools.cache
def go_tool(name: str) -> Path:
    """The path of the built program, built once for each run of the tests."""
    go = require_tool("go", INSTALL)
    if not (GOPATH / "src/golang.org/x/mod/sumdb/tlog").is_dir():
        missing("the Go package golang.org/x/mod", INSTALL)
    folder = tempfile.TemporaryDirectory(prefix="go-tool-")
    _KEPT.append(folder)
    program = Path(folder.name) / name
    # GOPATH mode: the packages of the distribution are the whole world.
    environment = os.environ | {
        "GO111MODULE": "off",
        "GOPATH": str(GOPATH),
        "GOPROXY": "off",
        "GOFLAGS": "",
        "CGO_ENABLED": "0",
    }
    subprocess.run(
        [go, "build", "-o", str(program), "."],
        cwd=SOURCES / name,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return program


def run_tool(program: Path, *arguments: object, token: str = "") -> subprocess.CompletedProcess:
    """Run it; the caller looks at `returncode`, `stdout` and `stderr`."""
    return subprocess.run(
        [str(program), *map(str, arguments)],
        env=os.environ | {"TLOGCHECK_TOKEN": token},
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


_KEPT: list[tempfile.TemporaryDirectory] = []
