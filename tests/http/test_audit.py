"""The audit API through the whole application, over real files and tokens."""

import csv
import io
import json
import sqlite3
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest
import structlog.testing
from fakes.app_world import AppWorld
from fakes.audit_desk import FAST, running, stored, until
from fakes.statements import flipped
from litestar import Request

from secure_cache.audit.filters import NAMES
from secure_cache.audit.index import AuditIndex
from secure_cache.audit.row import Row
from secure_cache.compose import auditing
from secure_cache.http.audit_question import Asked
from secure_cache.model.digest import Digest
from secure_cache.tlog.merkle import leaf_hash
from secure_cache.tlog.tlog_proof import TlogProof

pytestmark = pytest.mark.anyio


@pytest.fixture
def world(tmp_path, request):
    """A server that follows quickly; a test may ask for other settings."""
    return AppWorld(tmp_path, **FAST, **getattr(request, "param", {}))


async def test_an_auditor_asks_who_wrote_what(world):
    async with running(world) as desk:
        await stored(world, world.main(), "1", "2", "3")
        await stored(world, world.pull_request(7, actor_id="66", run_id="2000"), "4")
        await desk.indexed(4)
        (entry,) = await desk.all(run_id="2000")
        assert (entry["namespace"], entry["key"], entry["tier"]) == (
            "mono:pr/7",
            "4",
            "contributor",
        )
        assert entry["digest"] == str(Digest.of(b"bytes"))
        trusted = await desk.all(tier="trusted", project="mono", namespace="branch/main")
        assert [found["key"] for found in trusted] == ["1", "2", "3"]
        by_writer = await desk.ask("counts", group="writer", event="stored")
        assert [count["entries"] for count in by_writer["counts"]] == [3, 1]
        assert (by_writer["total"], by_writer["distinct"]) == (4, 2)
        assert (await desk.ask("counts", tier=["trusted", "contributor"]))["total"] == 4


async def test_pages_go_both_ways(world):
    async with running(world) as desk:
        await stored(world, world.main(), *map(str, range(7)))
        await desk.indexed(7)
        for order in ("oldest", "newest"):
            keys, cursor = [], {}
            while True:
                page = await desk.ask("entries", event="stored", limit=3, order=order, **cursor)
                keys += [entry["key"] for entry in page["entries"]]
                if page["next"] is None:
                    break
                cursor = page["next"]
            assert keys == sorted(keys, reverse=order == "newest")
            assert len(keys) == 7


async def test_one_entry_is_shown_with_its_proof(world):
    async with running(world) as desk:
        await stored(world, world.main(), "1")
        await desk.indexed(1)
        (row,) = await desk.all(key="1")
        shown = await desk.ask(f"entries/{row['index']}")
        assert shown["entry"] == row
        assert shown["statement"]["predicate"]["key"] == "1"
        assert shown["signature"]["valid"]
        assert shown["state"]["state"] == "served"
        assert shown["state"]["line"] == "rule main"
        leaf = (await desk.get(f"entries/{row['index']}/envelope")).content
        assert leaf_hash(leaf).hex() == row["leaf_hash"]
        assert json.loads(leaf) == shown["envelope"]
        answer = await desk.get(f"entries/{row['index']}/proof")
        assert ".tlog-proof" in answer.headers["content-disposition"]
        signer = world.server._parts.keys.current.log
        checkpoint = TlogProof.parse(answer.content).verify(
            leaf, [signer.verifier], origin=signer.name
        )
        assert checkpoint.size == shown["proof"]["size"]
        bundle = await desk.ask(f"entries/{row['index']}/bundle")
        assert bundle["dsseEnvelope"] == shown["envelope"]


async def state_of(desk, key):
    (row,) = await desk.all(key=key, event="stored", namespace="mono:branch/main")
    return (await desk.ask(f"entries/{row['index']}"))["state"]


def edit_out(world, what):
    world.edit(world.policy.read_text().replace("revocations: []", f"revocations: [{what}]"))


