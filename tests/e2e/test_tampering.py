"""Promises 3 and 4 against somebody who can write the server's files: no unverified byte is
served, and `log fsck` answers 5 to every change of the log.

Over a folder, whose files have damage of their own (times, places, modes); over Azurite the same
promises are in test_tampering_azurite.py.
"""

import hashlib
import os
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from world.server import NotReadyError

pytestmark = pytest.mark.timeout(200)

LARGE = 9 * 1024 * 1024


@dataclass
class Filled:
    """A server with entries of every shape: empty, small, and large enough for chunks."""

    server: object
    token: str
    entries: dict[str, bytes]

    def files(self, *patterns: str) -> list[Path]:
        """Stored files; a pattern that finds none is a fault of the test."""
        found = []
        for pattern in patterns:
            here = [
                path
                for path in sorted(self.server.data.glob(pattern))
                if path.is_file() and ".tmp" not in path.parts
            ]
            assert here, f"nothing is stored as {pattern}"
            for path in here:
                # Stored files are read-only, which stops nobody who owns them.
                path.chmod(0o600)
            found += here
        return found

    def read(self) -> dict[str, bytes | None]:
        """What each key answers: None for a miss. Bytes are counted also when the answer breaks
        off, because they left the server."""
        found = {}
        for key in self.entries:
            received = b""
            with self.server.client(self.token) as client:
                try:
                    with client.stream("GET", f"/v1/cache/{key}") as answer:
                        assert answer.status_code in {200, 404}
                        for part in answer.iter_raw():
                            received += part
                        broken = False
                except httpx.RemoteProtocolError:
                    broken = True
            if not broken and answer.status_code == 404:
                found[key] = None
            else:
                found[key] = received
                # A break-off is how damage in a late chunk must look; what came is genuine.
                assert not broken or len(received) < len(self.entries[key])
                assert self.entries[key].startswith(received), f"{key}: unverified bytes were sent"
                assert broken or received == self.entries[key]
        return found

    def must_still_serve(self) -> None:
        assert self.read() == self.entries


