"""Clients that leave, stall or are cut in the middle of the data path."""

import anyio
import pytest
from fakes.cache_world import cache_world
from structlog.testing import capture_logs

from secure_cache.core.telemetry import Silent
from secure_cache.http import nx
from secure_cache.http.body import BodyBounds, DrainBounds
from secure_cache.http.nx import CacheLimits, NxCache

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
LARGE = bytes(24 * MIB)
LIMITS = CacheLimits(
    max_open_requests=10,
    max_open_uploads=10,
    body=BodyBounds(max_bytes=64 * MIB),
    drain=DrainBounds(),
    stranger_drain=DrainBounds(),
)


class Numbers(Silent):
    """Judges that each request that started ends once."""

    def __init__(self):
        self.open = 0
        self.finished = []

    def request_started(self):
        self.open += 1

    def request_finished(self, finished, /):
        self.open -= 1
        assert self.open >= 0
        self.finished.append(finished)


class Client:
    """One request, over ASGI as uvicorn speaks it: who has left takes everything at once."""

    def __init__(self, method, key=b"1", *, leaves_after=None):
        headers = [(b"content-length", b"5")] if method == "PUT" else []
        self.scope = {
            "type": "http",
            "method": method,
            "path": "/v1/cache/" + key.decode(),
            "raw_path": b"/v1/cache/" + key,
            "headers": headers,
        }
        self.leaves_after = leaves_after
        self.taken = 0
        self.asked = False
        self.stuck = anyio.Event()

    async def send(self, message):
        self.taken += len(message.get("body", b""))

    async def receive(self):
        if not self.asked and self.scope["method"] != "PUT":
            self.asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        if self.leaves_after is None or self.taken < self.leaves_after:
            self.stuck.set()
            await anyio.sleep_forever()
        return {"type": "http.disconnect"}


class Stalled(Client):
    async def send(self, message):
        if self.taken:
            self.stuck.set()
            await anyio.sleep_forever()
        await super().send(message)


@pytest.fixture
async def world():
    async with cache_world() as made:
        main = made.caller(branch="main")

        async def access(_token):
            return main

        made.numbers = Numbers()
        made.nx = NxCache(
            access=access,
            get=made.get,
            put=made.put,
            limits=LIMITS,
            telemetry=made.numbers,
            strict=False,
        )
        await made.store(main, "1", LARGE)
        yield made


async def ask(world, client):
    await world.nx(client.scope, client.receive, client.send)
    (finished,) = world.numbers.finished
    assert world.numbers.open == 0
    return finished


async def ask_and_cut(world, client):
    """Cancel the request where it waits for its client, as the end of a drain does."""
    async with anyio.create_task_group() as group:
        group.start_soon(world.nx, client.scope, client.receive, client.send)
        await client.stuck.wait()
        group.cancel_scope.cancel()


async def test_nothing_more_is_read_for_a_client_that_has_left(world):
    client = Client("GET", leaves_after=MIB)
    finished = await ask(world, client)

    assert finished.outcome == "gone"
    assert client.taken < 12 * MIB


async def test_a_client_of_another_protocol_hears_so_although_it_sends_a_body(world):
    """Closed over what it still sends, the connection would be reset, and the answer lost."""
    client = Client("POST")
    parts = [b"a", b"b", b"c"]
    sent = []

    async def receive():
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message):
        sent.append((message.get("status"), message.get("more_body"), len(parts)))

    await world.nx(client.scope, receive, send)
    (finished,) = world.numbers.finished

    # Told at once, and closed when all has come.
    assert sent == [(405, None, 3), (None, True, 3), (None, False, 0)]
    assert (finished.status, finished.outcome) == (405, "refused")


async def test_a_transfer_that_never_has_to_wait_gives_others_their_turn(world):
    # Once proved, the artifact is not hashed again: nothing in between waits by itself.
    await world.fetch(world.caller(branch="main"), "1")
    turns = 0

    async def other():
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(other)
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        before = turns
        finished = await ask(world, Client("GET"))
        after = turns
        group.cancel_scope.cancel()

    assert (finished.outcome, finished.bytes_out) == ("hit", len(LARGE))
    assert after - before >= 3


async def test_a_client_that_takes_nothing_is_too_slow_and_no_defect_of_ours(world, monkeypatch):
    monkeypatch.setattr(nx, "_STALLED_SEND_SECONDS", 0.05)
    with capture_logs() as lines:
        finished = await ask(world, Stalled("GET"))

    assert (finished.outcome, finished.reason) == ("refused", "too-slow")
    assert [line["event"] for line in lines] == ["request"]


async def test_an_answer_that_the_end_of_a_drain_cuts_is_counted_and_told(world):
    client = Stalled("GET")
    with capture_logs() as lines:
        await ask_and_cut(world, client)
    (finished,) = world.numbers.finished

    assert world.numbers.open == 0
    assert finished.outcome == "gone"
    assert [line["event"] for line in lines] == ["request"]
    assert world.nx._open_requests == world.nx._open_uploads == 0


async def test_an_upload_that_the_end_of_a_drain_cuts_is_not_stored_and_breaks_no_build(
    world, monkeypatch
):
    monkeypatch.setattr(nx, "_PARTING_SECONDS", 0.2)
    client = Client("PUT", b"2")
    with capture_logs() as lines:
        await ask_and_cut(world, client)
    (finished,) = world.numbers.finished

    assert world.numbers.open == 0
    assert (finished.status, finished.outcome, finished.reason) == (403, "failed", "overloaded")
    assert [line["event"] for line in lines] == ["request"]
    assert world.nx._open_requests == world.nx._open_uploads == 0
