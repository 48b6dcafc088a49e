"""The real Nx client, in a workspace of its own that talks to nobody but the cache server."""

import json
import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from world import npm

HERE = Path(__file__).resolve().parents[1] / "nx"
VERSIONS = tuple(sorted(path.name for path in HERE.iterdir() if (path / "package.json").is_file()))
OLDEST, NEWEST = VERSIONS[0], VERSIONS[-1]

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_TASK = re.compile(r"> nx run (?P<task>[\w:-]+)(?P<rest>.*)")


@dataclass(frozen=True)
class Run:
    """What one `nx run-many` did."""

    code: int
    output: str
    seconds: float

    @property
    def remote(self) -> set[str]:
        """The projects whose outputs came from the server."""
        return {
            found["task"].split(":")[0]
            for found in _TASK.finditer(self.output)
            if "[remote cache]" in found["rest"]
        }

    def __str__(self) -> str:
        return f"exit {self.code} after {self.seconds:.1f} s\n{self.output}"


@dataclass
class Started:
    """A run that is under way, so that a test can do something to the server meanwhile."""

    process: "subprocess.Popen[str]"
    began: float
    output: list[str] = field(default_factory=list)

    def wait(self, timeout: float = 240) -> Run:
        try:
            text, _ = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            text, _ = self.process.communicate()
            raise AssertionError(f"nx did not end:\n{_ANSI.sub('', text)}") from None
        return Run(
            code=self.process.returncode,
            output=_ANSI.sub("", text),
            seconds=time.monotonic() - self.began,
        )


class Workspace:
    """Projects whose `build` runs a shell command; `dist/` is the output.

    The command of every project may use `$MARK`, which is in no input: two runs with the same
    files and another mark have the same hash and different bytes, as CREEP needs it.
    """

    def __init__(self, directory: Path, version: str, projects: dict[str, str]):
        self.directory = directory
        self.version = version
        self.projects = projects
        self.modules = npm.install(HERE / version)
        self._write()

    def clone(self, directory: Path) -> "Workspace":
        """Another checkout of the same sources, with a local cache of its own."""
        return Workspace(directory, self.version, self.projects)

    def built(self, project: str, name: str = "out.txt") -> Path:
        return self.directory / "packages" / project / "dist" / name

    def read(self, project: str) -> str:
        return self.built(project).read_text().strip()

    def forget(self) -> None:
        """Empty the local cache and the outputs, as a fresh CI machine would start."""
        for name in (".nx", "scratch"):
            subprocess.run(["rm", "-rf", str(self.directory / name)], check=True)
        for project in self.projects:
            subprocess.run(["rm", "-rf", str(self.built(project).parent)], check=True)

    def run(
        self, server: str | None, token: str | None, *, mark: str = "", parallel: int = 3
    ) -> Run:
        return self.start(server, token, mark=mark, parallel=parallel).wait()

    def start(
        self, server: str | None, token: str | None, *, mark: str = "", parallel: int = 3
    ) -> Started:
        began = time.monotonic()
        process = subprocess.Popen(
            [
                npm.node(),
                str(self.modules / ".bin" / "nx"),
                "run-many",
                "--target=build",
                f"--parallel={parallel}",
                "--output-style=static",
            ],
            cwd=self.directory,
            env=self._environment(server, token, mark),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        return Started(process, began)

    def _environment(self, server: str | None, token: str | None, mark: str) -> dict[str, str]:
        scratch = self.directory / "scratch"
        scratch.mkdir(exist_ok=True)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(scratch),
            "TMPDIR": str(scratch),
            "CI": "true",
            "MARK": mark,
            "NX_DAEMON": "false",
            "NX_NO_CLOUD": "true",
            "NX_TUI": "false",
            "NX_ADD_PLUGINS": "false",
            "NX_ISOLATE_PLUGINS": "false",
            "NX_CACHE_DIRECTORY": str(self.directory / ".nx" / "cache"),
            "NX_WORKSPACE_DATA_DIRECTORY": str(self.directory / ".nx" / "data"),
            "NX_NATIVE_FILE_CACHE_DIRECTORY": str(scratch),
            "NO_COLOR": "1",
        }
        if server is not None:
            environment["NX_SELF_HOSTED_REMOTE_CACHE_SERVER"] = server
        if token is not None:
            environment["NX_SELF_HOSTED_REMOTE_CACHE_ACCESS_TOKEN"] = token
        return environment

    def _write(self) -> None:
        self.directory.mkdir(parents=True)
        _json(self.directory / "package.json", {"name": "workspace", "version": "0.0.0"})
        _json(
            self.directory / "nx.json",
            {
                "neverConnectToCloud": True,
                "analytics": False,
                "defaultBase": "main",
                "namedInputs": {"default": ["{projectRoot}/src.txt"]},
            },
        )
        (self.directory / "node_modules").symlink_to(self.modules)
        for project, command in self.projects.items():
            root = self.directory / "packages" / project
            root.mkdir(parents=True)
            (root / "src.txt").write_text(f"source of {project}\n")
            _json(
                root / "project.json",
                {
                    "name": project,
                    "targets": {
                        "build": {
                            "executor": "nx:run-commands",
                            "cache": True,
                            "inputs": ["default"],
                            "outputs": ["{projectRoot}/dist"],
                            "options": {"cwd": f"packages/{project}", "command": command},
                        }
                    },
                },
            )


BUILD = 'mkdir -p dist && printf "%s" "$MARK" > dist/out.txt'
"""A tiny build: its output is the mark of the machine that ran it."""


def tiny(count: int) -> dict[str, str]:
    return {f"p{number}": BUILD for number in range(count)}


def sleeping(seconds: float) -> str:
    return f"sleep {seconds} && {BUILD}"


def large(mebibytes: int) -> str:
    """Bytes that gzip cannot shrink."""
    return f"{BUILD} && head -c {mebibytes * 1024 * 1024} /dev/urandom > dist/large.bin"


def _json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
