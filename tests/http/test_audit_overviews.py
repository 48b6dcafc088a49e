"""What the API derives from many entries: timelines, namespaces, revocations, health."""

import pytest
import structlog.testing
from fakes.app_world import AppWorld
from fakes.audit_desk import FAST, running, stored, until

from secure_cache.model.clock import rfc3339
from secure_cache.model.digest import Digest

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


async def test_namespaces_are_shown_with_who_may_read_them_and_what_they_hold(world):
    async with running(world) as desk:
        await stored(world, world.main(), "1", "2")
        for number in (7, 8):
            await stored(world, world.pull_request(number), "3")
        await desk.indexed(4)
        found = await desk.ask("namespaces")
        nodes = {node["id"]: node for node in found["nodes"]}
        main, pull_requests = nodes["mono:branch/main"], nodes["mono:pull_request/any"]
        assert (main["tier"], main["writers"], main["tiers"]) == (
            "trusted",
            ["main"],
            {"trusted": 2},
        )
        assert (pull_requests["namespaces"], pull_requests["entries"]) == (2, 2)
        assert nodes["mono:role/auditor"]["audits"]
        assert found["distinct"] == 3
        assert found["namespaces"][0] == {
            "namespace": "mono:branch/main",
            "node": "mono:branch/main",
            "entries": 2,
            "tiers": {"trusted": 2},
        }
        edges = {(edge["reader"], edge["read"]): edge["how"] for edge in found["edges"]}
        assert edges["mono:pull_request/any", "mono:branch/main"] == ["name", "base"]
        assert ("mono:branch/main", "mono:pull_request/any") not in edges

        # What no rule speaks of any more is said to be so.
        text = world.policy.read_text()
        gone = "    - { name: pull-request, when: { pull_request: any }, tier: contributor"
        start = text.index(gone)
        end = text.index("    - { name: other-branch")
        world.edit(text[:start] + text[end:])
        found = await desk.ask("namespaces", limit=1)
        assert found["without_node"] == {
            "namespaces": 2,
            "entries": 2,
            "tiers": {"contributor": 2},
        }
        assert (len(found["namespaces"]), found["distinct"]) == (1, 3)
        assert (await desk.get("namespaces", limit=0)).status_code == 400


async def in_force(desk, old, new):
    """Edit the policy, and wait until the log was told."""
    world = desk.world
    world.edit(world.policy.read_text().replace(old, new))
    world.server._untold.set()
    sha256 = str(Digest.of(world.policy.read_bytes()))

    async def is_newest():
        answer = await desk.get("policies")
        return answer.status_code == 200 and answer.json()["policies"][-1]["sha256"] == sha256

    await until(is_newest)
    return sha256


async def test_what_is_taken_back_is_shown_since_when_and_how_much(world):
    async with running(world) as desk:
        await stored(world, world.main(run_id="1"), "1", "2")
        await stored(world, world.main(run_id="2"), "3")
        await stored(world, world.pull_request(7, run_id="1"), "4")
        await desk.indexed(4)
        stolen = '{ id: stolen, match: { run_id: ["1", "9"] }, until: 2099-01-01T00:00:00Z, '
        stolen += 'reason: "a <b>leak</b>" }'
        first = await in_force(desk, "revocations: []", f"revocations: [{stolen}]")
        old = "{ id: old, match: { project: mono }, until: 2020-01-01T00:00:00Z }"
        second = await in_force(
            desk,
            f"[{stolen}]\n",
            f'[{stolen}, {old}]\nepochs: {{ "mono:branch/main": 1 }}\n',
        )
        assert first != second
        found = (await desk.ask("revocations"))["revocations"]
        assert [
            (item["line"], item["covers"], item["began"]["sha256"], item["began_exactly"])
            for item in found
        ] == [
            ("revocation stolen", 3, first, True),
            ("revocation old", 0, second, True),
            ("epoch of mono:branch/main", 3, second, True),
        ]
        assert found[0]["match"] == {"run_id": ["1", "9"]}
        assert found[0]["reason"] == "a <b>leak</b>"
        assert found[2]["match"] == {"namespace": ["mono:branch/main"], "epoch": ["1"]}

        # Of an older text that is not kept nobody can tell what it said.
        (world.folder / "data" / "state" / "policy" / f"{1:012d}").unlink()
        world.server._auditing._desk.overviews._revocations._taken.clear()
        found = (await desk.ask("revocations"))["revocations"]
        assert [item["began_exactly"] for item in found] == [False, True, True]
        assert found[0]["began"]["sha256"] == first


async def test_without_revocations_there_are_none(world):
    async with running(world) as desk:
        await desk.indexed(0)
        assert await desk.ask("revocations") == {"revocations": []}


async def test_health_is_that_of_log_index_and_storage(world):
    async with running(world) as desk:
        await stored(world, world.main(), "1")
        await desk.indexed(1)
        found = await desk.ask("health")
        status = await desk.ask("status")
        assert (found["log"]["size"], found["log"]["root"]) == (
            status["published"],
            status["root"],
        )
        assert found["log"]["checkpoint"].startswith(found["log"]["origin"] + "\n")
        assert found["index"] == {
            "on": True,
            "indexed": status["indexed"],
            "behind": 0,
            "fault": None,
        }
        assert found["witnesses"] is None
        assert found["storage"] == {
            "kind": "filesystem",
            "posture": None,
            "weaknesses": [],
            "tiles_locked": None,
        }
        assert set(found["troubles"].values()) == {None}
        world.policy.write_text("version: 2\n")
        for _ in range(2):
            world.server._parts.policy.look()
        troubles = (await desk.ask("health"))["troubles"]
        assert "last good policy stays" in troubles["policy"]
        assert str(world.folder) not in str(troubles)


async def test_the_index_lag_is_a_metric(world):
    async with running(world) as desk:
        await stored(world, world.main(), "1")
        await desk.indexed(1)
        text = (await world.request("GET", "/metrics", world.auditor)).text
        assert "secure_cache_audit_index_behind 0.0" in text


@pytest.mark.parametrize("path", ["timeline", "denials", "namespaces", "revocations", "health"])
async def test_only_an_auditor_sees_overviews_and_each_question_is_told(world, path):
    async with running(world) as desk:
        await desk.indexed(0)
        for token in (None, world.main(), world.own(role="developer")):
            answer = await world.request("GET", f"/audit/v1/{path}", token)
            assert answer.status_code == 403
        with structlog.testing.capture_logs() as logs:
            await desk.ask(path)
        assert [line["path"] for line in logs if line["event"] == "audit.query"] == [
            f"/audit/v1/{path}"
        ]
