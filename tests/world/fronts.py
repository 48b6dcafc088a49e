"""The TLS front of deploy/, run as it is shipped but for names, ports and paths."""

import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tools import missing
from world.server import free_port, wait_until

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
NGINX = DEPLOY / "nginx" / "secure-cache.conf"


@dataclass(frozen=True)
class Front:
    """A running front.

    Attributes:
        port: where it listens, as `localhost`.
        context: trusts its certificate.
    """

    port: int
    context: ssl.SSLContext

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"


def with_changes(text: str, changes: Sequence[tuple[str, str]]) -> str:
    """Each replaced exactly once: a change that meets nothing would test another file."""
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


@contextmanager
def nginx_front(folder: Path, upstreams: Sequence[int]) -> Iterator[Front]:
    program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if program is None:
        missing("nginx", "apt-get install nginx-light")
    port = free_port()
    folder.mkdir()
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-keyout", "key", "-out", "pem", "-days", "1", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    servers = "".join(f"server 127.0.0.1:{upstream};\n" for upstream in upstreams)
    block = with_changes(
        NGINX.read_text(),
        [
            ("    server 127.0.0.1:8642; ", servers),
            ("443 ssl", f"127.0.0.1:{port} ssl"),
            ("/etc/ssl/cache.example.com.pem", f"{folder}/pem"),
            ("/etc/ssl/cache.example.com.key", f"{folder}/key"),
        ],
    )
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = folder / "nginx.conf"
    config.write_text(
        f"pid {folder}/pid; error_log {folder}/error.log; daemon off;\n"
        f"events {{ worker_connections 1024; }}\n"
        f"http {{ access_log off; {temporary}\n{block}\n}}\n"
    )
    process = subprocess.Popen([program, "-p", str(folder), "-c", str(config)])
    with _ended(process):
        _wait_for(port, process)
        yield Front(port, ssl.create_default_context(cafile=str(folder / "pem")))


FRONTS = {"nginx": nginx_front}


@contextmanager
def _ended(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


def _wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    def listens() -> bool:
        assert process.poll() is None, "the front ended instead of serving"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_until(listens, "the front's port")
