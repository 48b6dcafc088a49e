"""`audit mirror` of an installation that no server runs: what is said, and how it ends."""

import errno
import http.server
import json
import os
import threading
import time

import anyio
import pytest
from fakes.audit import leaf_of_event

from secure_cache.compose.posture import prove
from secure_cache.compose.stores import open_stores, opened
from secure_cache.core.keystore import load_keystore
from secure_cache.provenance.event import KeysChanged
from secure_cache.settings import load_settings
from secure_cache.tlog.log import LogService


class Nothing(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_error(404)

    def log_message(self, *_):
        pass


@pytest.fixture
def web():
    """A web server that has nothing."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Nothing)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def append(config, leaf_for):
    """As a server does, or somebody who can write the stores."""

    async def write():
        settings = load_settings(config, {})
        keystore = load_keystore(settings.keys)
        async with opened(open_stores(settings.storage)) as stores:
            await prove(stores)
            log = LogService(
                tiles=stores.tiles,
                head=stores.head,
                pending=stores.pending,
                signer=keystore.log,
                turn=stores.turn,
            )
            async with log.running():
                await log.append(leaf_for(keystore))
                assert await log.flush(30)

    anyio.run(write)


def keys_event(keystore):
    now = int(time.time())
    signer = keystore.entry_signer(now)
    return leaf_of_event(KeysChanged(keystore.ring.digest, (signer.keyid,)), now, signer)


def test_bad_entries_are_told_also_when_the_index_cannot_be_made(call, installation, tmp_path):
    folder = tmp_path / "mirror"
    mirror = ("audit", "mirror", folder, "--store", installation.config, "--json")
    append(installation.config, keys_event)
    assert call(*mirror).code == 0
    append(installation.config, lambda _: b"junk")
    index = folder / "index.sqlite"
    index.write_bytes(b"no index" * 100)
    done = call(*mirror)
    assert done.code == 5
    assert json.loads(done.out)["bad_count"] == 1
    assert "index.sqlite" in done.err
    # It was told: the next run is about what is new, and the index is what is wrong.
    done = call(*mirror)
    assert json.loads(done.out)["bad_count"] == 0
    assert done.code == 5
    index.unlink()
    assert call(*mirror).code == 0


def test_an_address_that_is_no_server_is_a_mistake_and_no_answer(call, tmp_path, monkeypatch, web):
    monkeypatch.setenv("SECURE_CACHE_TOKEN", "e30.e30.e30")
    rules = tmp_path / "rules.yaml"
    rules.write_text("version: 1\nexpect: [{ name: all, issuer: '*' }]\n")
    for command in (
        ("mirror", tmp_path / "mirror"),
        ("prove", 1, "--out", tmp_path / "proofs"),
        ("monitor", rules, "--state", tmp_path / "state.json"),
        ("query",),
        ("policies",),
    ):
        done = call("audit", *command, "--server", web)
        assert done.code == 2, done.err
        assert "check --server" in done.err


def test_a_disk_that_is_full_is_named_with_the_proof_that_it_did_not_take(
    call, installation, tmp_path, monkeypatch
):
    append(installation.config, keys_event)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    out = tmp_path / "proofs"
    done = call("audit", "prove", 0, "--store", installation.config, "--out", out)
    assert done.code == 3
    assert f"{out}/0.tlog-proof: cannot be written (No space left on device)" in done.err
    assert list(out.iterdir()) == []
