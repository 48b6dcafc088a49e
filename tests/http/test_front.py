"""All routes but the data path: each request is counted once, however it ends."""

import anyio
import pytest
from fakes.app_world import AppWorld
from fakes.audit_desk import FAST, running
from structlog.testing import capture_logs

from secure_cache.core.telemetry import Silent
from secure_cache.http.front import Front

pytestmark = pytest.mark.anyio


class Numbers(Silent):
    def __init__(self):
        self.started = 0
        self.finished = []

    def request_started(self):
        self.started += 1

    def request_finished(self, finished, /):
        self.finished.append(finished)


async def stuck(_scope, _receive, _send):
    await anyio.sleep_forever()


async def crashing(_scope, _receive, send):
    await send({"type": "http.response.start", "status": 500, "headers": []})
    raise ValueError("the framework sends its answer and raises all the same")


async def nothing():
    return {"type": "http.request", "body": b"", "more_body": False}


async def ignore(_message):
    return


def request():
    return {
        "type": "http",
        "method": "GET",
        "path": "/readyz",
        "raw_path": b"/readyz",
        "headers": [],
    }


async def test_a_request_that_the_end_of_a_drain_cuts_is_counted_and_told():
    numbers = Numbers()
    front = Front(stuck, cache=None, root_path="", telemetry=numbers, early=None)
    with capture_logs() as lines, anyio.move_on_after(0.05):
        await front(request(), nothing, ignore)
    (finished,) = numbers.finished

    assert numbers.started == 1
    assert (finished.outcome, finished.status) == ("gone", 0)
    assert [line["outcome"] for line in lines] == ["gone"]


async def test_a_request_on_which_the_framework_breaks_is_counted_and_told():
    numbers = Numbers()
    front = Front(crashing, cache=None, root_path="", telemetry=numbers, early=None)
    with capture_logs() as lines, pytest.raises(ValueError, match="framework"):
        await front(request(), nothing, ignore)
    (finished,) = numbers.finished

    assert (finished.outcome, finished.status) == ("failed", 500)
    assert len(lines) == 1


async def test_head_gets_the_head_of_what_get_would_and_ends_there():
    """A long answer is not made for nobody: it hears that its client has left."""
    sent, seen, over = [], [], anyio.Event()

    async def endless(scope, receive, send):
        seen.append(scope["method"])
        headers = [(b"content-length", b"7")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        assert (await receive())["type"] == "http.request"
        seen.append((await receive())["type"])

    async def receive():
        if not over.is_set():
            return await nothing()
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)
        if message["type"] == "http.response.body" and not message["more_body"]:
            over.set()

    numbers = Numbers()
    front = Front(endless, cache=None, root_path="", telemetry=numbers, early=None)
    with anyio.fail_after(60):
        await front({**request(), "method": "HEAD"}, receive, send)

    assert seen == ["GET", "http.disconnect"]
    start, end = sent
    assert (b"content-length", b"7") in start["headers"]
    assert (end["body"], end["more_body"]) == (b"", False)
    assert [(f.method, f.status) for f in numbers.finished] == [("HEAD", 200)]


PATHS = (
    "/healthz",
    "/readyz",
    "/metrics",
    "/log/checkpoint",
    "/log/vkeys",
    "/audit/v1/entries",
    "/audit/v1/export",
    "/audit/v1/entries?tier=root",
    "/audit/v1/nothing",
    "/audit/sign-in",
    "/audit/static/console.css",
    "/v1/whoami",
)


@pytest.fixture
def world(tmp_path):
    return AppWorld(tmp_path, **FAST)


@pytest.mark.parametrize("token", [True, False])
async def test_whoever_asks_for_the_head_alone_gets_the_same_one(world, token):
    """Monitors and load balancers do."""
    async with running(world) as desk:
        await desk.indexed(0)
        for path in PATHS:
            head, whole = [
                await world.request(method, path, world.auditor if token else None)
                for method in ("HEAD", "GET")
            ]
            assert head.status_code == whole.status_code, path
            assert head.content == b"", path
            for name in ("content-type", "cache-control", "x-secure-cache-reason"):
                assert head.headers.get(name) == whole.headers.get(name), (path, name)
