"""An auditor's own tools over a real server: mirror, proofs, comparing.

What each of them notices is in test_tampering_drills.py.
"""

import json
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from interop.go_tool import go_tool, run_tool
from world.server import Server, command, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


class Desk:
    """A server with some entries, and an auditor."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.environment = os.environ | {
            "SECURE_CACHE_TOKEN": server.token(role="auditor"),
            "SECURE_CACHE_SERVER": server.url,
        }

    @property
    def vkey(self) -> str:
        return httpx.get(f"{self.server.url}/log/vkeys", timeout=60).text.strip()

    def audit(self, *arguments: object) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [command(), "audit", *map(str, arguments)],
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
            env=self.environment,
        )

    def ok(self, *arguments: object) -> str:
        done = self.audit(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def refused(self, code: int, *arguments: object) -> str:
        done = self.audit(*arguments)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    def store(self, prefix: str, count: int) -> None:
        token, before = self.server.token(), self.server.checkpoint()[0]
        with ThreadPoolExecutor(8) as pool:
            puts = [
                pool.submit(self.server.put, token, f"{prefix}{n:03d}", f"{prefix} {n}".encode())
                for n in range(count)
            ]
            assert {put.result().status_code for put in puts} == {200}
        wait_until(lambda: self.server.checkpoint()[0] >= before + count, "the log")


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    server = Server(
        tmp_path_factory.mktemp("audited"),
        environment={"SECURE_CACHE_AUDIT__FOLLOW_SECONDS": "0.2"},
    ).start()
    desk = Desk(server)
    desk.store("1", 260)
    yield desk
    server.kill9()


@pytest.fixture(scope="module")
def mirrored(desk, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mirrors") / "first"
    desk.ok("mirror", folder, "--log-key", desk.vkey)
    return folder


@pytest.fixture
def mirror(mirrored, tmp_path) -> Path:
    """A mirror of one's own, to be damaged."""
    return Path(shutil.copytree(mirrored, tmp_path / "mirror"))


# mirror


def test_a_mirror_grows_with_its_log_and_others_verify_it(desk, mirror):
    before = json.loads((mirror / "mirror.json").read_bytes())
    desk.store("2", 20)
    done = json.loads(desk.ok("mirror", mirror, "--json"))
    assert done["ok"]
    assert done["new"] >= 20
    assert json.loads((mirror / "mirror.json").read_bytes())["vkeys"] == before["vkeys"]
    assert "ok:" in desk.ok("mirror", mirror, "--check")

    found = run_tool(go_tool("tlogcheck"), "-vkey", desk.vkey, mirror)
    assert found.returncode == 0, found.stderr
    # Of the checkpoint before, for whoever still reads it, and of no older one.
    assert len(list((mirror / "tile" / "entries").glob("*.p/*"))) <= 2


def test_a_mirror_answers_as_the_server_does(desk, mirror):
    desk.ok("mirror", mirror)
    assert desk.ok("query", "--mirror", mirror, "--json", "--limit", 20) == desk.ok(
        "query", "--json", "--limit", 20
    )
    counted = desk.ok("query", "--mirror", mirror, "--group", "writer", "--json")
    assert json.loads(counted)["total"] >= 260
    shown = desk.ok("show", "--mirror", mirror, "7")
    assert "signature      valid" in shown
    assert "state          unknown" in shown


