"""Attack: have a cache on the way hand on what was meant for somebody else.

nginx keeps answers by their URL alone, and so do others: with `proxy_cache` in front, whoever asks
first would decide what everybody reads. That is CREEP, at one remove.
"""

import os
import shutil
import subprocess
from contextlib import contextmanager

import httpx
import pytest
from tools import missing
from world.server import Server, free_port, wait_until

pytestmark = pytest.mark.slow


@contextmanager
def caching_front(folder, upstream):
    """Keeps everything that it is not forbidden to keep."""
    program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if program is None:
        missing("nginx", "apt-get install nginx-light")
    folder.mkdir()
    port = free_port()
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    # Else its workers would be nobody, whom a test's folder is closed to.
    user = "user root root; " if os.getuid() == 0 else ""
    config = folder / "nginx.conf"
    config.write_text(
        f"{user}pid {folder}/pid; error_log {folder}/error.log; daemon off;\n"
        "events { worker_connections 64; }\n"
        f"http {{ access_log off; {temporary}\n"
        f"  proxy_cache_path {folder}/kept keys_zone=kept:1m;\n"
        f"  server {{ listen 127.0.0.1:{port}; location / {{\n"
        f"    proxy_pass http://127.0.0.1:{upstream}; proxy_http_version 1.1;\n"
        "    proxy_cache kept; proxy_cache_valid any 10m;\n"
        "    add_header X-Kept $upstream_cache_status always;\n"
        "  } }\n}\n"
    )
    process = subprocess.Popen([program, "-p", str(folder), "-c", str(config)])
    url = f"http://127.0.0.1:{port}"

    def listens():
        assert process.poll() is None
        try:
            return httpx.get(f"{url}/healthz", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_until(listens, "nginx")
        yield url
    finally:
        process.terminate()
        process.wait(timeout=20)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("proxy")
    server = Server(folder / "server").start()
    try:
        with caching_front(folder / "front", server.port) as url:
            yield server, url
    finally:
        server.remove()


def ask(url, token, path):
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    with httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=60) as client:
        return client.get(path)


def test_what_a_pull_request_reads_through_it_main_does_not(world):
    server, url = world
    main, pull_request = server.token(), server.token(pr=7)
    assert server.put(pull_request, "1", b"poison").status_code == 200

    assert ask(url, pull_request, "/v1/cache/1").content == b"poison"
    assert ask(url, main, "/v1/cache/1").status_code == 404


def test_what_main_reads_through_it_a_stranger_does_not(world):
    server, url = world
    main = server.token()
    assert server.put(main, "2", b"secret").status_code == 200

    assert ask(url, main, "/v1/cache/2").content == b"secret"
    assert ask(url, None, "/v1/cache/2").status_code == 404


def test_a_miss_is_not_kept_either(world):
    server, url = world
    main = server.token()
    assert ask(url, main, "/v1/cache/3").status_code == 404
    assert server.put(main, "3", b"there").status_code == 200

    assert ask(url, main, "/v1/cache/3").content == b"there"


@pytest.mark.parametrize(
    "path",
    ["/v1/whoami", "/audit/v1/counts", "/audit/v1/nothing", "/audit/", "/metrics", "/readyz"],
)
def test_nothing_else_is_kept_that_depends_on_who_asks_or_when(world, path):
    server, url = world
    for token in (server.token(role="auditor"), None, server.token()):
        answer = ask(url, token, path)
        assert answer.headers["x-kept"] in {"MISS", "BYPASS"}, answer.headers
