"""The TLS front of deploy/, for real: it changes nothing that matters to Nx."""

import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from world.fronts import FRONTS
from world.server import Server, free_port, wait_until

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]

LARGE = 30_000_000


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("behind") / "server").start()
    yield server
    server.remove()


@pytest.fixture(scope="module")
def main(server):
    return {"Authorization": f"Bearer {server.token(branch='main')}"}


@pytest.fixture(params=FRONTS)
def front(request, tmp_path, server):
    """One replica that answers, and one that is gone."""
    with FRONTS[request.param](tmp_path / "front", [free_port(), server.port]) as front:
        yield front


@pytest.fixture
def key():
    return str(int.from_bytes(os.urandom(7)))


def client(front, headers=None):
    return httpx.Client(
        base_url=front.url, verify=front.context, headers=headers, timeout=60, trust_env=False
    )


def test_it_passes_everything_as_it_is(front, main, key):
    body = os.urandom(LARGE)
    with client(front, main) as through:
        assert through.put(f"/v1/cache/{key}", content=body).status_code == 200
        answer = through.get(f"/v1/cache/{key}", headers={"Accept-Encoding": "gzip"})
        assert answer.content == body
        assert answer.headers["content-length"] == str(LARGE)
        assert "content-encoding" not in answer.headers
        # Refused early: the answer comes, with its reason, and not a reset.
        assert through.put(f"/v1/cache/{key}", content=body).status_code == 409
        through.headers["Authorization"] = "Bearer garbage"
        loud = through.get(f"/v1/cache/{key}")
        assert (loud.status_code, loud.headers["content-type"]) == (401, "text/plain")
        assert loud.text.startswith("secure-cache: the token is not valid")


def head_of(connection, path, token):
    """What the server answers to exactly this path."""
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {token}\r\n"
    with connection:
        connection.sendall(f"{request}Connection: close\r\n\r\n".encode())
        received = b""
        while piece := connection.recv(65536):
            received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    lines = head.decode().lower().split("\r\n")
    reasons = [line for line in lines if line.startswith("x-secure-cache-reason:")]
    return lines[0].split()[1], reasons, body


@pytest.mark.parametrize(
    "path",
    [
        "/v1/cache/{key}",
        "//v1/cache/{key}",
        "/v1//cache/{key}",
        "/v1/cache/{key}/",
        "/v1/cache/{key}?x=1",
        "/v1/cache/a%2fb",
        "/v1/cache/%2e%2e",
        "/v1/cache/../cache/{key}",
        "/v1/cache/./{key}",
        "/V1/CACHE/{key}",
    ],
)
def test_the_path_comes_as_it_was_sent(front, server, main, path):
    """What a front made plain, the server could not refuse: the answers are those without one."""
    server.put(main["Authorization"].removeprefix("Bearer "), "77", b"seventy-seven")
    path, token = path.format(key="77"), main["Authorization"]
    straight = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    through = front.context.wrap_socket(
        socket.create_connection(("127.0.0.1", front.port), timeout=20),
        server_hostname="localhost",
    )

    assert head_of(through, path, token) == head_of(straight, path, token)


def test_a_refusal_is_answered_while_the_body_still_comes(front, server):
    """A front that takes the whole body first would make every refusal as slow as an upload."""
    sent, before = 0, len(server.events())

    def body():
        nonlocal sent
        for _ in range(200):
            sent += 100_000
            yield bytes(100_000)
            time.sleep(0.02)

    with client(front) as through:
        headers = {"Content-Length": str(200 * 100_000)}
        try:
            answer = through.put("/v1/cache/1", content=body(), headers=headers)
        except (httpx.WriteError, httpx.ReadError):
            assert sent < 200 * 100_000
        else:
            assert answer.status_code == 403
            assert answer.headers["x-secure-cache-reason"] == "denied"

    def refusals():
        return [event for event in server.events()[before:] if event.get("outcome") == "denied"]

    wait_until(refusals, "the refusal in the server's log")
    (line,) = refusals()
    assert line["bytes_in"] < 200 * 100_000


def test_three_hundred_look_ups_at_once_are_all_answered(front, main):
    """Nx 24 asks for every ready task at the same moment."""
    limits = httpx.Limits(max_connections=300)
    with (
        httpx.Client(base_url=front.url, verify=front.context, headers=main, limits=limits,
                     timeout=60, trust_env=False) as through,
        ThreadPoolExecutor(300) as pool,
    ):  # fmt: skip
        asked = pool.map(lambda n: through.get(f"/v1/cache/{n}").status_code, range(1000, 1300))
        assert set(asked) == {404}


def test_a_restart_behind_it_fails_no_look_up(front, server, main):
    """Its idle connections to the server are dead afterwards."""
    with client(front, main) as through:
        for n in range(20):
            assert through.get(f"/v1/cache/{2000 + n}").status_code == 404
        server.restart()
        for n in range(20):
            assert through.get(f"/v1/cache/{3000 + n}").status_code == 404


def test_what_is_for_the_inside_stays_inside(front):
    with client(front) as through:
        assert through.get("/healthz").status_code == 200
        assert through.get("/log/checkpoint").status_code == 200
        for path in ("/metrics", "/readyz"):
            assert through.get(path).status_code == 404