async def test_what_became_of_an_entry_is_said_with_the_line_that_decides(world):
    async with running(world) as desk:
        large = b"x" * 40_000
        await stored(world, world.main(run_id="1"), "1")
        await stored(world, world.main(run_id="2"), "2", "3", body=large)
        await desk.indexed(3)
        assert (await state_of(desk, "1"))["state"] == "served"

        edit_out(world, '{ id: stolen, match: { run_id: "1" }, until: 2099-01-01T00:00:00Z }')
        revoked = await state_of(desk, "1")
        assert (revoked["state"], revoked["line"]) == ("revoked", "revocation stolen")
        assert (await state_of(desk, "2"))["state"] == "served"

        artifacts = sorted((world.folder / "data" / "artifacts").rglob("0*"))
        files = [path for path in artifacts if path.is_file() and path.stat().st_size > 30_000]
        assert len(files) == 2
        for path in files:
            path.chmod(0o600)
        by_id = {path.name: path for path in files}
        (second,) = await desk.all(key="2")
        (third,) = await desk.all(key="3")
        by_id[second["entry_id"]].unlink()
        missing = await state_of(desk, "2")
        assert (missing["state"], missing["line"]) == ("missing", "artifact")

        damaged = by_id[third["entry_id"]]
        damaged.write_bytes(flipped(large, 5))
        assert (await world.get(world.main(), "3")).status_code == 404
        quarantined = await state_of(desk, "3")
        assert (quarantined["state"], quarantined["line"]) == ("quarantined", "quarantine")

        async def told():
            return (await desk.ask(f"entries/{third['index']}"))["events"]

        await until(told)
        assert [event["event"] for event in await told()] == ["quarantined"]


async def test_an_entry_that_was_replaced_or_deleted_says_so(world):
    async with running(world) as desk:
        await stored(world, world.main(run_id="1"), "1", "2")
        await desk.indexed(2)
        edit_out(world, '{ id: stolen, match: { run_id: "1" }, until: 2099-01-01T00:00:00Z }')
        await stored(world, world.main(run_id="2"), "1")
        await desk.indexed(3)
        old, new = await desk.all(key="1", event="stored")
        shown = await desk.ask(f"entries/{old['index']}")
        assert shown["state"]["state"] == "superseded"
        assert shown["state"]["line"] == f"entry {new['entry_id']}"
        assert (await desk.ask(f"entries/{new['index']}"))["state"]["state"] == "served"
        for record in (world.folder / "data" / "records").rglob("*"):
            if record.is_file():
                record.unlink()
        assert (await state_of(desk, "2")) == {
            "state": "missing",
            "line": "record",
            "why": "nothing stands under its key",
        }


async def test_the_history_of_policies_comes_from_the_log(world):
    async with running(world) as desk:

        async def policies(count):
            answer = await desk.get("policies")
            return answer.status_code == 200 and len(answer.json()["policies"]) == count

        await until(partial(policies, 1))
        await stored(world, world.main(), "1")
        edit_out(world, "{ id: x, match: { key: nothing } }")
        world.server._untold.set()
        await until(partial(policies, 2))
        first, second = (await desk.ask("policies"))["policies"]
        assert (first["number"], first["previous_sha256"], first["entries"]) == (1, None, 1)
        assert second["previous_sha256"] == first["sha256"]
        assert second["sha256"] == str(Digest.of(world.policy.read_bytes()))
        (row,) = await desk.all(event="policy", policy_sha256=second["sha256"])
        assert row["index"] == second["index"]


