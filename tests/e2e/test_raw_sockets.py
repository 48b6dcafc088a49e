"""Requests that no decent client sends. Each either gets one clean answer or a closed connection,
and none makes the server do what it was not asked to."""

import itertools
import socket

import pytest
from world.server import Server
from world.wire import connect, request

pytestmark = pytest.mark.every_storage

_keys = itertools.count(2 * 10**18)


@pytest.fixture(scope="module")
def server(storage, tmp_path_factory):
    made = Server(tmp_path_factory.mktemp("raw") / "server", storage=storage).start()
    yield made
    made.remove()


@pytest.fixture(scope="module")
def main(server):
    return server.token(branch="main")


@pytest.fixture
def key():
    return str(next(_keys))


def path(key: str) -> str:
    return f"/v1/cache/{key}"


def test_two_requests_in_one_packet_are_answered_in_order(server, main, key):
    server.put(main, key, b"there")
    with connect(server.port) as wire:
        wire.send(request("GET", path(key), main) + request("GET", path("1"), main))
        first, second = wire.read(), wire.read()
    assert (first.status, first.body) == (200, b"there")
    assert second.status == 404


def test_an_upload_and_a_download_in_one_packet_are_answered_in_order(server, main, key):
    with connect(server.port) as wire:
        wire.send(request("PUT", path(key), main, body=b"bytes") + request("GET", path(key), main))
        first, second = wire.read(), wire.read()
    assert first.status == 200
    assert (second.status, second.body) == (200, b"bytes")


def test_a_length_beside_chunks_smuggles_nothing(server, main, key):
    """CL+TE: whichever of the two is believed, the hidden request must not run."""
    hidden = request("PUT", path(key), main, body=b"smuggled")
    body = b"0\r\n\r\n" + hidden
    with connect(server.port) as wire:
        wire.send(
            request(
                "PUT",
                path(str(next(_keys))),
                main,
                "transfer-encoding: chunked",
                f"content-length: {len(body)}",
            )
            + body
        )
        answers = wire.read_all() if _closes(wire) else []
    assert len(answers) <= 1
    assert all(answer.status in {400, 403} for answer in answers), answers
    assert server.get(main, key).status_code == 404


def _closes(wire) -> bool:
    """Half-close our side, so that a server that waits for more sees the end."""
    wire.socket.shutdown(socket.SHUT_WR)
    return True


@pytest.mark.parametrize(
    "lines",
    [
        ("content-length: 5", "content-length: 6"),
        ("content-length: 5, 6",),
        ("content-length: +5",),
        ("content-length: -1",),
        ("content-length: 0x5",),
        ("content-length: 5 5",),
        ("content-length: 99999999999999999999999999",),
        ("transfer-encoding: chunked, identity",),
        ("transfer-encoding: xchunked",),
        ("transfer-encoding: chunked", "transfer-encoding: identity"),
    ],
)
def test_a_length_that_can_be_read_in_two_ways_stores_nothing(server, main, key, lines):
    with connect(server.port) as wire:
        wire.send(request("PUT", path(key), main, *lines) + b"hello!")
        wire.socket.shutdown(socket.SHUT_WR)
        answers = wire.read_all()
    assert len(answers) <= 1
    assert all(answer.status in {400, 403, 501} for answer in answers), answers
    assert server.get(main, key).status_code == 404


def test_two_different_tokens_in_one_request_are_not_valid(server, main, key):
    """A proxy and we must not disagree about which one counts."""
    other = server.token(pr=9)
    server.put(main, key, b"of main")
    with connect(server.port) as wire:
        wire.send(request("GET", path(key), main, f"authorization: Bearer {other}"))
        answer = wire.read()
    assert answer is None or answer.status in {400, 401}


