"""`audit mirror` against a real server: growth, crashes, keys that change, a server without an
index; and what a mirror answers."""

import hashlib
import json
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from interop.go_tool import go_tool, run_tool
from world.server import Server, cli, command, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


class Auditor:
    """With a token for one server."""

    def __init__(self, server):
        self.server = server
        self.environment = {
            "SECURE_CACHE_TOKEN": server.token(role="auditor"),
            "SECURE_CACHE_SERVER": server.url,
        }

    @property
    def vkey(self):
        return httpx.get(f"{self.server.url}/log/vkeys", timeout=60).text.strip()

    def run(self, *arguments, code=0):
        done = cli("audit", *arguments, environment=self.environment, timeout=120)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    def mirror(self, folder, *options, code=0):
        return json.loads(self.run("mirror", folder, "--json", *options, code=code).stdout)

    def store(self, first, count):
        token, before = self.server.token(), self.server.checkpoint()[0]
        with ThreadPoolExecutor(8) as pool:
            answers = pool.map(
                lambda n: self.server.put(token, str(n), b"artifact %d" % n),
                range(first, first + count),
            )
            assert {answer.status_code for answer in answers} == {200}
        wait_until(lambda: self.server.checkpoint()[0] >= before + count, "the log")


@pytest.fixture(scope="module")
def auditor(tmp_path_factory):
    server = Server(
        tmp_path_factory.mktemp("mirrored"),
        environment={"SECURE_CACHE_AUDIT__FOLLOW_SECONDS": "0.2"},
    ).start()
    auditor = Auditor(server)
    auditor.store(0, 600)
    yield auditor
    server.kill9()


def newest_keys_event(auditor):
    rows = auditor.run("query", "--event", "keys", "--newest", "--limit", 1, "--json").stdout
    index = json.loads(rows)["index"]
    shown = json.loads(auditor.run("show", index, "--json").stdout)
    return index, shown["statement"]["predicate"]["event"]["ringSha256"]


def test_the_server_gives_the_ring_that_the_log_announced_to_everybody(auditor):
    answer = httpx.get(f"{auditor.server.url}/log/keys", timeout=60)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-cache"
    assert hashlib.sha256(answer.content).hexdigest() == newest_keys_event(auditor)[1]


def killed_at_its_next_file(auditor, folder):
    """False when it came through."""

    def count():
        return sum(1 for path in folder.rglob("*") if path.is_file())

    before = count()
    process = subprocess.Popen(
        [command(), "audit", "mirror", str(folder)],
        env=os.environ | auditor.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: count() > before or process.poll() is not None, "the next file", 60)
    if process.poll() is not None:
        assert process.returncode == 0
        return False
    process.kill()
    process.wait()
    return True


def test_a_mirror_killed_at_any_moment_goes_on_and_is_whole(auditor, tmp_path):
    """SIGKILL as soon as the next file is there, again and again, until a run comes through."""
    folder = tmp_path / "mirror"
    kills = 0
    while killed_at_its_next_file(auditor, folder):
        kills += 1
        if (folder / "checkpoint").exists():
            # Whatever there is at that moment, is proved.
            auditor.run("mirror", folder, "--check")
    assert kills >= 2
    auditor.run("mirror", folder, "--check")
    found = run_tool(go_tool("tlogcheck"), "-vkey", auditor.vkey, folder)
    assert found.returncode == 0, found.stderr


