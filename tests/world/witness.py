"""Real witness processes: `secure-cache witness serve` over a folder."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import httpx
from world.server import READY_SECONDS, Server, cli, command, free_port


class WitnessProcess:
    """One witness, which may run, be stopped, be killed and run again on the same port."""

    def __init__(self, folder: Path, name: str, vkeys: tuple[str, ...], *, options=()):
        self.folder = folder
        self.name = name
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        logs = [word for vkey in vkeys for word in ("--log", vkey)]
        done = cli("witness", "init", folder, "--name", name, *logs, *options)
        assert done.returncode == 0, done.stderr
        self.vkeys = done.stdout.split()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def policy_line(self) -> str:
        """Of a witness policy; its name there is the last part of its own."""
        return f"witness {self.name.rpartition('/')[2]} {self.vkeys[0]} {self.url}\n"

    def start(self) -> "WitnessProcess":
        assert self.process is None
        out = self.folder / "stdout.log"
        said = out.stat().st_size if out.exists() else 0
        with out.open("ab") as stdout, (self.folder / "stderr.log").open("ab") as stderr:
            self.process = subprocess.Popen(
                [command(), "witness", "serve", str(self.folder), f"--port={self.port}"],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        deadline = time.monotonic() + READY_SECONDS
        while b"\n" not in out.read_bytes()[said:]:
            assert self.process.poll() is None, self.logs()
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.02)
        return self

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        code = self.process.wait(30)
        self.process = None
        return code

    def kill9(self) -> None:
        if self.process is not None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait(20)
            self.process = None

    def pause(self) -> None:
        """It takes connections and never answers."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)

    def logs(self) -> str:
        path = self.folder / "stderr.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def cosigned(self) -> list[bytes]:
        """The notes that it cosigned last, one for each log."""
        return [path.read_bytes() for path in sorted(self.folder.glob("state/*/checkpoint"))]

    def post(self, body: bytes) -> httpx.Response:
        return httpx.post(f"{self.url}/add-checkpoint", content=body, timeout=30, trust_env=False)


def vkey_of(server: Server) -> str:
    """The key of its log; it need not run."""
    done = cli("keys", "show", "--vkey", "--config", server.config)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def ask_witnesses(
    server: Server,
    witnesses: list[WitnessProcess],
    *,
    profile: str,
    quorum: str,
    at: Mapping[str, str] | None = None,
) -> Path:
    """Set up a server that does not run yet; gives the witness policy.

    Args:
        quorum: how many of them, `any` or `all`.
        at: other addresses than their own, by the names in the policy.
    """
    lines = [witness.policy_line for witness in witnesses]
    names = [line.split()[1] for line in lines]
    for number, name in enumerate(names):
        lines[number] = lines[number].replace(
            witnesses[number].url, (at or {}).get(name, witnesses[number].url)
        )
    policy = server.directory / "witnesses.policy"
    policy.write_text(
        f"log {vkey_of(server)}\n{''.join(lines)}"
        f"group enough {quorum} {' '.join(names)}\nquorum enough\n"
    )
    # In the file, and not in the environment: what looks at the installation has it too.
    head, found, tail = server.config.read_text().partition("[witnesses]\n")
    assert found
    mine = f'policy = "{policy}"\nprofile = "{profile}"\ntimeout_seconds = 0.5\n'
    _, following, tail = tail.partition("\n[")
    server.config.write_text(f"{head}{found}{mine}{following}{tail}")
    return policy
