"""A real server: the console script, in processes of its own, over a real folder."""

import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
from world.stored import InFolder, Stored

if TYPE_CHECKING:
    from world.storage import Storage

READY_SECONDS = 30
LOWEST_PORT, LANES, PORTS = 20_000, 4, 3_000
_turns = itertools.count(os.getpid())


def command() -> str:
    """The console script of the environment that runs the tests."""
    path = Path(sys.executable).with_name("secure-cache")
    assert path.is_file(), f"{path} is missing: run `make dev`"
    return str(path)


def cli(
    *arguments: object, timeout: float = 60, environment: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run one command to its end, with `environment` on top of our own."""
    return subprocess.run(
        [command(), *(str(argument) for argument in arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        env=os.environ | (environment or {}),
    )


def free_port() -> int:
    """A port below those that the kernel gives to outgoing connections, and of this test process
    alone: nobody takes it while a server that will come back is away."""
    lane = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % LANES
    while True:
        port = LOWEST_PORT + LANES * (next(_turns) % PORTS) + lane
        with socket.socket() as listener, contextlib.suppress(OSError):
            # As the servers do: a connection that ended a moment ago is nobody's any more.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            return port


def wait_until(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    """Poll: for states that the outside can only observe."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {what}"
        time.sleep(0.05)


class NotReadyError(Exception):
    """The server ended instead of serving, or was killed because it never got ready."""

    def __init__(self, code: int | None, logs: str):
        super().__init__(f"exit {code}:\n{logs}")
        self.code = code
        self.logs = logs


@dataclass(frozen=True)
class Memory:
    """Resident bytes of one process, now and at its peak."""

    resident: int
    peak: int


class Server:
    """One installation, which may run, be stopped, be killed and run again on the same port.

    With `follow_seconds` it has an index wherever it stores things, and looks so often for what
    is new in its log.
    """

    def __init__(
        self,
        directory: Path,
        *,
        workers: int = 1,
        options: tuple[str, ...] = (),
        environment: dict[str, str] | None = None,
        storage: "Storage | None" = None,
        replica_of: "Server | None" = None,
        follow_seconds: float | None = None,
    ):
        place = storage.place() if storage is not None else None
        home = directory if replica_of is None else replica_of.directory
        self.directory = directory
        self.config = home / "secure-cache.toml"
        self.policy = home / "policy.yaml"
        self.data = home / "data"
        self.workers = workers
        self.options = options
        # What reaches the store, and the index of what is there, is in the environment of every
        # command, not of the server alone.
        self.reach = {} if place is None else dict(place.environment)
        if replica_of is not None:
            self.reach = dict(replica_of.reach)
        if follow_seconds is not None:
            self.reach["SECURE_CACHE_AUDIT__FOLLOW_SECONDS"] = str(follow_seconds)
            if place is not None and place.stored is not None:
                self.reach["SECURE_CACHE_AUDIT__INDEX"] = str(self._index / "index.sqlite")
        self.environment = (environment or {}) | self.reach
        self.stored: Stored = InFolder(self.data)
        if replica_of is not None:
            self.stored = replica_of.stored
        elif place is not None and place.stored is not None:
            self.stored = place.stored
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        if replica_of is not None:
            # Settings, policy and keys are the other one's; what it prints is its own.
            directory.mkdir()
            return
        init = () if place is None else place.options
        done = cli("init", directory, *init, environment=self.reach)
        assert done.returncode == 0, done.stderr

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def _index(self) -> Path:
        """The folder of the index, where there is no data folder for it."""
        return self.directory / "audit"

    # running

    def start(self) -> "Server":
        """Run it, until it has said that it is ready.

        Raises:
            NotReadyError: it ended, or it said nothing for `READY_SECONDS`.
        """
        assert self.process is None
        out = self.directory / "stdout.log"
        said = out.stat().st_size if out.exists() else 0
        logged = len(self.logs())
        with out.open("ab") as stdout, (self.directory / "stderr.log").open("ab") as stderr:
            self.process = subprocess.Popen(
                [
                    command(),
                    "serve",
                    f"--config={self.config}",
                    "--host=127.0.0.1",
                    f"--port={self.port}",
                    f"--workers={self.workers}",
                    *self.options,
                ],
                env=os.environ | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                # A Ctrl-C at the tests is not one at the server.
                start_new_session=True,
            )
        deadline = time.monotonic() + READY_SECONDS
        while b"\n" not in out.read_bytes()[said:]:
            code = self.process.poll()
            if code is not None or time.monotonic() > deadline:
                self._kill()
                raise NotReadyError(code, self.logs()[logged:])
            time.sleep(0.02)
        return self

    def stop(self) -> int:
        """SIGTERM, and the exit code after the drain."""
        assert self.process is not None
        self.process.terminate()
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.kill9()
            raise AssertionError(f"the server ignored SIGTERM:\n{self.logs()}") from None
        self.process = None
        return code

    def kill9(self) -> None:
        """SIGKILL to every process at once: a crash."""
        if self.process is not None:
            self._kill()
            wait_until(self._nobody_listens, "the killed server's port to be free")

    def _kill(self) -> None:
        assert self.process is not None
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(20)
        self.process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def _nobody_listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) != 0

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def processes(self) -> list[int]:
        """Process ids: the one that was started and all below it."""
        assert self.process is not None
        found = [self.process.pid]
        for pid in found:
            try:
                children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            except FileNotFoundError:
                continue
            found.extend(int(child) for child in children)
        return found

    def memory(self) -> dict[int, Memory]:
        """Resident memory by process id."""
        result = {}
        for pid in self.processes():
            try:
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            except FileNotFoundError:
                continue
            sizes = {
                line.split(":")[0]: int(line.split()[1]) * 1024
                for line in lines
                if line.startswith(("VmRSS:", "VmHWM:"))
            }
            if sizes:
                result[pid] = Memory(resident=sizes["VmRSS"], peak=sizes["VmHWM"])
        return result

    def logs(self) -> str:
        """Everything it wrote to stderr."""
        path = self.directory / "stderr.log"
        return path.read_text(errors="replace") if path.exists() else ""

    # what an operator does

    def token(
        self,
        *,
        branch: str | None = None,
        pr: int | None = None,
        base: str = "main",
        role: str | None = None,
        project: str = "demo",
        ttl: str = "1h",
    ) -> str:
        """A token for a CI job; with neither branch, PR nor role, for main."""
        if pr is not None:
            who = ["--pull-request", str(pr), "--base", base]
        elif role is not None:
            who = ["--role", role]
        else:
            who = ["--branch", branch or "main"]
        done = cli(
            *("token", "issue", "--config", self.config, "--project", project, *who, "--ttl", ttl),
            environment=self.reach,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("\n") == 1, "the token stands alone on stdout"
        return done.stdout.strip()

    def edit_policy(self, edit: Callable[[str], str]) -> None:
        """Replace the policy file at once, as a careful admin does. When it takes effect is for
        the caller to observe."""
        new = self.policy.with_suffix(".new")
        new.write_text(edit(self.policy.read_text()))
        new.replace(self.policy)

    def revoke(self, **match: str) -> None:
        """Revoke, in the policy, what was stored until now and matches; wait until "now" is over,
        so that what is stored next is not meant."""
        until = int(time.time())
        stamp = datetime.fromtimestamp(until, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        items = ", ".join(f'{key}: "{value}"' for key, value in match.items())
        self.edit_policy(
            lambda text: text.replace(
                "revocations: []",
                "revocations:\n"
                f"  - id: r{until}\n"
                f"    match: {{ {items} }}\n"
                "    reason: a test\n"
                f"    until: {stamp}\n",
            )
        )
        wait_until(lambda: time.time() >= until + 1, "the next second")

    def copy(self, folder: Path) -> Path:
        """All that it stores, and its index; it does not run."""
        self.stored.copy(folder / "stored")
        if self._index.exists():
            shutil.copytree(self._index, folder / "index")
        return folder

    def put_back(self, folder: Path) -> None:
        """A copy; of what came later nothing is left."""
        self.stored.put_back(folder / "stored")
        if (folder / "index").exists():
            shutil.rmtree(self._index)
            shutil.copytree(folder / "index", self._index)

    def fsck(self) -> "subprocess.CompletedProcess[str]":
        return cli("log", "fsck", "--config", self.config, timeout=120, environment=self.reach)

    # what a client does

    def client(self, token: str | None = None) -> httpx.Client:
        """An HTTP client with this bearer token; it neither retries nor follows redirects."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False)

    def put(self, token: str | None, key: str, body: bytes) -> httpx.Response:
        with self.client(token) as client:
            return client.put(f"/v1/cache/{key}", content=body)

    def get(self, token: str | None, key: str) -> httpx.Response:
        with self.client(token) as client:
            return client.get(f"/v1/cache/{key}")

    def checkpoint(self) -> tuple[int, str]:
        """Size and root (base64) of the published checkpoint."""
        with self.client() as client:
            lines = client.get("/log/checkpoint").raise_for_status().text.split("\n")
        return int(lines[1]), lines[2]

    def events(self) -> list[dict[str, object]]:
        """Those of its log lines that are JSON."""
        found = []
        for line in self.logs().splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                found.append(event)
        return found

    # the end

    def remove(self) -> None:
        """Stop it by force and delete all of it: some tests store gigabytes."""
        self.kill9()
        shutil.rmtree(self.directory, ignore_errors=True)
