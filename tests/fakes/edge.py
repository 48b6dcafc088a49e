"""A real server process behind real sockets, and a client that sends any bytes at all."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

TESTS = Path(__file__).resolve().parents[1]

MAIN = """
import json, sys
import structlog
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
from secure_cache.http.server import AppSource, ServerOptions
from secure_cache.http.supervisor import Hooks, run
from secure_cache.model.errors import SecureCacheError
given = json.loads(sys.argv[1])
try:
    run(
        AppSource("fakes.edge_app:build", json.dumps(given["app"])),
        ServerOptions.from_json(given["options"]),
        Hooks(on_ready=lambda url: print(url, flush=True)),
    )
except SecureCacheError as error:
    print(f"{error.code}: {error}", file=sys.stderr)
    sys.exit(2)
"""


class Edge:
    """A running server."""

    def __init__(self, process, url):
        self.process = process
        self.url = url
        self.address = (urlsplit(url).hostname, urlsplit(url).port)

    @property
    def pid(self):
        return self.process.pid

    def connect(self):
        return socket.create_connection(self.address, timeout=20)

    def talk(self, data):
        """Send bytes, say that this was all, and give back all that comes until the close."""
        with self.connect() as client:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            return read_all(client)

    def get(self, path):
        """The status and the body of one simple request."""
        answer = self.talk(b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % path.encode())
        return status_of(answer), answer.partition(b"\r\n\r\n")[2]

    def stop(self):
        """SIGTERM; gives back the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)


def read_all(client):
    parts = []
    while True:
        try:
            part = client.recv(65536)
        except ConnectionResetError:
            parts.append(b"<reset>")
            break
        if not part:
            break
        parts.append(part)
    return b"".join(parts)


def read_answer(client):
    """One whole answer with a Content-Length."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = client.recv(65536)
        if not part:
            return data
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    (length,) = [
        int(line.split(b":")[1])
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"content-length:")
    ]
    while len(body) < length:
        part = client.recv(65536)
        if not part:
            break
        body += part
    return head + b"\r\n\r\n" + body


def status_of(answer):
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else None


def statuses(answer):
    """Of all answers in a stream of them."""
    return [int(code) for code in re.findall(rb"HTTP/1\.1 ([0-9]{3}) [A-Z]", answer)]


def launch(app=None, *, limits=None, **options):
    given = {"app": app or {}, "options": {"port": 0, **options, "limits": limits or {}}}
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, json.dumps(given)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )


@contextmanager
def edge(app=None, *, limits=None, **options):
    """Start a server with these options; at the end nothing of it is left."""
    process = launch(app, limits=limits, **options)
    try:
        url = process.stdout.readline().strip()
        assert url, process.communicate()[1]
        yield Edge(process, url)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
        process.stdout.close()
        process.stderr.close()
        process.wait()


def events(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def refuses_connections(server):
    try:
        server.connect().close()
    except ConnectionRefusedError:
        return True
    return False


def wait_for(question, *, seconds=60):
    """Ask until the answer is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = question()
        if answer:
            return answer
        time.sleep(0.02)
    raise AssertionError("it did not come about in time")
