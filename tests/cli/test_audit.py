"""`secure-cache audit query`, `show` and `index`, over an installation's stores."""

import json
import shutil
import sqlite3

import anyio
import pytest
from fakes.audit import leaf_of, numbered, random_leaves, writer

from secure_cache.compose.posture import prove
from secure_cache.compose.stores import open_stores, opened
from secure_cache.core.keystore import load_keystore
from secure_cache.settings import load_settings
from secure_cache.tlog.log import LogService

HOSTILE = "\x1b[2J\u202eevil<script>"
LEAVES = [
    *random_leaves(40),
    leaf_of(numbered(77, writer=writer(subject=HOSTILE, run_id="7777"))),
]


async def write(config, leaves):
    """As a server does, and publish all of it."""
    settings = load_settings(config, {})
    async with opened(open_stores(settings.storage)) as stores:
        await prove(stores)
        log = LogService(
            tiles=stores.tiles,
            head=stores.head,
            pending=stores.pending,
            signer=load_keystore(settings.keys).log,
            turn=stores.turn,
        )
        async with log.running():
            for leaf in leaves:
                await log.append(leaf)
            assert await log.flush(30)


@pytest.fixture(scope="module")
def full(pristine, tmp_path_factory):
    directory = tmp_path_factory.mktemp("full") / "server"
    shutil.copytree(pristine, directory)
    anyio.run(write, directory / "secure-cache.toml", LEAVES)
    return directory


@pytest.fixture
def audit(full, installation, call):
    """Calls `audit ...` over an installation with entries."""
    shutil.rmtree(installation.directory)
    shutil.copytree(full, installation.directory)

    def run(command, *options):
        return call("audit", command, "--store", installation.config, *options)

    run.installation = installation
    run.index = installation.directory / "data" / "audit" / "index.sqlite"
    run.on_index = lambda command, *options: call(
        "audit", "index", command, "--config", installation.config, *options
    )
    return run


def lines(done):
    assert done.code == 0, done.err
    return [json.loads(line) for line in done.out.splitlines()]


def test_who_is_shown_a_part_is_told_so(audit):
    for form in ((), ("--json",)):
        some = audit("query", "--limit", 3, *form)
        assert some.code == 0
        assert "There are more: these are the oldest 3. --limit" in some.err
        assert "newest 3" in audit("query", "--limit", 3, "--newest", *form).err
        assert "more" not in audit("query", "--limit", len(LEAVES), *form).err
    assert len(audit("query", "--limit", 3, "--json").out.splitlines()) == 3


def test_json_is_one_object_a_line_with_its_index(audit):
    rows = lines(audit("query", "--json", "--limit", 1000))
    assert [row["index"] for row in rows] == list(range(len(LEAVES)))
    newest = lines(audit("query", "--json", "--newest", "--limit", 3))
    assert newest == rows[::-1][:3]
    pr = lines(audit("query", "--json", "--kind", "pr", "--tier", "candidate", "--tier", "trusted"))
    assert pr
    assert {row["kind"] for row in pr} == {"pr"}
    assert pr == [
        row for row in rows if row.get("kind") == "pr" and row["tier"] in {"candidate", "trusted"}
    ]


def test_counts_and_groups(audit):
    rows = lines(audit("query", "--json", "--limit", 1000))
    stored = [row for row in rows if row["event"] == "stored"]
    assert audit("query", "--count", "--event", "stored").out == f"{len(stored)}\n"
    (counts,) = lines(audit("query", "--group", "rule", "--event", "stored", "--json"))
    assert counts["total"] == len(stored)
    assert sum(item["entries"] for item in counts["counts"]) == len(stored)
    table = audit("query", "--group", "namespace")
    assert table.code == 0
    assert "demo:branch/main" in table.out
    assert "(none)" in table.out


def test_the_table_is_for_people_and_inert(audit):
    done = audit("query", "--run-id", "7777")
    assert done.code == 0
    head, row = done.out.splitlines()
    assert head.split()[:3] == ["index", "time", "event"]
    assert r"\x1b[2J\u202eevil<script>" in row
    assert done.out.replace("\n", "").isprintable()
    assert done.err == "1 entry\n"
    assert audit("query", "--run-id", "nobody").err == "No entry matches.\n"


def test_one_entry_is_shown_whole(audit):
    (row,) = lines(audit("query", "--json", "--run-id", "7777"))
    done = audit("show", row["index"])
    assert done.code == 0
    assert f"proved: entry {row['index']} of {len(LEAVES)}" in done.out
    assert "signed by a key that is not in the key ring" in done.out
    assert "state          missing (record)" in done.out
    assert done.out.replace("\n", "").isprintable()
    shown = json.loads(audit("show", row["index"], "--json").out)
    assert shown["entry"] == row
    assert shown["statement"]["predicate"]["writer"]["sub"] == HOSTILE
    assert audit("show", 999).code == 1


