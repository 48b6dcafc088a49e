"""The servers that are measured: ours, nginx with DAV, turborepo-remote-cache.

Each is a real process over its own folder, checks a token, and answers on loopback only.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

NODE = Path(__file__).resolve().parent / "node"
TOKEN = "bench-token"
NGINX_CONF = """
worker_processes 2;
daemon off;
pid nginx.pid;
error_log error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000;
    client_max_body_size 0;
    client_body_buffer_size 1m;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    map $http_authorization $allowed {{ default 0; "Bearer {token}" 1; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        root files;
        if ($allowed = 0) {{ return 403; }}
        location / {{ dav_methods PUT; create_full_put_path on; }}
    }}
}}
"""


class MissingError(Exception):
    """A program that the comparison needs is not there; the text says what to install."""


@dataclass
class Running:
    """A server that answers.

    Attributes:
        name: its column.
        port: on 127.0.0.1.
        token: what clients send.
        path: a key's path; `{key}` stands for the key.
    """

    name: str
    port: int
    token: str
    path: str
    process: "subprocess.Popen[bytes]" = field(repr=False)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(20)


def secure_cache(
    directory: Path, workers: int, environment: dict[str, str] | None = None
) -> Running:
    """Ours, as `init` sets it up: authentication, policy, signing and the log are all on."""
    command = str(Path(sys.executable).with_name("secure-cache"))
    _say([command, "init", str(directory)])
    config = f"--config={directory / 'secure-cache.toml'}"
    token = _say([command, "token", "issue", config, "--project=demo", "--branch=main"])
    port = _free_port()
    process = _start(
        [
            command,
            "serve",
            config,
            "--host=127.0.0.1",
            f"--port={port}",
            f"--workers={workers}",
        ],
        directory,
        environment or {},
    )
    name = f"secure-cache, {workers} worker{'s' if workers > 1 else ''}"
    return _ready(Running(name, port, token, "/v1/cache/{key}", process), directory)


def _say(command: list[str]) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise MissingError(f"{' '.join(command)}: {done.stderr}")
    return done.stdout.strip()


def nginx(directory: Path) -> Running:
    """The upper bound: files, a token compared by `map`, nothing durable, nothing checked."""
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    if not Path(program).is_file():
        raise MissingError("nginx is missing: apt-get install nginx-light")
    port = _free_port()
    (directory / "files").mkdir(parents=True)
    conf = NGINX_CONF.format(token=TOKEN, port=port)
    if os.geteuid() == 0:
        # Otherwise the workers become nobody, who may not write here.
        conf = f"user root;{conf}"
    (directory / "nginx.conf").write_text(conf)
    process = _start(
        [program, "-e", "error.log", "-p", str(directory), "-c", "nginx.conf"], directory, {}
    )
    return _ready(Running("nginx + DAV", port, TOKEN, "/{key}", process), directory)


def turborepo_remote_cache(directory: Path) -> Running:
    """A peer in Node.js, installed from its lock."""
    if shutil.which("npm") is None:
        raise MissingError("npm is missing: install Node.js 20 or newer")
    if not (NODE / "node_modules").is_dir():
        subprocess.run(["npm", "ci", "--ignore-scripts", "--silent"], cwd=NODE, check=True)
    port = _free_port()
    directory.mkdir()
    process = _start(
        ["node", str(NODE / "node_modules" / "turborepo-remote-cache" / "dist" / "cli.js")],
        directory,
        {
            "NODE_ENV": "production",
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "TURBO_TOKEN": TOKEN,
            "LOG_LEVEL": "error",
            "ENABLE_STATUS_LOG": "false",
            "STORAGE_PROVIDER": "local",
            "STORAGE_PATH_USE_TMP_FOLDER": "false",
            "STORAGE_PATH": str(directory / "files"),
            "BODY_LIMIT": str(256 * 1024 * 1024),
        },
    )
    path = "/v8/artifacts/{key}?slug=bench"
    return _ready(Running("turborepo-remote-cache", port, TOKEN, path, process), directory)


def _start(
    command: list[str], directory: Path, environment: dict[str, str]
) -> "subprocess.Popen[bytes]":
    with (directory / "bench.log").open("wb") as log:
        return subprocess.Popen(
            command,
            cwd=directory,
            env={"PATH": os.environ["PATH"], "HOME": str(directory)} | environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _ready(server: Running, directory: Path) -> Running:
    deadline = time.monotonic() + 30
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", server.port)) == 0:
                return server
        if server.process.poll() is not None or time.monotonic() > deadline:
            text = (directory / "bench.log").read_text(errors="replace")
            server.stop()
            raise MissingError(f"{server.name} does not start:\n{text}")
        time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