def test_a_body_shorter_than_announced_is_not_stored(server, main, key):
    with connect(server.port) as wire:
        wire.send(request("PUT", path(key), main, "content-length: 1000") + b"x" * 999)
        wire.socket.shutdown(socket.SHUT_WR)
        answers = wire.read_all()
    assert all(answer.status in {400, 403} for answer in answers), answers
    assert server.get(main, key).status_code == 404
    assert server.put(main, key, b"whole").status_code == 200


def test_a_body_cut_by_a_reset_is_not_stored(server, main, key):
    with connect(server.port) as wire:
        wire.send(request("PUT", path(key), main, "content-length: 100000") + b"x" * 50_000)
        linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    assert server.get(main, key).status_code == 404
    assert server.put(main, key, b"whole").status_code == 200


def test_what_follows_a_body_is_the_next_request_and_not_part_of_it(server, main, key):
    with connect(server.port) as wire:
        wire.send(request("PUT", path(key), main, "content-length: 5") + b"helloEXTRA")
        first = wire.read()
    assert first.status == 200
    assert server.get(main, key).content == b"hello"


def test_a_refused_upload_is_answered_before_its_body_and_then_drained(server, key):
    """Closing at once would reset the connection, and Nx would try six times."""
    size = 512 * 1024
    with connect(server.port) as wire:
        wire.send(request("PUT", path(key), None, f"content-length: {size}"))
        answer = wire.read()
        assert answer.status == 403
        assert answer.header("connection") == "close"
        wire.send(b"x" * size)
        assert wire.read() is None


def test_a_chunked_upload_gets_an_answer_that_a_build_survives(server, main, key):
    with connect(server.port) as wire:
        wire.send(
            request("PUT", path(key), main, "transfer-encoding: chunked")
            + b"5\r\nhello\r\n0\r\n\r\n"
        )
        answer = wire.read()
    assert answer.status in {200, 403}
    read = server.get(main, key)
    if answer.status == 200:
        assert read.content == b"hello"
    else:
        assert answer.header("x-secure-cache-reason")
        assert read.status_code == 404


def test_an_expectation_is_met_before_the_body(server, main, key):
    with connect(server.port) as wire:
        wire.send(request("PUT", path(key), main, "expect: 100-continue", "content-length: 5"))
        wire.send(b"hello")
        assert wire.read().status == 200
    assert server.get(main, key).content == b"hello"


@pytest.mark.parametrize(
    "head",
    [
        b"GET /v1/cache/1\r\n\r\n",
        b"GET /v1/cache/1 HTTP/9.9\r\nhost: x\r\n\r\n",
        b"GET /v1/cache/1 HTTP/1.1\r\nhost x\r\n\r\n",
        b"GET /v1/cache/1 HTTP/1.1\r\nhost: x\r\nna me: v\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x00" * 100,
        b"GET /v1/cache/1 HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 200_000 + b"\r\n\r\n",
    ],
)
def test_what_is_not_http_gets_a_refusal_or_a_closed_door(server, main, head):
    with connect(server.port) as wire:
        wire.send(head)
        wire.socket.shutdown(socket.SHUT_WR)
        answers = wire.read_all()
    assert all(400 <= answer.status < 506 for answer in answers), answers
    assert server.get(main, "1").status_code == 404


def test_slow_and_idle_strangers_do_not_keep_others_out(server, main, key):
    """Four hundred connections that send one byte and then nothing."""
    idle = [connect(server.port) for _ in range(400)]
    wires = [context.__enter__() for context in idle]
    try:
        for wire in wires:
            wire.send(b"G")
        assert server.put(main, key, b"x").status_code == 200
        assert server.get(main, key).content == b"x"
    finally:
        for context in idle:
            context.__exit__(None, None, None)


def test_a_dripped_body_is_accepted_while_it_keeps_coming(server, main, key):
    with connect(server.port) as wire:
        wire.send(request("PUT", path(key), main, "content-length: 20"))
        for _ in range(20):
            wire.send(b"x")
        assert wire.read().status == 200
    assert server.get(main, key).content == b"x" * 20
