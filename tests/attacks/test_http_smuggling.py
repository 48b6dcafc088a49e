"""Attack: a request hidden inside another, or a head that two readers read differently.

Each probe is sent to a real server process. The hidden request asks for /smuggled; the
application notes every request that reaches it, and that one never may.
"""

import pytest
from fakes.edge import edge, events, status_of, statuses

HOST = b"Host: a\r\n"
HIDDEN = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = b"0\r\n\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    seen = tmp_path_factory.mktemp("edge") / "seen"
    with edge({"seen": str(seen)}, limits={"linger_seconds": 0.3}) as running:
        running.seen = seen
        yield running


def put(*headers, body=b"", line=b"PUT /store HTTP/1.1", host=HOST):
    return line + b"\r\n" + host + b"".join(h + b"\r\n" for h in headers) + b"\r\n" + body


LENGTH, ENCODING = b"Content-Length: 5", b"Transfer-Encoding: chunked"

REFUSED = {
    "length and encoding": put(LENGTH, ENCODING, body=CHUNKED),
    "encoding and length": put(ENCODING, LENGTH, body=CHUNKED),
    "length and encoding in odd case": put(b"content-LENGTH: 5", b"tRANSFER-encoding: CHUNKED"),
    "two lengths that differ": put(LENGTH, b"Content-Length: 6", body=b"abcde"),
    "two lengths that agree": put(LENGTH, LENGTH, body=b"abcde"),
    "a list of lengths": put(b"Content-Length: 5, 5", body=b"abcde"),
    "a signed length": put(b"Content-Length: +5", body=b"abcde"),
    "a negative length": put(b"Content-Length: -1", body=b"abcde"),
    "a hexadecimal length": put(b"Content-Length: 0x5", body=b"abcde"),
    "an empty length": put(b"Content-Length:", body=b"abcde"),
    "a length with an underscore": put(b"Content-Length: 1_0", body=b"abcde"),
    "a length beyond 64 bits": put(b"Content-Length: 18446744073709551621", body=b"abcde"),
    "a length beyond 18 digits": put(b"Content-Length: 9999999999999999999", body=b"abcde"),
    "a space before the colon": put(b"Content-Length : 5", body=b"abcde"),
    "a tab before the colon": put(b"Transfer-Encoding\t: chunked", body=CHUNKED),
    "a folded header": put(b"X-A: b\r\n c", LENGTH, body=b"abcde"),
    "a folded first header": put(LENGTH, body=b"abcde", host=b" " + HOST),
    "a bare LF in the head": put(b"X-A: b\nContent-Length: 5", body=b"abcde"),
    "bare LFs only": b"GET / HTTP/1.1\nHost: a\n\n",
    "a bare CR in a value": put(b"X-A: b\rContent-Length: 5", body=b"abcde"),
    "a NUL in a value": put(b"X-A: b\x00c"),
    "a control character in a value": put(b"X-A: b\x01c"),
    "a DEL in a value": put(b"X-A: b\x7fc"),
    "a space in a name": put(b"X A: b"),
    "no name": put(b": b"),
    "gzip, chunked": put(b"Transfer-Encoding: gzip, chunked", body=CHUNKED),
    "xchunked": put(b"Transfer-Encoding: xchunked", body=CHUNKED),
    "identity": put(b"Transfer-Encoding: identity"),
    "chunked twice": put(ENCODING, ENCODING, body=CHUNKED),
    "chunked in HTTP/1.0": put(ENCODING, body=CHUNKED, line=b"PUT /store HTTP/1.0"),
    "a bad chunk size": put(ENCODING, body=b"5g\r\nabcde\r\n0\r\n\r\n"),
    "a negative chunk size": put(ENCODING, body=b"-5\r\nabcde\r\n0\r\n\r\n"),
    "a chunk longer than its size": put(ENCODING, body=b"3\r\nabcde\r\n0\r\n\r\n"),
    "a chunk ended by a bare LF": put(ENCODING, body=b"5\nabcde\n0\n\n"),
    "a trailer": put(ENCODING, body=b"0\r\nAuthorization: Bearer x\r\n\r\n"),
    "two hosts": put(b"Host: b"),
    "no host": put(host=b""),
    "an empty host": put(host=b"Host:\r\n"),
    "a host with a path": put(host=b"Host: a/b\r\n"),
    "a host with a user": put(host=b"Host: x@a\r\n"),
    "a host with a space": put(host=b"Host: a b\r\n"),
    "two tokens": put(b"Authorization: Bearer x", b"Authorization: Bearer y"),
    "two equal tokens": put(b"Authorization: Bearer x", b"authorization: Bearer x"),
    "an upgrade with a body": put(
        b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: 35", body=HIDDEN
    ),
    "an upgrade with chunks": put(b"Connection: Upgrade", b"Upgrade: h2c", ENCODING, body=CHUNKED),
    "CONNECT": put(line=b"CONNECT a:1 HTTP/1.1"),
    "HTTP/2 by prior knowledge": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/2.0": put(line=b"GET / HTTP/2.0"),
    "HTTP/1.2": put(line=b"GET / HTTP/1.2"),
    "HTTP/0.9": b"GET /\r\n\r\n",
    "no version": put(line=b"GET /"),
    "an unknown method": put(line=b"STEAL / HTTP/1.1"),
    "a control character in the path": put(line=b"GET /\x01 HTTP/1.1"),
    "a raw byte in the path": put(line=b"GET /\xff HTTP/1.1"),
    "a fragment": put(line=b"GET /a#b HTTP/1.1"),
    "an asterisk": put(line=b"OPTIONS * HTTP/1.1"),
    "no slash": put(line=b"GET store HTTP/1.1"),
    "another scheme": put(line=b"GET ftp://a/store HTTP/1.1"),
    "a user in the target": put(line=b"GET http://x:y@a/store HTTP/1.1"),
    "TLS on the plain port": bytes.fromhex("16030100a5010000a10303") + bytes(160),
}