def test_a_mirror_follows_rotated_and_revoked_keys(auditor, tmp_path):
    folder = tmp_path / "mirror"
    first = auditor.mirror(folder, "--log-key", auditor.vkey)
    assert (first["bad_count"], first["revoked"]) == (0, 0)
    old = newest_keys_event(auditor)
    server = auditor.server
    assert cli("keys", "rotate", "entry", "--config", server.config).returncode == 0
    wait_until(lambda: newest_keys_event(auditor) > old, "the log to announce the new keys")
    auditor.store(1000, 3)
    second = auditor.mirror(folder)
    assert (second["ok"], second["bad_count"]) == (True, 0)
    assert len(list((folder / "keys").iterdir())) == 2

    rotated = newest_keys_event(auditor)
    listed = json.loads(cli("keys", "show", "--public", "--json", "--config", server.config).stdout)
    retired = next(
        row["id"] for row in listed["keys"] if row["kind"] == "entry" and row["status"] == "retired"
    )
    done = cli("keys", "revoke", retired, "--config", server.config)
    assert done.returncode == 0, done.stderr
    wait_until(lambda: newest_keys_event(auditor) > rotated, "the log to announce the revocation")
    third = auditor.mirror(folder)
    assert third["ok"]
    checked = auditor.run("mirror", folder, "--check")
    assert "keys that were revoked since" in checked.stderr
    anew = auditor.mirror(tmp_path / "anew")
    assert (anew["ok"], anew["bad_count"]) == (True, 0)
    assert anew["revoked"] >= 600


def test_an_unpinned_key_is_said_once_and_pinned_then(auditor, tmp_path):
    folder = tmp_path / "mirror"
    said = auditor.run("mirror", folder).stderr
    assert "taken from the server itself" in said
    assert "taken from" not in auditor.run("mirror", folder).stderr
    assert (
        "taken from" not in auditor.run("mirror", tmp_path / "2", "--log-key", auditor.vkey).stderr
    )
    pinned = tmp_path / "log.vkey"
    pinned.write_text(auditor.vkey + "\n")
    assert "taken from" not in auditor.run("mirror", tmp_path / "3", "--log-key", pinned).stderr


def test_a_mirror_without_its_index_is_not_taken_for_an_empty_log(auditor, tmp_path):
    folder = tmp_path / "mirror"
    auditor.mirror(folder)
    for path in folder.glob("index.sqlite*"):
        path.unlink()
    auditor.run("mirror", folder, "--check")
    assert "makes it" in auditor.run("index", "check", "--mirror", folder, code=2).stderr
    counted = auditor.run("query", "--mirror", folder, "--event", "stored", "--count").stdout
    assert int(counted) >= 600
    checked = auditor.run("index", "check", "--log", "--mirror", folder).stdout
    assert "held to its own proof and the log" in checked
    auditor.run("mirror", folder, "--check")


def test_a_damaged_mirror_says_so_whoever_asks_it(auditor, tmp_path):
    folder = tmp_path / "mirror"
    auditor.mirror(folder)
    path = folder / "tile/entries/001"
    path.write_bytes(path.read_bytes()[:-1])
    for question in (("show", 300), ("prove", 300, "--out", tmp_path)):
        said = auditor.run(*question, "--mirror", folder, code=5).stderr
        assert "--check" in said
        assert "--repair" in said
    # What is not damaged is answered.
    auditor.run("show", 3, "--mirror", folder)
    auditor.run("mirror", folder, "--repair")
    auditor.run("show", 300, "--mirror", folder)


def test_a_mirror_says_what_it_cannot_know(auditor, tmp_path):
    folder = tmp_path / "mirror"
    auditor.mirror(folder)
    index = json.loads(auditor.run("query", "--mirror", folder, "--key", "17", "--json").stdout)[
        "index"
    ]
    shown = json.loads(auditor.run("show", index, "--mirror", folder, "--json").stdout)
    assert shown["state"]["state"] == "unknown"
    there = json.loads(auditor.run("show", index, "--json").stdout)
    assert there["state"]["state"] in {"served", "missing", "quarantined"}
    assert shown["envelope"] == there["envelope"]


