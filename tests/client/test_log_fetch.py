"""Fetching a log's files from a server that may answer anything, or never."""

import gzip
import resource
import zlib
from contextlib import asynccontextmanager

import anyio
import pytest

from secure_cache.client import log_fetch
from secure_cache.client.http_answer import new_client, read_answer
from secure_cache.client.log_fetch import LogFetch
from secure_cache.client.remote import ServerAddress
from secure_cache.model.errors import Denied, NotFound, SecureCacheError, Unavailable

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def server(answer):
    """Answers each connection by `answer(stream, head)`, then closes it."""

    async def handle(stream):
        async with stream:
            head = await stream.receive()
            try:
                await answer(stream, head)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                return

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra_attributes[anyio.abc.SocketAttribute.local_port]()
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, handle)
        yield ServerAddress(f"http://127.0.0.1:{port}/log")
        group.cancel_scope.cancel()


def plain(status, body=b"", *headers):
    async def answer(stream, _head):
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
        await stream.send("\r\n".join(lines).encode() + body)

    return answer


async def fetched(answer, path="checkpoint", **options):
    got = None
    async with server(answer) as address, LogFetch(address, **options) as fetch:
        # A task group would wrap what is raised in it.
        try:
            got = await fetch(path)
        except SecureCacheError as error:
            got = error
    if isinstance(got, SecureCacheError):
        raise got
    return got


async def test_a_file_is_fetched_with_the_token():
    heads = []

    async def answer(stream, head):
        heads.append(head)
        await plain("200 OK", b"the note")(stream, head)

    assert await fetched(answer, token="t0ken") == b"the note"
    assert heads[0].startswith(b"GET /log/checkpoint HTTP/1.1\r\n")
    assert b"Authorization: Bearer t0ken\r\n" in heads[0]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("404 Not Found", NotFound),
        ("410 Gone", NotFound),
        ("401 Unauthorized", Denied),
        ("403 Forbidden", Denied),
        ("500 Internal Server Error", Unavailable),
        ("501 Not Implemented", Unavailable),
        ("204 No Content", Unavailable),
        ("206 Partial Content", Unavailable),
    ],
)
async def test_each_status_says_what_it_means(status, error):
    with pytest.raises(error):
        await fetched(plain(status))


def busy_until(last):
    """Busy to all but the last of so many, and the times of all."""
    times = []

    async def answer(stream, head):
        times.append(anyio.current_time())
        if len(times) < last:
            busy = plain("503 Service Unavailable", b"", "X-Secure-Cache-Reason: unavailable")
            await busy(stream, head)
        else:
            await plain("200 OK", b"the note")(stream, head)

    return answer, times


async def test_who_is_busy_is_asked_again_a_little_later(monkeypatch):
    monkeypatch.setattr(log_fetch, "BUSY_WAITS_SECONDS", (0.1, 0.2, 0.4))
    answer, times = busy_until(last=4)
    assert await fetched(answer) == b"the note"
    assert [after - before >= wait for before, after, wait in steps(times)] == [True] * 3


def steps(times):
    return zip(times, times[1:], log_fetch.BUSY_WAITS_SECONDS, strict=False)


async def test_who_stays_busy_is_not_asked_for_ever_and_the_reason_is_told(monkeypatch):
    monkeypatch.setattr(log_fetch, "BUSY_WAITS_SECONDS", (0.01, 0.01))
    answer, times = busy_until(last=100)
    with pytest.raises(Unavailable, match=r"answered 503 \(unavailable\)$"):
        await fetched(answer)
    assert len(times) == 3


async def test_a_reason_that_is_not_one_of_ours_is_not_repeated():
    hostile = plain("500 Oh", b"", "X-Secure-Cache-Reason: \x1b[31mred")
    with pytest.raises(Unavailable, match=r"answered 500$"):
        await fetched(hostile)


async def test_another_status_may_mean_that_there_is_nothing():
    with pytest.raises(NotFound):
        await fetched(plain("501 Not Implemented"), absent=frozenset({501}))