@pytest.mark.parametrize("order", ["oldest", "newest"])
async def test_an_export_is_the_same_as_the_query(world, order):
    async with running(world) as desk:
        hostile = '=cmd|"/c calc"!A1\u202e\x1b[31m\r\n<script>'
        await stored(world, world.main(actor_id="-1", sub=hostile), *map(str, range(9)))
        await stored(world, world.pull_request(1), "99")
        await desk.indexed(10)
        asked = {"order": order, "event": "stored"}
        rows = await desk.all(**asked)
        answer = await desk.get("export", **asked)
        assert answer.headers["content-type"] == "application/jsonl"
        assert [json.loads(line) for line in answer.text.splitlines()] == rows
        assert answer.content.isascii()

        answer = await desk.get("export", format="csv", **asked)
        assert answer.headers["content-type"].startswith("text/csv")
        table = list(csv.DictReader(io.StringIO(answer.content.decode(), newline="")))
        assert [line["index"] for line in table] == [str(row["index"]) for row in rows]
        assert [line["digest"] for line in table] == [row["digest"] for row in rows]
        assert not any(
            cell.lstrip().startswith(("=", "+", "-", "@"))
            for line in table
            for cell in line.values()
        )
        subjects = {line["subject"] for line in table}
        assert '\'=cmd|"/c calc"!A1\\u202e\\x1b[31m\\r\\n<script>' in subjects
        assert {row["subject"] for row in rows} >= {hostile}
        assert "attachment" in answer.headers["content-disposition"]

        half = await desk.get("export", after=rows[0]["index"] if order == "oldest" else 0, **asked)
        assert len(half.text.splitlines()) <= len(rows)


async def test_only_an_auditor_may_ask(world):
    paths = ("entries", "entries/0", "counts", "export", "policies", "status", "entries/0/proof")
    async with running(world) as desk:
        await stored(world, world.main(), "1")
        await desk.indexed(1)
        for path in paths:
            for token, status in (
                (None, 403),
                (world.main(), 403),
                (world.own(role="developer"), 403),
                ("not.a.token", 401),
                (world.auditor, 200),
            ):
                answer = await world.request("GET", f"/audit/v1/{path}", token)
                assert answer.status_code == status, (path, token)
        # The tiles may be public: who asks what about whom is another thing.
        world.edit(world.policy.read_text() + "log: { public: true }\n")
        assert (await world.request("GET", "/audit/v1/entries")).status_code == 403


@pytest.mark.parametrize(
    ("path", "parameters", "says"),
    [
        ("entries", {"colour": "red"}, "no parameter 'colour'; there are: since"),
        ("entries", {"tier": "root"}, "tier: 'root' is not one of trusted, candidate"),
        ("entries", {"since": "yesterday"}, "since: 'yesterday' is not a time such as"),
        ("entries", {"limit": "0"}, "limit: a whole number from 1 to 1000"),
        ("entries", {"limit": "1001"}, "limit: a whole number from 1 to 1000"),
        ("entries", {"after": "-1"}, "after: a whole number"),
        ("entries", {"before": "9" * 30}, "before: a whole number"),
        ("entries", {"order": "random"}, "order: one of oldest, newest"),
        ("entries", {"limit": ["1", "2"]}, "limit: exactly one value"),
        ("entries", {"group": "day"}, "no parameter 'group'"),
        ("entries/x", {}, "named by its index"),
        ("entries/01", {}, "named by its index"),
        ("entries/-1/proof", {}, "named by its index"),
        ("counts", {"group": "claims"}, "group: one of namespace, writer, rule, day"),
        ("counts", {"after": "1"}, "no parameter 'after'"),
        ("export", {"format": "xlsx"}, "format: one of jsonl, csv"),
        ("export", {"limit": "5"}, "no parameter 'limit'"),
        ("export", {"tier": "\u202eroot\x1b[31m"}, r"'\u202eroot\x1b[31m' is not"),
    ],
    ids=str,
)
async def test_a_wrong_question_says_what_is_allowed(world_of_questions, path, parameters, says):
    answer = await world_of_questions.get(path, **parameters)
    assert answer.status_code == 400
    assert answer.json()["code"] == "filter-invalid"
    assert says in answer.json()["title"]
    assert answer.json()["title"].isprintable()


