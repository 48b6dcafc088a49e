"""What the API derives from many entries: timelines, namespaces, revocations, health."""

import pytest
from fakes.app_world import AppWorld
from fakes.audit_desk import FAST, running, stored

from secure_cache.model.clock import rfc3339

pytestmark = pytest.mark.anyio


@pytest.fixture
def world(tmp_path):
    return AppWorld(tmp_path, **FAST)


async def test_a_timeline_tells_stores_by_tier_and_the_logs_own_events(world):
    async with running(world) as desk:
        await stored(world, world.main(), "1", "2")
        await stored(world, world.pull_request(7), "3")
        await desk.indexed(3)
        day = int(world.clock()) // 86_400 * 86_400
        found = await desk.ask("timeline")
        assert found["bucket"] == "day"
        cells = {(cell["start"], cell["tier"], cell["event"]): cell for cell in found["cells"]}
        assert cells[rfc3339(day), "trusted", "stored"]["entries"] == 2
        assert cells[rfc3339(day), "contributor", "stored"]["entries"] == 1
        assert (rfc3339(day), None, "policy") in cells
        assert found["total"] == found["size"] == sum(cell["entries"] for cell in found["cells"])

        hour = int(world.clock()) // 3600 * 3600
        span = {"since": rfc3339(hour), "until": rfc3339(hour + 7200)}
        found = await desk.ask("timeline", tier="contributor", **span)
        assert (found["bucket"], found["total"]) == ("hour", 1)
        assert [cell["start"] for cell in found["cells"]] == [rfc3339(hour)]
        assert (await desk.ask("timeline", bucket="day", **span))["bucket"] == "day"

        for parameters, says in (
            ({"bucket": "minute"}, "bucket: one of hour, day"),
            ({"bucket": "hour"}, "hour needs since and until"),
            ({"limit": "5"}, "no parameter 'limit'"),
        ):
            answer = await desk.get("timeline", **parameters)
            assert answer.status_code == 400
            assert says in answer.json()["title"]