async def test_a_redirect_is_not_followed_and_no_token_goes_there():
    with pytest.raises(Unavailable, match="302"):
        await fetched(plain("302 Found", b"", "Location: http://127.0.0.1:9/"), token="t0ken")


async def test_an_answer_without_an_end_is_cut_off():
    async def endless(stream, _head):
        await stream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await stream.send(b"40000\r\n" + b"x" * 0x40000 + b"\r\n")

    with pytest.raises(Unavailable, match="more than 16777472 bytes"):
        await fetched(endless)


async def test_an_answer_that_swells_is_cut_off():
    """A few kilobytes that become gigabytes."""
    body = swelling(64)
    with pytest.raises(Unavailable, match="more than 16777472 bytes"):
        await fetched(plain("200 OK", body, "Content-Encoding: gzip"))


def swelling(mebibytes):
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = bytes(1 << 20)
    return b"".join([*(packer.compress(block) for _ in range(mebibytes)), packer.flush()])


async def test_an_answer_that_swells_in_layers_is_not_unpacked():
    """Each layer of a kilobyte becomes a thousand times as much, before anybody can count."""
    body = gzip.compress(swelling(128))
    assert len(body) < 2048
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Unavailable, match="compressed"):
        await fetched(plain("200 OK", body, "Content-Encoding: gzip, gzip"))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * 1024 < 32 << 20


async def test_a_servers_api_does_not_swell_either():
    body = gzip.compress(swelling(64))

    def ask(url, why):
        with new_client() as http, pytest.raises(Unavailable, match=why):
            read_answer(http, http.build_request("GET", url))

    async with server(plain("200 OK", body, "Content-Encoding: gzip, gzip")) as address:
        await anyio.to_thread.run_sync(ask, address.url, "compressed")
    async with server(plain("200 OK", swelling(1), "Content-Encoding: gzip")) as address:
        await anyio.to_thread.run_sync(ask, address.url, "more than 65536 bytes")


async def test_one_layer_of_gzip_is_undone():
    note = b"the note\n" * 100_000
    answer = plain("200 OK", gzip.compress(note), "Content-Encoding: gzip")
    assert await fetched(answer) == note


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("br", b"\x0b\x03\x80the note\x03"),
        ("deflate", zlib.compress(b"the note")),
        ("gzip", b"no gzip at all"),
        ("gzip", gzip.compress(b"the note")[:-9]),
    ],
    ids=["brotli", "deflate", "no gzip", "cut gzip"],
)
async def test_another_coding_or_a_wrong_one_is_no_file(coding, body):
    with pytest.raises(Unavailable, match="compressed"):
        await fetched(plain("200 OK", body, f"Content-Encoding: {coding}"))


async def test_an_answer_that_drips_is_not_waited_for():
    async def drips(stream, _head):
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            await stream.send(b"x")
            await anyio.sleep(0.02)

    with pytest.raises(Unavailable, match=r"no whole answer within 0\.3 s"):
        await fetched(drips, deadline_seconds=0.3)


@pytest.mark.parametrize(
    "raw",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", b"SSH-2.0-OpenSSH\r\n"],
)
async def test_what_is_no_answer_is_no_file(raw):
    async def answer(stream, _head):
        await stream.send(raw)

    with pytest.raises(Unavailable):
        await fetched(answer)


async def test_a_host_that_can_have_no_name_is_not_reached():
    url = f"https://{'a' * 64}.example.com"
    with pytest.raises(Unavailable, match="cannot be reached"), new_client() as http:
        read_answer(http, http.build_request("GET", url))
    async with LogFetch(ServerAddress(url)) as fetch:
        with pytest.raises(Unavailable):
            await fetch("checkpoint")


async def test_nobody_there_is_said():
    async with LogFetch(ServerAddress("http://127.0.0.1:9/log")) as fetch:
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1:9"):
            await fetch("checkpoint")
