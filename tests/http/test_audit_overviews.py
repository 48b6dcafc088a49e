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


async def test_denials_are_counted_by_what_is_proved_of_the_refused(world):
    hostile = "\x1b[31m<script>evil"
    async with running(world) as desk:
        developer = world.own(role="developer")
        assert (await world.put(developer, "1", b"x")).status_code == 403
        assert (await world.get(None, "1")).status_code == 404
        assert (await world.put(None, "1", b"x")).status_code == 403
        assert (await world.get("not.a.token", "1")).status_code == 401
        assert (await world.get(world.main(iss="https://evil.example", sub=hostile), "1")).is_error
        assert (await world.request("GET", "/audit/v1/status", developer)).status_code == 403
        assert (await world.request("GET", "/log/tile/0/000", developer)).status_code == 403
        token = world.main(sub=hostile, jti="once")
        assert (await world.request("POST", "/v1/token", token)).status_code == 200
        assert (await world.request("POST", "/v1/token", token)).status_code == 401
        revoked = world.pull_request(7, run_id="66", sub=hostile)
        edit = '{ id: x, match: { run_id: "66" }, until: 2099-01-01T00:00:00Z }'
        world.edit(world.policy.read_text().replace("revocations: []", f"revocations: [{edit}]"))
        assert (await world.put(revoked, "1", b"x")).status_code == 403

        groups = ["method", "code", "who", "issuer", "project", "rule", "tier"]
        found = await desk.ask("denials", group=groups)
        assert {tuple(row[name] for name in (*groups, "count")) for row in found["counts"]} == {
            ("PUT", "denied", "known", "own", "mono", "developer", "contributor", 1),
            ("audit", "denied", "known", "own", "mono", "developer", "contributor", 1),
            ("log", "denied", "known", "own", "mono", "developer", "contributor", 1),
            ("GET", "denied", "anonymous", "", "", "", "", 1),
            ("PUT", "denied", "anonymous", "", "", "", "", 1),
            ("GET", "token-invalid", "unproved", "", "", "", "", 2),
            ("token", "token-replayed", "known", "gha", "", "", "", 1),
            ("PUT", "revoked", "known", "gha", "mono", "pull-request", "contributor", 1),
        }
        assert found["total"] == 9
        assert (found["unreadable"], found["cut"]) == (0, False)
        by_tier = await desk.ask("denials", group="tier")
        assert by_tier["counts"] == [
            {"tier": "", "count": 5},
            {"tier": "contributor", "count": 4},
        ]
        assert (await desk.ask("denials", until=rfc3339(world.clock() - 7200)))["total"] == 0
    # The end of a drain keeps them.
    (kept,) = (world.folder / "data" / "state" / "denials").rglob("*.json")
    assert b"evil" not in kept.read_bytes()
    assert b"token-replayed" in kept.read_bytes()


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"group": "subject"}, "group: one of day, hour, method"),
        ({"since": "2026-01-01", "until": "2025-01-01"}, "until: before since"),
        ({"since": "2020-01-01"}, "since: at most 31 days before until"),
        ({"since": "yesterday"}, "since: 'yesterday' is not a time"),
        ({"since": ["2026-01-01", "2026-01-02"]}, "since: exactly one value"),
        ({"tier": "trusted"}, "no parameter 'tier'; there are: since, until, group"),
    ],
    ids=str,
)
async def test_a_wrong_question_about_denials_says_what_is_allowed(world, parameters, says):
    async with running(world) as desk:
        answer = await desk.get("denials", **parameters)
        assert (answer.status_code, answer.json()["code"]) == (400, "filter-invalid")
        assert says in answer.json()["title"]