def test_a_mirror_of_the_stores_is_the_same(desk, mirror, tmp_path):
    desk.ok("mirror", mirror)
    desk.ok("mirror", tmp_path / "other", "--store", desk.server.config)
    first, second = (
        json.loads((p / "mirror.json").read_bytes()) for p in (mirror, tmp_path / "other")
    )
    assert first["vkeys"] == second["vkeys"]
    assert (mirror / "tile/entries/000").read_bytes() == (
        tmp_path / "other/tile/entries/000"
    ).read_bytes()


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("tile/entries/000", "tile/entries/000"),
        ("tile/0/000", "tile/entries/000"),
        ("checkpoint", "checkpoint"),
        ("policies", "policies/"),
        ("keys", "key"),
        ("index.sqlite", "index.sqlite"),
        ("mirror.json", "mirror.json"),
    ],
)
def test_one_flipped_bit_in_a_mirror_is_named_with_its_remedy(desk, mirror, path, name):
    target = mirror / path
    if target.is_dir():
        (target,) = target.iterdir()
    if path == "index.sqlite":
        forge_row(target)
    else:
        data = bytearray(target.read_bytes())
        data[len(data) // 2] ^= 1
        target.write_bytes(data)
    said = desk.refused(5, "mirror", mirror, "--check")
    assert name in said
    assert "audit mirror" in said or "new mirror" in said
    if path not in {"checkpoint", "mirror.json"}:
        desk.ok("mirror", mirror, "--repair")
        desk.ok("mirror", mirror, "--check")


def forge_row(path: Path) -> None:
    import sqlite3

    connection = sqlite3.connect(path)
    connection.execute("UPDATE entries SET tier = 'candidate' WHERE number = 9")
    connection.commit()
    connection.close()


def test_a_mirror_that_is_killed_goes_on(desk, tmp_path):
    folder = tmp_path / "killed"
    process = subprocess.Popen(
        [command(), "audit", "mirror", str(folder)],
        env=desk.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(
        lambda: (folder / "tile/entries/000").exists() or process.poll() is not None, "a bundle"
    )
    process.kill()
    process.wait()
    done = json.loads(desk.ok("mirror", folder, "--json"))
    assert done["ok"]
    desk.ok("mirror", folder, "--check")


def test_two_runs_do_not_share_a_mirror(desk, mirror):
    import fcntl

    with (mirror / ".lock").open("rb+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another run" in desk.refused(3, "mirror", mirror)


def test_a_mirror_is_held_to_the_key_that_it_began_with(desk, mirror, tmp_path):
    other = Server(tmp_path / "other").start()
    try:
        theirs = httpx.get(f"{other.url}/log/vkeys", timeout=60).text.strip()
        assert "another key" in desk.refused(2, "mirror", mirror, "--log-key", theirs)
        stranger = Desk(other)
        assert "checkpoint" in stranger.refused(5, "mirror", mirror)
    finally:
        other.kill9()


def test_what_is_no_mirror_says_how_to_make_one(desk, tmp_path):
    assert "audit mirror" in desk.refused(2, "query", "--mirror", tmp_path)


# proofs


def test_a_proof_is_verified_offline_and_by_go(desk, tmp_path):
    keys = tmp_path / "keys.json"
    keys.write_bytes(httpx.get(f"{desk.server.url}/log/keys", timeout=60).content)
    size = desk.server.checkpoint()[0]
    for index in (0, 3, 255, 256, size - 1):
        desk.ok("prove", index, "--out", tmp_path, "--log-key", desk.vkey)
        proof = tmp_path / f"{index}.tlog-proof"
        said = desk.ok("verify-proof", proof, "--log-key", desk.vkey, "--keys", keys)
        assert "signature      valid" in said
        found = run_tool(
            go_tool("tlogcheck"),
            *("-vkey", desk.vkey, "-proof", proof, "-leaf", proof.with_suffix(".leaf")),
        )
        assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("part", ["leaf", "hash", "index", "checkpoint", "key"])
def test_a_proof_that_was_tampered_with_is_refused_and_says_where(desk, mirrored, tmp_path, part):
    desk.ok("prove", 200, "--mirror", mirrored, "--out", tmp_path)
    proof, leaf = tmp_path / "200.tlog-proof", tmp_path / "200.leaf"
    lines, vkey = proof.read_text().split("\n"), desk.vkey
    match part:
        case "leaf":
            data = bytearray(leaf.read_bytes())
            data[100] ^= 1
            leaf.write_bytes(data)
        case "hash":
            lines[2], lines[3] = lines[3], lines[2]
        case "index":
            lines[1] = "index 201"
        case "checkpoint":
            blank = lines.index("")
            lines[blank + 2] = str(int(lines[blank + 2]) + 1)
        case "key":
            name, _, _ = vkey.partition("+")
            vkey = f"{name}+{'0' * 8}+{vkey.rpartition('+')[2]}"
    proof.write_text("\n".join(lines))
    done = desk.audit("verify-proof", proof, "--log-key", vkey)
    assert done.returncode == (2 if part == "key" else 1), done.stderr
    words = {"leaf": "the leaf", "hash": "the leaf", "index": "the leaf", "key": "verifier key"}
    assert words.get(part, "checkpoint") in done.stderr
    found = run_tool(go_tool("tlogcheck"), "-vkey", vkey, "-proof", proof, "-leaf", leaf)
    assert found.returncode != 0


def test_a_proof_does_not_replace_another_one(desk, tmp_path):
    desk.ok("prove", 5, "--out", tmp_path)
    (tmp_path / "5.tlog-proof").write_bytes(b"yesterday's")
    assert "another file" in desk.refused(1, "prove", 5, "--out", tmp_path)
    assert "no entry" in desk.refused(1, "prove", 10**6, "--out", tmp_path)


def test_a_file_says_who_made_it(desk, mirrored, tmp_path):
    artifact = tmp_path / "artifact"
    artifact.write_bytes(b"1 17")
    for place in ((), ("--mirror", mirrored), ("--store", desk.server.config)):
        found = json.loads(desk.ok("verify", artifact, "--json", *place))
        (entry,) = found["entries"]
        assert entry["key"] == "1017"
        assert entry["namespace"] == "demo:branch/main"
    assert "served (rule main)" in desk.ok("verify", artifact)
    desk.refused(1, "verify", artifact, "--key", "1018")
    artifact.write_bytes(b"1 17 and more")
    assert "never served" in desk.refused(1, "verify", artifact)


# compare


def test_a_later_checkpoint_continues_an_earlier_one(desk, mirrored, tmp_path):
    older = mirrored / "checkpoint"
    desk.store("4", 3)
    assert "extends" in desk.ok("compare", older)
    newer = tmp_path / "newer"
    newer.write_bytes(httpx.get(f"{desk.server.url}/log/checkpoint", timeout=60).content)
    assert "same" in desk.ok("compare", newer, newer, "--log-key", desk.vkey)
    for pair in ((older, newer), (newer, older)):
        assert json.loads(desk.ok("compare", *pair, "--json"))["relation"] == "extends"


# drills


def test_a_log_that_was_put_back_and_one_with_two_histories_are_proved(tmp_path):
    """A rolled-back head, and a second writer with the same key."""
    server = Server(tmp_path / "server").start()
    try:
        desk = Desk(server)
        desk.store("1", 3)
        server.stop()
        shutil.copytree(server.data, tmp_path / "yesterday")
        server.start()
        desk = Desk(server)
        desk.store("2", 5)
        mirror = tmp_path / "mirror"
        desk.ok("mirror", mirror)
        kept = mirror / "checkpoint"
        server.stop()

        # Put back whole, with the memory of the newer one: only who saw it outside can tell.
        shutil.rmtree(server.data)
        shutil.copytree(tmp_path / "yesterday", server.data)
        server.start()
        desk = Desk(server)
        for said in (
            desk.refused(5, "mirror", mirror),
            desk.refused(5, "compare", kept, "--out", tmp_path / "back"),
        ):
            assert "put back to an older state" in said
        assert (tmp_path / "back/older.checkpoint").read_bytes() == kept.read_bytes()

        # The same key goes on from there, with another history.
        desk.store("3", 9)
        before = kept.read_bytes()
        said = desk.refused(5, "mirror", mirror)
        assert "contradict" in said
        assert kept.read_bytes() == before
        assert desk.audit("mirror", mirror, "--check").returncode == 0
        said = desk.refused(5, "compare", kept, "--out", tmp_path / "forked")
        assert "contradict" in said
        proof = tmp_path / "forked/contradiction.json"
        assert "proved" in desk.ok("compare", "--evidence", proof, "--log-key", desk.vkey)
        (found,) = (mirror / "evidence").glob("*/contradiction.json")
        assert "proved" in desk.ok("compare", "--evidence", found, "--log-key", desk.vkey)
        proof.write_text(proof.read_text().replace("older", "newer", 1))
        desk.refused(1, "compare", "--evidence", proof, "--log-key", desk.vkey)
    finally:
        server.kill9()
