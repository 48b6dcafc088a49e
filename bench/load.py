"""The loads. By wrk, except large uploads: wrk would build each body anew in Lua."""

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from servers import MissingError, Running

MIB = 1024 * 1024
CONNECTIONS = 16
KEYS = 64
"""Distinct artifacts that a reading load takes in turn."""

_LUA = """
local thread_number = 0
function setup(thread) thread:set("number", thread_number); thread_number = thread_number + 1 end
function init(args)
  count = 0
  headers = {{ ["Authorization"] = "Bearer {token}" }}
  headers["Content-Type"] = "application/octet-stream"
  body = {body}
end
function request()
  count = count + 1
  local key = string.format("%s%d%08d", "{prefix}", {key})
  return wrk.format("{method}", (string.gsub("{path}", "KEY", key)), headers, body)
end
function done(summary, latency, requests)
  io.write(string.format("RESULT %d %d %d %d\\n", summary.requests, summary.duration,
    summary.errors.status, summary.bytes))
end
"""


@dataclass(frozen=True)
class Load:
    """One row of the table.

    Attributes:
        name: its name.
        unit: of its figures.
        size: of each body, in bytes.
        kind: `get`, `miss` or `put`.
        connections: at once.
        prototype: our prototype's figure over nginx's in the same run (without auth, signing
            or log), measured on two cores. The goal is 0.6 of it.
    """

    name: str
    unit: str
    size: int
    kind: str
    connections: int
    prototype: float

    @property
    def goal(self) -> float:
        return 0.6 * self.prototype


LOADS = (
    Load("GET 4 KiB", "req/s", 4096, "get", CONNECTIONS, 16_000 / 95_200),
    Load("GET 1 MiB", "req/s", MIB, "get", CONNECTIONS, 2_050 / 1_840),
    Load("miss", "req/s", 0, "miss", CONNECTIONS, 25_400 / 106_000),
    Load("GET 100 MiB", "MB/s", 100 * MIB, "get", 1, 1_680 / 1_583),
    Load("PUT 100 MiB", "MB/s", 100 * MIB, "put", 1, 327 / 334),
    Load("PUT 4 KiB", "req/s", 4096, "put", CONNECTIONS, 2_500 / 26_100),
)
"""As in the design's table of prototypes; of a range its middle."""


def prepare(server: Running, load: Load, scratch: Path) -> None:
    """Store what a reading load will read."""
    if load.kind == "get":
        data = _random_file(scratch, load.size)
        for index in range(1, (KEYS if load.connections > 1 else 1) + 1):
            _put(server, f"{_prefix(load)}0{index:08d}", data)


def run(server: Running, load: Load, scratch: Path, seconds: float, unique: int) -> float:
    """One measurement: only requests that got what they should count.

    Args:
        server: to be measured.
        load: to be put on it.
        scratch: a folder for files.
        seconds: how long.
        unique: a number that no other call has, for keys that are new.
    """
    if load.kind == "put" and load.connections == 1:
        return _stream_up(server, load, scratch, seconds, unique)
    return _wrk(server, load, scratch, seconds, unique)


def _prefix(load: Load) -> str:
    # Digits only: a key as Nx has them.
    return f"1{LOADS.index(load)}"


def _wrk(server: Running, load: Load, scratch: Path, seconds: float, unique: int) -> float:
    program = shutil.which("wrk")
    if program is None:
        raise MissingError("wrk is missing: apt-get install wrk")
    reading = load.kind == "get"
    keys = KEYS if load.connections > 1 else 1
    script = scratch / "load.lua"
    script.write_text(
        _LUA.format(
            token=server.token,
            body=f'string.rep("x", {load.size})' if load.kind == "put" else "nil",
            prefix=_prefix(load) if reading else f"2{unique:03d}",
            key=f"0, (count + number * 17) % {keys} + 1" if reading else "number, count",
            method="PUT" if load.kind == "put" else "GET",
            path=server.path.replace("{key}", "KEY"),
        )
    )
    done = subprocess.run(
        [
            program,
            f"--threads={min(2, load.connections)}",
            f"--connections={load.connections}",
            f"--duration={max(1, round(seconds))}s",
            f"--script={script}",
            f"http://127.0.0.1:{server.port}/",
        ],
        check=True,
        capture_output=True,
        text=True,
        timeout=seconds + 60,
    )
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    requests, microseconds, refused, received = (int(word) for word in line.split()[1:])
    good = refused if load.kind == "miss" else requests - refused
    if good * 2 < requests:
        raise MissingError(f"{server.name} refuses {load.name}: {json.dumps(done.stdout)}")
    done_so_far = received / 1e6 if load.unit == "MB/s" else good
    return done_so_far / (microseconds / 1e6)


def _stream_up(server: Running, load: Load, scratch: Path, seconds: float, unique: int) -> float:
    data = _random_file(scratch, load.size)
    began, sent, number = time.perf_counter(), 0, 0
    # Bounded by count too, for the disk's sake.
    while time.perf_counter() - began < seconds and number < 6:
        _put(server, f"3{unique:03d}{number:03d}", data)
        sent += load.size
        number += 1
    return sent / (time.perf_counter() - began) / 1e6


def _put(server: Running, key: str, data: Path) -> None:
    size = data.stat().st_size
    with _connection(server) as wire, data.open("rb") as file:
        wire.sendall(_head(server, "PUT", key, f"content-length: {size}"))
        wire.sendfile(file)
        answer = wire.recv(65536)
    if not answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 201", b"HTTP/1.1 202", b"HTTP/1.1 204")):
        raise MissingError(f"{server.name} refuses an upload: {answer[:200]!r}")


def _connection(server: Running) -> socket.socket:
    wire = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return wire


def _head(server: Running, method: str, key: str, *headers: str) -> bytes:
    lines = [
        f"{method} {server.path.format(key=key)} HTTP/1.1",
        "host: 127.0.0.1",
        f"authorization: Bearer {server.token}",
        "content-type: application/octet-stream",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def _random_file(scratch: Path, size: int) -> Path:
    path = scratch / f"random-{size}"
    if not path.exists():
        with tempfile.NamedTemporaryFile(dir=scratch, delete=False) as file:
            file.write(os.urandom(size))
        Path(file.name).rename(path)
    return path