def test_nothing_of_the_server_is_changed_by_being_mirrored(auditor, tmp_path):
    def state():
        return {
            path: path.read_bytes()
            for path in auditor.server.data.rglob("*")
            if path.is_file() and "audit" not in path.parts
        }

    wait_until(lambda: state() == state(), "the server to be idle")
    before = state()
    auditor.mirror(tmp_path / "by-http")
    auditor.run("mirror", tmp_path / "by-store", "--store", auditor.server.config)
    auditor.run("mirror", tmp_path / "by-http", "--check")
    # The server remembers its checkpoint now and then.
    after = state()
    changed = {
        path.relative_to(auditor.server.data)
        for path in before | after
        if before.get(path) != after.get(path)
    }
    assert {str(path) for path in changed if "denials" not in path.parts} == set()


def test_one_policy_that_is_damaged_there_ends_no_mirroring(auditor, tmp_path):
    (text,) = (auditor.server.data / "state/policy").glob("*01")
    before = text.read_bytes()
    text.write_bytes(before + b"# more")
    try:
        done = auditor.mirror(tmp_path / "mirror")
    finally:
        text.write_bytes(before)
    (why,) = done["missing_policies"].values()
    assert "answered 500 (corrupt)" in why
    # It is asked for again.
    assert auditor.mirror(tmp_path / "mirror")["missing_policies"] == {}


def test_a_server_without_an_audit_index_is_mirrored_all_the_same(tmp_path):
    server = Server(
        tmp_path / "server", environment={"SECURE_CACHE_AUDIT__ENABLED": "false"}
    ).start()
    try:
        auditor = Auditor(server)
        auditor.store(0, 5)
        folder = tmp_path / "mirror"
        done = auditor.mirror(folder)
        assert done["ok"]
        assert len(done["missing_policies"]) == 1
        said = auditor.run("prove", 1, "--out", tmp_path, code=3).stderr
        assert "--keys" in said
        auditor.run("prove", 1, "--mirror", folder, "--out", tmp_path)
        found = auditor.run("query", "--mirror", folder, "--event", "stored", "--count").stdout
        assert int(found) == 5
        # Where the policies are to be had, they come later.
        auditor.run("mirror", folder, "--store", server.config)
        assert len(list((folder / "policies").iterdir())) == 1
        auditor.run("mirror", folder, "--check")
    finally:
        server.kill9()


@pytest.mark.parametrize("what", ["put back", "forked"])
def test_a_mirror_keeps_what_a_changed_history_shows(tmp_path, what):
    server = Server(tmp_path / "server").start()
    try:
        auditor = Auditor(server)
        auditor.store(0, 2)
        server.stop()
        shutil.copytree(server.data, tmp_path / "yesterday")
        server.start()
        auditor.store(10, 3)
        folder = tmp_path / "mirror"
        auditor.mirror(folder)
        kept = (folder / "checkpoint").read_bytes()
        server.stop()
        shutil.rmtree(server.data)
        shutil.copytree(tmp_path / "yesterday", server.data)
        server.start()
        if what == "forked":
            auditor.store(20, 9)
        note = httpx.get(f"{server.url}/log/checkpoint", timeout=60).content
        said = auditor.run("mirror", folder, code=5).stderr
        assert "The mirror is untouched" in said
        (evidence,) = (folder / "evidence").iterdir()
        assert (evidence / "older.checkpoint").read_bytes() == kept
        assert (evidence / "newer.checkpoint").read_bytes() == note
        assert (evidence / "contradiction.json").exists() == (what == "forked")
        assert (folder / "checkpoint").read_bytes() == kept
        auditor.run("mirror", folder, "--check")
        auditor.run("query", "--mirror", folder, "--count")
    finally:
        server.kill9()


def test_a_stranger_gets_neither_the_log_nor_a_mirror(auditor, tmp_path):
    environment = auditor.environment | {"SECURE_CACHE_TOKEN": auditor.server.token()}
    done = cli("audit", "mirror", tmp_path / "mirror", environment=environment)
    assert done.returncode == 4, done.stderr
    assert "auditor" in done.stderr
    done = cli(
        "audit", "mirror", tmp_path / "2", "--server", "http://127.0.0.1:9", environment=environment
    )
    assert done.returncode == 3, done.stderr
