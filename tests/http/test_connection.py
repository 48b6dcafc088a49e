"""What an honest client may rely on: pooled, half-closed and patient connections."""

import time

import pytest
from fakes.edge import edge, events, read_all, read_answer, status_of, statuses, wait_for

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
NX_GET = (
    b"GET /pre//v1/cache/17309471294 HTTP/1.1\r\n"
    b"accept: application/octet-stream\r\n"
    b"authorization: Bearer %s\r\n"
    b"content-type: application/octet-stream\r\n"
    b"host: 127.0.0.1:8642\r\n\r\n"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    seen = tmp_path_factory.mktemp("edge") / "seen"
    with edge({"seen": str(seen)}) as running:
        running.seen = seen
        yield running


@pytest.fixture(scope="module")
def hasty():
    """Waits two seconds for anything, and for a pooled connection a little longer."""
    limits = {"header_seconds": 2.0, "body_grace_seconds": 2.0}
    with edge(limits=limits, keep_alive_seconds=5) as running:
        yield running


def test_the_request_of_nx_passes_with_a_token_of_eight_kibibytes(server):
    with server.connect() as client:
        for _ in range(3):
            client.sendall(NX_GET % (b"a" * 8192))
            answer = read_answer(client)
            assert status_of(answer) == 200
            assert b'"raw_path": "/pre//v1/cache/17309471294"' in answer
            assert b"connection: close" not in answer


def test_a_pooled_connection_outlives_the_deadline_for_headers(hasty):
    """A7: a connection that the server closes too early fails the next look-up of Nx."""
    with hasty.connect() as client:
        client.sendall(GET)
        assert status_of(read_answer(client)) == 200
        time.sleep(2.3)
        client.sendall(GET)
        assert status_of(read_answer(client)) == 200


def test_an_idle_connection_is_closed_cleanly_in_the_end(hasty):
    with hasty.connect() as client:
        client.sendall(GET)
        assert status_of(read_answer(client)) == 200
        assert client.recv(10) == b""


def test_a_slow_answer_is_waited_for(hasty):
    """No deadline for headers, bodies or idleness counts while the application works."""
    with hasty.connect() as client:
        client.sendall(b"GET /slow?2.5 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert status_of(read_answer(client)) == 200
        client.sendall(b"PUT /slow?2.5 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
        assert status_of(read_answer(client)) == 200


def test_a_client_may_close_its_side_and_wait(server):
    assert statuses(server.talk(b"GET /slow?0.3 HTTP/1.1\r\nHost: a\r\n\r\n")) == [200]
    assert statuses(server.talk(GET + GET)) == [200, 200]


def test_a_head_that_arrives_in_pieces_is_one_request(server):
    with server.connect() as client:
        for byte in GET:
            client.sendall(bytes([byte]))
        assert status_of(read_answer(client)) == 200


def test_a_head_request_has_no_body(server):
    answer = server.talk(b"HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n")
    assert status_of(answer) == 200
    assert answer.endswith(b"\r\n\r\n")


def test_the_application_learns_that_its_client_left(server):
    with server.connect() as client:
        client.sendall(b"PUT /wait HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na")
    wait_for(lambda: {"event": "waited", "type": "http.disconnect"} in events(server.seen))


def test_the_running_request_learns_it_although_another_was_sent_ahead(server, tmp_path):
    """uvicorn tells only the newest request, and the one at work would wait for ever."""
    with edge({"seen": str(tmp_path / "seen")}) as other, other.connect() as client:
        client.sendall(b"GET /big?200 HTTP/1.1\r\nHost: a\r\n\r\n" + GET)
        client.recv(1000)
        client.close()
        wait_for(lambda: {"event": "sent"} in events(tmp_path / "seen"))
        assert {"event": "request", "path": "/a"} not in events(tmp_path / "seen")


def test_an_upgrade_is_ignored(server):
    upgrade = b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    with server.connect() as client:
        client.sendall(upgrade)
        answer = read_all(client)
    assert statuses(answer) == [200]
    assert b"connection: close" in answer


def test_a_refusal_is_one_line_of_plain_text(server):
    """A7 of the client: anything but exactly text/plain hides the reason from Nx."""
    answer = server.talk(b"GET /a HTTP/1.1\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"\r\ncontent-type: text/plain\r\n" in head + b"\r\n"
    assert b"connection: close" in head
    assert body == b"the host header is missing\n"


def test_a_refusal_closes_the_connection_without_a_reset(server):
    with server.connect() as client:
        client.sendall(b"GET /a HTTP/1.1\r\n\r\n" + bytes(100_000))
        answer = read_all(client)
    assert statuses(answer) == [400]
    assert b"<reset>" not in answer
