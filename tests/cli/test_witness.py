"""`secure-cache witness` as its operator meets it."""

import json
import shutil
import stat
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import anyio
import pytest
from fakes.logs import ORIGIN, SIGNER, grow, grown_log, open_log
from tlog.test_witness_wire import contradiction_at

from secure_cache.storage.filesystem import FilesystemStore

VKEY = str(SIGNER.verifier)


@pytest.fixture
def folder(tmp_path, call):
    done = call("witness", "init", tmp_path / "w", "--name", "w.example.com/1", "--log", VKEY)
    assert done.code == 0
    return tmp_path / "w"


def test_init_prints_the_key_alone_and_show_prints_it_again(tmp_path, call):
    done = call("witness", "init", tmp_path / "w", "--name", "w.example.com/1", "--ml-dsa")
    assert done.code == 0
    one, two = done.out.split()
    assert one.startswith("w.example.com/1+")
    assert len(two) > 1700
    assert call("witness", "show", tmp_path / "w").out == done.out
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "w").rglob("*")}
    assert modes == {"witness.key": 0o600, "witness.toml": 0o600, "state": 0o700}


def test_init_never_overwrites(folder, call):
    before = (folder / "witness.key").read_bytes()
    done = call("witness", "init", folder, "--name", "other")
    assert done.code == 2
    assert "never overwritten" in done.err
    assert (folder / "witness.key").read_bytes() == before


@pytest.mark.parametrize(
    "arguments",
    [("--name", "with space"), ("--name", "a+b"), ("--name", "w", "--log", "nonsense"), ()],
)
def test_init_refuses_what_is_no_name_or_key(tmp_path, call, arguments):
    assert call("witness", "init", tmp_path / "w", *arguments).code == 2
    assert not (tmp_path / "w").exists()


def spoil(name, change):
    def apply(folder):
        path = folder / name
        path.write_bytes(change(path.read_bytes()))

    return apply


SPOILED = {
    "a key of another form": spoil("witness.key", lambda data: data.replace(b"PRIVATE", b"PUBLIC")),
    "a key whose id is wrong": spoil("witness.key", lambda data: data.replace(b"/1+", b"/2+")),
    "no key": spoil("witness.key", lambda _: b""),
    "a key twice": spoil("witness.key", lambda data: data * 2),
    "a key that others can read": lambda folder: (folder / "witness.key").chmod(0o644),
    "no logs file": lambda folder: (folder / "witness.toml").unlink(),
    "broken TOML": spoil("witness.toml", lambda data: data + b"[[logs"),
    "another setting": spoil("witness.toml", lambda data: data + b"\n[[logs]]\nkeys = []\n"),
    "a log without a key": spoil("witness.toml", lambda data: data + b"\n[[logs]]\nvkeys = []\n"),
    "a log twice": spoil(
        "witness.toml", lambda data: data + f'\n[[logs]]\nvkeys = ["{VKEY}"]\n'.encode()
    ),
    "a log with a key twice": spoil(
        "witness.toml", lambda _: f'[[logs]]\nvkeys = ["{VKEY}", "{VKEY}"]\n'.encode()
    ),
    "not UTF-8": spoil("witness.toml", lambda _: b"\xff"),
    "no state": lambda folder: (folder / "state").rmdir(),
}


@pytest.mark.parametrize("what", SPOILED)
def test_a_folder_that_is_not_as_it_was_made_is_refused_and_the_file_is_named(folder, call, what):
    secret = (folder / "witness.key").read_text().strip().split("+", 4)[4]
    SPOILED[what](folder)
    done = call("witness", "follow", "http://127.0.0.1:9/log", "--dir", folder)
    assert done.code == 2
    assert str(folder) in done.err
    assert secret not in done.err


def test_an_address_that_nobody_answers_is_unreachable(folder, call):
    done = call("witness", "follow", "http://127.0.0.1:9/log", "--dir", folder)
    assert done.code == 3


def test_a_token_does_not_cross_a_network_in_plain_text(folder, call):
    assert call("witness", "follow", "http://cache.example.com/log", "--dir", folder).code == 2


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Nothing."""


@pytest.fixture
def shown_log(tmp_path):
    """A log on disk, and the URL of its folder; it can be replaced by another."""
    root = tmp_path / "log"
    make_log(root, 5, b"record %d")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=root))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield root, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def make_log(root, size, word):
    async def run():
        store = FilesystemStore(root)
        await store.check()
        await grown_log(store, (size,), entry=lambda i: word % i)
        await store.close()

    root.mkdir()
    anyio.run(run)


def grow_folder(root, size):
    async def run():
        store = FilesystemStore(root)
        await store.check()
        await grow(open_log(store), (size,))
        await store.close()

    anyio.run(run)


def test_follow_tells_growth_and_writes_the_cosigned_note(folder, call, shown_log, tmp_path):
    root, url = shown_log
    done = call("witness", "follow", url, "--dir", folder, "--out", tmp_path / "note")
    assert done.code == 0, done.err
    assert f"ok: {ORIGIN} has 5 entries (first look)" in done.out
    assert b"w.example.com/1" in (tmp_path / "note").read_bytes()
    grow_folder(root, 300)
    done = call("witness", "follow", url, "--dir", folder, "--json")
    assert json.loads(done.out) | {"root": ""} == {
        "ok": True,
        "origin": ORIGIN,
        "size": 300,
        "before": 5,
        "root": "",
    }


def test_follow_ends_with_5_at_a_rollback_and_at_a_fork_and_keeps_the_evidence(
    folder, call, shown_log, tmp_path
):
    root, url = shown_log
    shutil.copytree(root, tmp_path / "old")
    grow_folder(root, 9)
    assert call("witness", "follow", url, "--dir", folder).code == 0
    shutil.rmtree(root)
    shutil.copytree(tmp_path / "old", root)
    done = call("witness", "follow", url, "--dir", folder, "--json")
    assert done.code == 5
    assert "rolled back: it shows 5 entries, and this witness has cosigned 9" in done.err
    assert json.loads(done.out)["kind"] == "rollback"
    shutil.rmtree(root)
    make_log(root, 12, b"forged %d")
    done = call("witness", "follow", url, "--dir", folder, "--json")
    assert done.code == 5
    told = json.loads(done.out)
    assert told["kind"] == "fork"
    proof = call("witness", "evidence", told["evidence"], "--log", VKEY)
    assert proof.code == 0
    assert f"fork: {ORIGIN} signed a tree of 9 entries" in proof.out


def test_evidence_that_proves_nothing_is_told_apart_from_a_damaged_file(tmp_path, call):
    found = anyio.run(contradiction_at, 5, 9)
    file = tmp_path / "evidence"
    file.write_bytes(found.encode())
    assert call("witness", "evidence", file, "--log", VKEY).code == 0
    file.write_bytes(type(found)(found.older, found.newer).encode())
    done = call("witness", "evidence", file, "--log", VKEY)
    assert done.code == 1
    assert "proves nothing" in done.err
    file.write_bytes(b"{}")
    assert call("witness", "evidence", file, "--log", VKEY).code == 2
    assert call("witness", "evidence", tmp_path / "none", "--log", VKEY).code == 2
    assert call("witness", "evidence", file, "--log", "nonsense").code == 2
