"""All routes but the data path: each request is counted once, however it ends."""

import anyio
import pytest
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