@pytest.mark.parametrize("probe", REFUSED.values(), ids=REFUSED.keys())
def test_an_ambiguous_request_is_refused_and_hides_nothing(server, probe):
    before = len(events(server.seen))
    answer = server.talk(probe + HIDDEN)
    assert statuses(answer) == [400]
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"\r\nconnection: close" in head
    assert b"\r\ncontent-type: text/plain\r\n" in head
    assert body.endswith(b"\n")
    assert body.count(b"\n") == 1
    reached = events(server.seen)[before:]
    assert {"event": "request", "path": "/smuggled"} not in reached
    assert not [event for event in reached if event["event"] == "stored"]


@pytest.mark.parametrize("probe", REFUSED.values(), ids=REFUSED.keys())
def test_a_refusal_never_comes_before_the_answer_of_an_earlier_request(server, probe):
    """A proxy gives answers to its clients in the order of the requests."""
    answer = server.talk(b"GET /slow?0.05 HTTP/1.1\r\nHost: a\r\n\r\n" + probe + HIDDEN)
    assert statuses(answer)[0] == 200
    assert statuses(answer)[1:] in ([400], [])
    assert answer.index(b"slow") < (
        answer.index(b"HTTP/1.1 400") if b" 400 " in answer else 1 << 30
    )


def test_the_same_probe_fed_byte_by_byte_is_refused_too(server):
    for name in ("length and encoding", "two lengths that agree", "a folded header", "a trailer"):
        with server.connect() as client:
            for byte in REFUSED[name]:
                client.send(bytes([byte]))
            assert status_of(client.recv(65536)) == 400, name


def test_a_trailer_never_becomes_a_header_of_the_request_at_work(server):
    """uvicorn's own protocol appends trailers to the headers that the application reads."""
    with server.connect() as client:
        client.sendall(put(ENCODING, b"Trailer: Authorization", line=b"PUT /wait HTTP/1.1"))
        client.sendall(b"3\r\nabc\r\n0\r\nAuthorization: Bearer stolen\r\n\r\n")
        assert status_of(client.recv(65536)) == 400


def test_what_follows_a_request_that_closes_is_not_read(server):
    before = len(events(server.seen))
    for closing in (
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    ):
        assert statuses(server.talk(closing + HIDDEN)) == [200]
    assert {"event": "request", "path": "/smuggled"} not in events(server.seen)[before:]


def test_honest_requests_pass_unchanged(server):
    status, body = server.get("/a//b/%2e%2e/c?d=/e")
    assert status == 200
    assert b'"raw_path": "/a//b/%2e%2e/c"' in body
    for target in (b"http://proxy.example:8080/store", b"/store"):
        line = b"PUT " + target + b" HTTP/1.1"
        assert status_of(server.talk(put(LENGTH, body=b"abcde", line=line))) == 200
    assert status_of(server.talk(put(ENCODING, body=b"5;x=y\r\nabcde\r\n0\r\n\r\n"))) == 200
    for host in (b"Host: cache.example:8642\r\n", b"Host: [::1]:80\r\n", b"Host: 10.0.0.1\r\n"):
        assert status_of(server.talk(put(LENGTH, body=b"abcde", host=host))) == 200
    assert status_of(server.talk(b"GET / HTTP/1.0\r\n\r\n")) == 200
    assert status_of(server.talk(put(b"X-Empty:", b"X-Obs: \xe9", LENGTH, body=b"abcde"))) == 200
