"""The proxy configuration of the operator's manual, run by a real nginx."""

import os
import re
import shutil
import ssl
import subprocess
import time
from pathlib import Path

import httpx
import pytest
from tools import missing
from world.server import Server, free_port, wait_until

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]

MANUAL = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
LARGE = 30_000_000


def nginx():
    found = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if found is None:
        missing("nginx", "apt-get install nginx-light")
    return found


@pytest.fixture
def front(tmp_path):
    """(URL, TLS context, server): as the manual says, but for ports and paths."""
    server = Server(tmp_path / "server").start()
    port, folder = free_port(), tmp_path / "nginx"
    folder.mkdir()
    subject = "/CN=localhost"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-keyout", "key", "-out", "pem", "-days", "1", "-subj", subject,
         "-addext", "subjectAltName=DNS:localhost"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    (block,) = re.findall(r"```nginx\n(.*?)```", MANUAL.read_text(), flags=re.DOTALL)
    for old, new in (
        ("127.0.0.1:8642", f"127.0.0.1:{server.port}"),
        ("443 ssl", f"127.0.0.1:{port} ssl"),
        ("/etc/ssl/cache.example.com.", f"{folder}/"),
    ):
        assert old in block
        block = block.replace(old, new)
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
    process = subprocess.Popen([nginx(), "-p", str(folder), "-c", str(config)])
    context = ssl.create_default_context(cafile=str(folder / "pem"))
    wait_until(lambda: (folder / "pid").exists() and (folder / "pid").read_text(), "nginx")
    yield f"https://localhost:{port}", context, server
    process.terminate()
    process.wait(20)
    server.remove()


def test_the_proxy_of_the_manual_passes_everything_as_it_is(front):
    url, context, server = front
    token = server.token(branch="main")
    headers = {"Authorization": f"Bearer {token}"}
    body = os.urandom(LARGE)
    with httpx.Client(base_url=url, verify=context, headers=headers, timeout=60) as client:
        assert client.put("/v1/cache/1", content=body).status_code == 200
        answer = client.get("/v1/cache/1", headers={"Accept-Encoding": "gzip"})
        assert answer.content == body
        assert answer.headers["content-length"] == str(LARGE)
        assert "content-encoding" not in answer.headers
        # Refused early: the answer comes, with its reason, and not a reset.
        assert client.put("/v1/cache/1", content=body).status_code == 409
        # The path comes as it was sent: the server itself refuses what is not plain.
        for path in ("/v1/cache/a%2fb", "/v1/cache/%2e%2e", "/v1/cache/1/"):
            refused = client.get(path)
            assert (refused.status_code, refused.headers["x-secure-cache-reason"]) == (
                404,
                "malformed",
            ), path
        client.headers["Authorization"] = "Bearer garbage"
        loud = client.get("/v1/cache/1")
        assert (loud.status_code, loud.headers["content-type"]) == (401, "text/plain")


def test_a_refusal_is_answered_while_the_body_still_comes(front):
    """Without `proxy_request_buffering off` nginx would take all of it first."""
    url, context, server = front
    sent = 0

    def body():
        nonlocal sent
        for _ in range(200):
            sent += 100_000
            yield bytes(100_000)
            time.sleep(0.02)

    with httpx.Client(base_url=url, verify=context, timeout=60) as client:
        headers = {"Content-Length": str(200 * 100_000)}
        try:
            answer = client.put("/v1/cache/1", content=body(), headers=headers)
        except httpx.WriteError:
            assert sent < 200 * 100_000
        else:
            assert answer.status_code == 403
            assert answer.headers["x-secure-cache-reason"] == "denied"
    wait_until(lambda: '"outcome":"denied"' in server.logs(), "the refusal in the server's log")
    (line,) = [event for event in server.events() if event.get("outcome") == "denied"]
    assert line["bytes_in"] < 200 * 100_000