@pytest.fixture
async def world_of_questions(world):
    async with running(world) as desk:
        await stored(world, world.main(), "1")
        await desk.indexed(1)
        yield desk


async def test_what_is_not_there_is_not_found(world_of_questions):
    for path in ("entries/999", "entries/999/proof", "entries/999/envelope", "entries/999/bundle"):
        assert (await world_of_questions.get(path)).status_code == 404
    assert (await world_of_questions.get("nothing")).status_code == 404


async def test_nothing_that_an_auditor_asks_changes_anything(world_of_questions):
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        answer = await world_of_questions.world.request(
            method, "/audit/v1/entries", world_of_questions.world.auditor
        )
        assert answer.status_code == 405


async def test_every_question_is_told_to_the_servers_log(world):
    async with running(world) as desk:
        await stored(world, world.main(), "1")
        await desk.indexed(1)
        with structlog.testing.capture_logs() as logs:
            await desk.ask("entries", subject="somebody", tier=["trusted", "candidate"])
            await desk.get("entries", colour="red")
        first, second = (line for line in logs if line["event"] == "audit.query")
        assert first["given"] == {"subject": ["somebody"], "tier": ["trusted", "candidate"]}
        assert (first["issuer"], first["rule"], first["answered"]) == ("own", "auditor", 0)
        assert second["refused"] == "filter-invalid"


async def test_an_export_of_nothing_is_empty(world):
    async with running(world) as desk:
        await desk.indexed(0)
        answer = await desk.get("export", key="no-such-key")
        assert (answer.status_code, answer.content) == (200, b"")
        answer = await desk.get("export", key="no-such-key", format="csv")
        assert answer.status_code == 200
        assert len(list(csv.reader(io.StringIO(answer.text)))) == 1


async def test_an_export_is_told_when_it_ends_with_how_much_was_sent(world):
    async with running(world) as desk:
        await stored(world, world.main(), "1", "2", "3")
        await desk.indexed(3)
        with structlog.testing.capture_logs() as logs:
            answer = await desk.get("export", event="stored")
            await desk.get("export", colour="red")
        whole, refused = (line for line in logs if line["event"] == "audit.query")
        assert whole["answered"] == len(answer.text.splitlines()) == 3
        assert (whole["refused"], whole["path"]) == ("", "/audit/v1/export")
        assert (refused["answered"], refused["refused"]) == (None, "filter-invalid")


async def test_an_export_that_the_client_leaves_is_told_too():
    async def parts():
        for count in (2, 3, 4):
            yield count, b"rows"

    caller = SimpleNamespace(
        identity=None, decision=SimpleNamespace(audit=True, project="mono", rule="auditor")
    )
    scope = {"type": "http", "path": "/audit/v1/export", "query_string": b"", "headers": []}
    with structlog.testing.capture_logs() as logs:
        async with Asked(None, caller, Request(scope)) as asked:
            stream = asked.streaming(parts())
        assert logs == []
        assert await anext(stream) == b"rows"
        assert await anext(stream) == b"rows"
        await stream.aclose()
    (line,) = logs
    assert (line["event"], line["answered"], line["refused"]) == ("audit.query", 2, "client-left")


def index_of(world):
    return world.folder / "data" / "audit" / "index.sqlite"


async def test_a_row_changed_by_hand_is_noticed_where_it_is_shown(world):
    async with running(world) as desk:
        await stored(world, world.main(), "1", "2")
        await desk.indexed(2)
        (row,) = await desk.all(key="2")
        await anyio.to_thread.run_sync(
            change,
            index_of(world),
            "UPDATE entries SET subject = 'me' WHERE key = '2'",
        )
        for path in ("entries", "export", f"entries/{row['index']}"):
            answer = await desk.get(path)
            assert answer.status_code == 500
            assert answer.json()["code"] == "index-damaged"
            assert "secure-cache audit index rebuild" in answer.json()["title"]
        # What is not touched is still shown, and the cache does not care.
        assert len(await desk.all(key="1")) == 1
        assert (await world.get(world.main(), "2")).status_code == 200