def test_an_index_of_ones_own_leaves_the_servers_alone(audit, tmp_path):
    mine = tmp_path / "mine.sqlite"
    assert len(lines(audit("query", "--json", "--limit", 5, "--index", mine))) == 5
    assert mine.exists()
    assert not audit.index.exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--tier", "root"), "tier: 'root' is not one of trusted, candidate, contributor"),
        (("--since", "yesterday"), "since: 'yesterday' is not a time such as"),
        (("--group", "claims"), "Invalid value for '--group'"),
        (("--limit", "0"), "Invalid value for '--limit'"),
        (("--colour", "red"), "No such option"),
    ],
)
def test_a_wrong_question_is_a_usage_error_that_says_what_is_allowed(audit, options, says):
    done = audit("query", *options)
    assert done.code == 2
    assert says in done.err
    assert done.out == ""


def test_it_must_be_said_where_to_look(call, tmp_path):
    done = call("audit", "query")
    assert (done.code, done.out) == (2, "")
    assert "--server URL, --store CONFIG or --mirror DIR" in done.err
    done = call("audit", "query", "--server", "https://cache.example.com")
    assert done.code == 4
    assert "SECURE_CACHE_TOKEN" in done.err
    assert call("audit", "query", "--store", tmp_path / "nothing.toml").code == 2


# the index


def test_an_index_is_checked_and_made_anew(audit):
    assert audit.on_index("check").code == 2
    assert audit("query").code == 0
    assert audit.on_index("check").out == f"ok: {len(LEAVES)} entries, held to its own proof\n"
    assert audit.on_index("check", "--log").code == 0
    report = json.loads(audit.on_index("check", "--json").out)
    assert report == {"ok": True, "entries": len(LEAVES), "findings": []}

    changed = sqlite3.connect(audit.index)
    changed.execute("UPDATE entries SET tier = 'trusted' WHERE number = 40")
    changed.execute("UPDATE entries SET subject = 'me' WHERE number = 40")
    changed.commit()
    changed.close()
    for done in (audit("query"), audit("show", 40)):
        assert done.code == 5
        assert "entry 40 was changed" in done.err
        assert "secure-cache audit index rebuild" in done.err
    done = audit.on_index("check")
    assert done.code == 5
    assert "entry 40" in done.out
    assert "audit index rebuild" in done.err

    done = audit.on_index("rebuild")
    assert (done.code, done.out) == (0, f"ok: {len(LEAVES)} entries in {audit.index}\n")
    assert audit.on_index("check", "--log").code == 0


def test_a_damaged_file_says_so_and_is_made_anew(audit):
    assert audit("query").code == 0
    audit.index.write_bytes(audit.index.read_bytes()[:5000])
    for ending in ("-wal", "-shm"):
        audit.index.with_name(audit.index.name + ending).unlink(missing_ok=True)
    for done in (audit("query"), audit.on_index("check")):
        assert done.code == 5
        assert "secure-cache audit index rebuild" in done.err
    assert audit.on_index("rebuild").code == 0
    assert audit("query").code == 0


def test_a_log_that_was_put_back_is_told_by_the_index(audit, pristine):
    """Everything in yesterday's log is genuine. The index has seen more."""
    assert audit("query").code == 0
    log = audit.installation.log
    shutil.rmtree(log)
    shutil.copytree(pristine / "data" / "log", log)
    done = audit("query")
    assert done.code == 5
    assert "put back to an older state" in done.err
    # What was seen stays to be looked at.
    assert audit.on_index("check").code == 0


@pytest.mark.parametrize("command", [("query",), ("query", "--count"), ("show", "3")])
@pytest.mark.parametrize("name", ["checkpoint", "tile/entries", "tile/0"])
def test_a_damaged_log_points_to_the_tool_for_it(audit, name, command):
    path = audit.installation.log / name
    for file in [path] if path.is_file() else path.rglob("*"):
        if file.is_file():
            data = file.read_bytes()
            file.write_bytes(data[:-20] + bytes([data[-20] ^ 1]) + data[-19:])
    done = audit(*command)
    assert done.code == 5
    assert "`secure-cache log fsck` says more" in done.err
    assert done.err.count("log fsck") == 1


def test_another_file_is_never_taken_for_an_index(audit, tmp_path):
    other = tmp_path / "other.sqlite"
    precious = sqlite3.connect(other)
    precious.execute("CREATE TABLE precious (x)")
    precious.commit()
    precious.close()
    done = audit("query", "--index", other)
    assert done.code == 2
    assert "is not an audit index" in done.err
