"""Promise 7 seen from outside: what is too large, too slow or too many is refused in words, and
nobody else notices."""

import itertools
import time

import httpx
import pytest
from world.server import Server, wait_until
from world.wire import connect, request

pytestmark = pytest.mark.every_storage

_keys = itertools.count(3 * 10**18)

SMALL = 64 * 1024
TIGHT = {
    "SECURE_CACHE_LIMITS__MAX_ARTIFACT_BYTES": str(SMALL),
    "SECURE_CACHE_LIMITS__HEADER_DEADLINE_SECONDS": "1",
    "SECURE_CACHE_LIMITS__GRACE_SECONDS": "1",
    "SECURE_CACHE_LIMITS__MIN_BYTES_PER_SECOND": "1000000",
    "SECURE_CACHE_LIMITS__BODY_DEADLINE_SECONDS": "5",
    "SECURE_CACHE_LIMITS__MAX_OPEN_UPLOADS": "2",
    "SECURE_CACHE_LIMITS__DRAIN_SECONDS": "1",
}


@pytest.fixture(scope="module")
def server(storage, tmp_path_factory):
    made = Server(
        tmp_path_factory.mktemp("limits") / "server", storage=storage, environment=TIGHT
    ).start()
    yield made
    made.remove()


@pytest.fixture(scope="module")
def main(server):
    return server.token(branch="main")


@pytest.fixture
def key():
    return str(next(_keys))


def test_the_largest_artifact_is_accepted_and_one_byte_more_is_not(server, main, key):
    assert server.put(main, key, b"x" * SMALL).status_code == 200
    refused = server.put(main, str(next(_keys)), b"x" * (SMALL + 1))
    assert (refused.status_code, refused.headers["X-Secure-Cache-Reason"]) == (403, "too-large")


def test_strict_status_says_413_for_what_is_too_large(make_server, key):
    server = make_server(options=("--strict-status",), environment=TIGHT).start()
    answer = server.put(server.token(branch="main"), key, b"x" * (SMALL + 1))
    assert answer.status_code == 413


def test_a_body_that_is_dripped_is_refused_and_not_stored(server, main, key):
    with connect(server.port) as wire:
        wire.send(request("PUT", f"/v1/cache/{key}", main, "content-length: 60000"))
        answer = _drip(wire, b"x")
        assert answer is not None
        assert answer.status == 403
        assert answer.header("x-secure-cache-reason") == "too-slow"
    assert server.get(main, key).status_code == 404


def test_headers_that_are_dripped_end_in_a_closed_connection(server):
    with connect(server.port) as wire:
        wire.send(b"GET /v1/cache/1 HTTP/1.1\r\nhost: x\r\n")
        answer = _drip(wire, b"a: b\r\n")
        assert answer is None or answer.status == 408


def _drip(wire, data):
    """Send a little ten times a second until the server has had enough."""
    wire.socket.settimeout(0.1)
    for _ in range(150):
        try:
            return wire.read()
        except TimeoutError:
            pass
        try:
            wire.send(data)
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the server waits for ever")


def test_more_uploads_than_allowed_are_refused_and_those_that_run_are_not(server, main):
    def both_are_open():
        metrics = httpx.get(f"{server.url}/metrics", trust_env=False, timeout=60).text
        return "secure_cache_open_uploads 2.0" in metrics

    with connect(server.port) as one, connect(server.port) as two:
        for wire in (one, two):
            key = next(_keys)
            wire.send(request("PUT", f"/v1/cache/{key}", main, "content-length: 2") + b"x")
        wait_until(both_are_open, "both uploads to be on their way")
        third = server.put(main, str(next(_keys)), b"x")
        assert (third.status_code, third.headers["X-Secure-Cache-Reason"]) == (403, "overloaded")
        for wire in (one, two):
            wire.send(b"y")
            assert wire.read().status == 200
    assert server.put(main, str(next(_keys)), b"x").status_code == 200


def test_a_reader_that_does_not_read_is_left(server, main, key):
    """It may hold a connection, and nothing that others need."""
    server.put(main, key, b"x" * SMALL)
    with connect(server.port) as lazy:
        lazy.send(request("GET", f"/v1/cache/{key}", main) * 200)
        assert server.get(main, key).status_code == 200
        assert server.put(main, str(next(_keys)), b"y").status_code == 200