def change(path, sql):
    with sqlite3.connect(path) as changed:
        changed.execute(sql)
    changed.close()


async def test_a_row_that_was_forged_with_its_seal_is_noticed_against_the_log(world):
    async with running(world) as desk:
        await stored(world, world.main(), "1")
        await desk.indexed(1)
        (row,) = await desk.all(key="1")

        def forge():
            with sqlite3.connect(index_of(world)) as changed:
                found = changed.execute(
                    "SELECT * FROM entries WHERE number = ?", (row["index"],)
                ).fetchone()
                forged = Row.unseal(found)._replace(subject="somebody else").sealed()
                changed.execute(
                    "UPDATE entries SET subject = ?, seal = ? WHERE number = ?",
                    ("somebody else", forged[-1], row["index"]),
                )
            changed.close()

        await anyio.to_thread.run_sync(forge)
        answer = await desk.get(f"entries/{row['index']}")
        assert answer.json()["code"] == "index-damaged"


@pytest.mark.parametrize("world", [{"SECURE_CACHE_AUDIT__ENABLED": "false"}], indirect=True)
async def test_a_server_without_an_index_says_so(world):
    async with running(world) as desk:
        await stored(world, world.main(), "1")
        answer = await desk.get("entries")
        assert (answer.status_code, answer.json()["code"]) == (501, "no-audit-index")
        assert "audit.index" in answer.json()["title"]
        assert (await desk.ask("status")) == {"on": False, "fault": None}
        assert not index_of(world).exists()


async def test_a_damaged_index_never_keeps_the_server_from_serving(world, monkeypatch):
    monkeypatch.setattr(auditing, "_RETRY_SECONDS", 0.1)
    index_of(world).parent.mkdir()
    index_of(world).write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    async with running(world) as desk:
        await stored(world, world.main(), "1")

        async def told():
            return (await desk.ask("status"))["fault"]

        await until(told)
        answer = await desk.get("entries")
        assert (answer.status_code, answer.json()["code"]) == (500, "index-damaged")
        ready = await world.request("GET", "/readyz")
        assert (ready.status_code, ready.json()["degraded"]) == (200, True)
        assert ready.json()["checks"]["audit"] != "ok"
        # Deleted, it is made anew, and nobody has to restart anything.
        index_of(world).unlink()
        await desk.indexed(1)
        assert (await world.request("GET", "/readyz")).json()["checks"]["audit"] == "ok"


async def test_helping_processes_come_when_there_is_much_to_do_and_go(world, monkeypatch):
    monkeypatch.setattr(auditing, "_MANY", 2)
    monkeypatch.setattr(auditing, "_QUIET_ROUNDS", 1)
    used = []
    real = AuditIndex.building

    def building(self, *, apart=False, niceness=0):
        used.append((apart, niceness))
        return real(self, apart=apart, niceness=niceness)

    monkeypatch.setattr(AuditIndex, "building", building)
    async with running(world) as desk:
        await stored(world, world.main(), *map(str, range(8)))
        await desk.indexed(8)
        (row,) = await desk.all(key="7")
        assert (await desk.ask(f"entries/{row['index']}"))["state"]["state"] == "served"
        await stored(world, world.main(), "88")
        await desk.indexed(9)
    assert used


async def test_the_schema_names_the_api(world):
    async with running(world):
        paths = (await world.request("GET", "/schema/openapi.json")).json()["paths"]
        assert {path for path in paths if path.startswith("/audit/v1/")} >= {
            "/audit/v1/entries",
            "/audit/v1/counts",
            "/audit/v1/export",
            "/audit/v1/policies",
            "/audit/v1/status",
        }


def test_the_manual_names_every_filter():
    manual = (Path(__file__).parents[2] / "docs" / "audit.md").read_text()
    for name in NAMES:
        assert f"`{name}`" in manual
