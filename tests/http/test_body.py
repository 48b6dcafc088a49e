"""Bodies within bounds, without a server: the ASGI callables are played by the test."""

import itertools

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_cache.http.body import (
    Answer,
    BodyBounds,
    DrainBounds,
    parse_content_length,
    read_body,
    refuse_and_drain,
)
from secure_cache.http.patience import Patience
from secure_cache.model.errors import Malformed, TooLarge, TooSlow

pytestmark = pytest.mark.anyio

BOUNDS = BodyBounds(max_bytes=10, grace_seconds=5.0)


def part(body=b"", *, more=True):
    return {"type": "http.request", "body": body, "more_body": more}


def playing(*messages):
    """An ASGI receive: these messages, then nothing for ever."""
    left = iter(messages)

    async def receive():
        message = next(left, None)
        if message is None:
            await anyio.sleep_forever()
        return message

    return receive


async def collect(receive, bounds=BOUNDS, *, content_length=None):
    return [block async for block in read_body(receive, bounds, content_length=content_length)]


async def test_the_blocks_come_as_they_arrive_and_never_empty():
    receive = playing(part(b"ab"), part(), part(b"c"), part(more=False))
    assert await collect(receive, content_length=3) == [b"ab", b"c"]
    assert await collect(playing(part(more=False)), content_length=0) == []
    assert await collect(playing(part(b"abc", more=False))) == [b"abc"]


@pytest.mark.parametrize("length", [2, 4])
async def test_a_length_that_is_not_true_is_malformed(length):
    with pytest.raises(Malformed):
        await collect(playing(part(b"abc", more=False)), content_length=length)


async def test_a_length_that_is_too_large_is_refused_before_anything_is_read():
    async def receive():
        raise AssertionError("nothing was to be read")

    with pytest.raises(TooLarge):
        await collect(receive, content_length=11)


async def test_a_body_without_length_is_refused_where_it_crosses_the_bound():
    with pytest.raises(TooLarge):
        await collect(playing(part(b"a" * 10), part(b"a")))
    assert await collect(playing(part(b"a" * 10, more=False))) == [b"a" * 10]


async def test_a_client_that_leaves_is_malformed():
    with pytest.raises(Malformed):
        await collect(playing(part(b"a"), {"type": "http.disconnect"}), content_length=2)


@pytest.mark.parametrize(
    "bounds",
    [
        BodyBounds(max_bytes=10, grace_seconds=0.05),
        BodyBounds(max_bytes=10, deadline_seconds=0.05),
    ],
)
async def test_a_client_that_stops_is_too_slow(bounds):
    with pytest.raises(TooSlow):
        await collect(playing(part(b"a")), bounds, content_length=2)


async def test_a_slow_reader_of_ours_is_not_the_clients_fault():
    bounds = BodyBounds(max_bytes=10, grace_seconds=0.4, min_bytes_per_second=1000.0)
    blocks = []
    receive = playing(part(b"a"), part(b"b"), part(b"c", more=False))
    async for block in read_body(receive, bounds, content_length=3):
        await anyio.sleep(0.5)
        blocks.append(block)
    assert blocks == [b"a", b"b", b"c"]


async def test_the_deadline_holds_for_our_own_slowness_too():
    bounds = BodyBounds(max_bytes=10, deadline_seconds=1.0)
    blocks = read_body(playing(part(b"a"), part(b"b")), bounds, content_length=2)
    assert await anext(blocks) == b"a"
    await anyio.sleep(1.1)
    with pytest.raises(TooSlow):
        await anext(blocks)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [([], None), ([(b"content-length", b"0")], 0), ([(b"content-length", b"12")], 12)],
)
def test_a_plain_length_is_read(headers, expected):
    assert parse_content_length(headers) == expected


@pytest.mark.parametrize("text", [b"", b"+1", b"-1", b"1 ", b"0x1", b"1_0", b"\xb2", b"9" * 19])
def test_any_other_length_is_malformed(text):
    with pytest.raises(Malformed):
        parse_content_length([(b"content-length", text)])


def test_two_lengths_are_malformed():
    with pytest.raises(Malformed):
        parse_content_length([(b"content-length", b"1"), (b"content-length", b"1")])


class Sent:
    """An ASGI send that keeps what was sent."""

    def __init__(self):
        self.messages = []

    async def __call__(self, message):
        self.messages.append(message)


async def test_the_refusal_is_whole_before_anything_is_drained():
    sent = Sent()

    async def receive():
        assert [m["type"] for m in sent.messages] == ["http.response.start", "http.response.body"]
        assert sent.messages[1]["body"] == b"no"
        return part(b"abc", more=False)

    assert await refuse_and_drain(sent, receive, Answer(403, b"no"), DrainBounds()) == 3
    head, _, last = sent.messages
    assert head["status"] == 403
    assert (b"content-length", b"2") in head["headers"]
    assert (b"connection", b"close") in head["headers"]
    assert (b"content-type", b"text/plain") in head["headers"]
    assert last == {"type": "http.response.body", "body": b"", "more_body": False}


@pytest.mark.parametrize(
    ("receive", "drained"),
    [
        (playing(), 0),
        (playing(part(b"abc")), 3),
        (playing({"type": "http.disconnect"}), 0),
        (playing(*itertools.repeat(part(b"a" * 400), 10)), 1200),
    ],
    ids=["silent", "stops", "leaves", "greedy"],
)
async def test_the_drain_is_bounded_in_bytes_and_time(receive, drained):
    sent = Sent()
    bounds = DrainBounds(max_bytes=1000, max_seconds=0.05)
    assert await refuse_and_drain(sent, receive, Answer(403), bounds) == drained
    assert sent.messages[-1]["more_body"] is False


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(0, 1 << 20)), max_size=30))
def test_patience_stays_between_nothing_and_the_grace(steps):
    patience = Patience(grace_seconds=10.0, bytes_per_second=8192.0)
    for seconds, size in steps:
        patience.spend(seconds)
        patience.earn(size)
        assert 0 <= patience.left_seconds <= 10


@given(st.floats(0.5, 5), st.integers(0, 4000))
def test_a_client_below_the_rate_is_out_of_patience_in_the_end(pause, size):
    patience = Patience(grace_seconds=10.0, bytes_per_second=8192.0)
    for _ in range(1000):
        if patience.left_seconds <= pause:
            return
        patience.spend(pause)
        patience.earn(int(size * pause))
    raise AssertionError("waited for ever")