@pytest.fixture
def filled(make_server):
    server = make_server().start()
    token = server.token(branch="main")
    source = random.Random(5)
    entries = {
        "100": b"",
        "101": b"a small artifact",
        "102": source.randbytes(70_000),
        "103": source.randbytes(LARGE),
        "104": source.randbytes(LARGE),
    }
    for key, body in entries.items():
        assert server.put(token, key, body).status_code == 200
    return Filled(server, token, entries)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    if not data:
        data = bytearray(b"?")
    else:
        data[len(data) // 2] ^= 0x01
    path.write_bytes(data)


def flip_first(path: Path) -> None:
    data = bytearray(path.read_bytes()) or bytearray(b"?")
    data[0] ^= 0x80
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def delete(path: Path) -> None:
    path.unlink()


def in_place_with_old_times(path: Path) -> None:
    """As somebody would who knows that we remember files by size and times."""
    before = path.stat()
    with path.open("r+b") as file:
        file.write(b"\xff\xfe")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


DAMAGE = (flip, flip_first, truncate, append, empty, delete, in_place_with_old_times)


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("where", ["artifacts/**/*", "records/**/*"])
@pytest.mark.parametrize("state", ["running", "down"])
def test_no_unverified_byte_is_served_of_a_damaged_entry(filled, damage, where, state):
    filled.must_still_serve()
    if state == "down":
        filled.server.stop()
    for path in filled.files(where):
        if not (damage is truncate and path.stat().st_size == 0):
            damage(path)
    if state == "down":
        filled.server.start()
    found = filled.read()
    if where.startswith("artifacts"):
        assert found["102"] is None
        # A server that verifies whole files first misses; one that streams breaks off.
        assert found["103"] != filled.entries["103"]
    if state == "down" and where.startswith("records"):
        # A last newline may be the one change that means nothing; all other damage is a miss.
        assert damage is append or set(found.values()) == {None}
    # The damage is not healed by looking away, and nobody is locked out by it.
    fresh = hashlib.sha256(b"fresh").hexdigest()
    assert filled.server.put(filled.token, fresh, b"fresh").status_code == 200
    assert filled.server.get(filled.token, fresh).content == b"fresh"


@pytest.mark.parametrize("state", ["running", "down"])
def test_damage_in_the_middle_of_a_large_artifact_is_never_sent(filled, state):
    if state == "down":
        filled.server.stop()
    for path in filled.files("artifacts/**/*"):
        if path.stat().st_size == LARGE:
            data = bytearray(path.read_bytes())
            data[LARGE // 2] ^= 0x10
            path.write_bytes(data)
    if state == "down":
        filled.server.start()
    found = filled.read()
    for key in ("103", "104"):
        assert found[key] is None or len(found[key]) <= LARGE // 2


@pytest.mark.parametrize("where", ["artifacts/**/*", "records/**/*"])
@pytest.mark.parametrize("state", ["running", "down"])
def test_entries_that_were_swapped_are_not_served(filled, where, state):
    """Both halves are genuine and signed; only their places are wrong."""
    if state == "down":
        filled.server.stop()
    files = filled.files(where)
    if where.startswith("artifacts"):
        files = [path for path in files if path.stat().st_size == LARGE]
    rotated = [path.read_bytes() for path in files]
    for path, data in zip(files, rotated[1:] + rotated[:1], strict=True):
        path.write_bytes(data)
    if state == "down":
        filled.server.start()
    # `read` fails when one key's bytes come for another.
    found = filled.read()
    if state == "down":
        assert found["103"] is None or len(found["103"]) < LARGE


def test_a_record_copied_from_a_pull_request_to_main_is_not_served(filled):
    """CREEP by somebody with write access to the store: all signatures are genuine."""
    server = filled.server
    pull_request = server.token(pr=1)
    assert server.put(pull_request, "999", b"poison").status_code == 200
    server.stop()
    (poison,) = filled.files("records/demo/pr/*/*")
    (anybody, *_) = filled.files("records/demo/branch/*/*")
    shutil.copy(poison, anybody.parent / poison.name)
    server.start()
    assert server.get(filled.token, "999").status_code == 404
    # For its own writer it was genuine; whether a broken trusted record hides it is our choice.
    assert server.get(pull_request, "999").status_code in {200, 404}
    # The planted record does not lock main out either.
    assert server.put(filled.token, "999", b"genuine").status_code == 200
    assert server.get(filled.token, "999").content == b"genuine"
    assert server.get(pull_request, "999").content == b"genuine"


def test_an_older_record_put_back_after_a_revocation_is_not_served(filled):
    """Rollback of one file: the statement is genuine, and today's policy refuses it."""
    server = filled.server
    old = {path: path.read_bytes() for path in filled.files("records/**/*")}
    server.stop()
    server.revoke(key="101")
    server.start()
    assert server.put(filled.token, "101", b"another").status_code == 200
    server.stop()
    for path, data in old.items():
        path.write_bytes(data)
    server.start()
    assert server.get(filled.token, "101").status_code == 404


LOG_FILES = (
    "log/tile/0/**/*",
    "log/tile/entries/**/*",
    "log/checkpoint",
    "log/head",
)


@pytest.mark.parametrize("damage", [flip, flip_first, truncate, empty, delete])
@pytest.mark.parametrize("where", LOG_FILES)
def test_fsck_answers_5_to_every_change_of_the_log(filled, damage, where):
    filled.server.stop()
    clean = filled.server.fsck()
    assert clean.returncode == 0, clean.stderr
    damage(newest(filled, where))
    done = filled.server.fsck()
    assert done.returncode == 5, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert done.stdout + done.stderr


@pytest.mark.parametrize("where", LOG_FILES)
def test_fsck_answers_5_while_the_server_runs(filled, where):
    flip(newest(filled, where))
    assert filled.server.fsck().returncode == 5
    filled.must_still_serve()


@pytest.mark.parametrize("damage", [flip, truncate, delete])
@pytest.mark.parametrize("where", LOG_FILES)
def test_a_server_over_a_damaged_log_never_forks_it(filled, damage, where):
    """It may refuse to start, or refuse uploads; it may not sign another history."""
    size, root = filled.server.checkpoint()
    published = filled.files("log/checkpoint")[0].read_bytes()
    filled.server.stop()
    damage(newest(filled, where))
    if not starts(filled.server):
        return
    filled.read()
    answer = filled.server.put(filled.token, "200", b"after the damage")
    assert answer.status_code in {200, 403}
    if answer.status_code == 403:
        assert answer.headers["X-Secure-Cache-Reason"]
    with filled.server.client() as client:
        text = client.get("/log/checkpoint")
    if text.status_code == 200 and text.content != published:
        new_size, new_root = int(text.text.split("\n")[1]), text.text.split("\n")[2]
        assert new_size >= size
        assert new_size > size or new_root == root, "two roots of one size: a fork"


def test_the_log_put_back_to_yesterday_shows_to_whoever_saw_today(filled, tmp_path):
    """Rollback of everything in the log: old files, all genuine, and consistent with each other.
    That takes a witness; here one who remembers one checkpoint."""
    server = filled.server
    server.stop()
    shutil.copytree(server.data / "log", tmp_path / "yesterday")
    server.start()
    assert server.put(filled.token, "300", b"today").status_code == 200
    seen_size, seen_root = server.checkpoint()
    server.stop()
    shutil.rmtree(server.data / "log")
    shutil.copytree(tmp_path / "yesterday", server.data / "log")
    if not starts(server):
        return
    filled.must_still_serve()
    size, root = server.checkpoint()
    while size < seen_size:
        # Whatever the log says from now on, it can not come back to what the witness saw.
        key = str(1000 + size)
        assert server.put(filled.token, key, key.encode()).status_code == 200
        size, root = server.checkpoint()
    assert size > seen_size or root != seen_root


def starts(server) -> bool:
    """Whether it serves; if not, it has said why, in words for the operator."""
    try:
        server.start()
    except NotReadyError as refused:
        said = refused
    else:
        return True
    assert said.code not in {0, None}
    assert "Traceback" not in said.logs
    assert said.logs.strip()
    return False


def newest(filled: Filled, where: str) -> Path:
    """The file of this kind that was written last: a partial tile that a commit has replaced is
    garbage, and nobody answers for it."""
    return max(filled.files(where), key=lambda path: (path.stat().st_mtime_ns, len(path.parts)))
