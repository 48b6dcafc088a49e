"""Go's own transparency log code verifies a log that we made, and refuses tampered copies."""

import base64
import json
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import anyio
import pytest
from fakes.logs import SIGNER, grow, grown_log
from interop.go_tool import go_tool, run_tool
from tools import require_vectors

from secure_cache.storage.filesystem import FilesystemStore

pytestmark = [pytest.mark.anyio, pytest.mark.interop]

VKEY = str(SIGNER.verifier)
SIZES = (1, 255, 256, 300, 512)


@pytest.fixture(scope="module")
def check():
    return partial(run_tool, go_tool("tlogcheck"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A log of 600 entries in a folder, its earlier checkpoints, and some proofs."""
    root = tmp_path_factory.mktemp("log")
    anyio.run(make, root)
    return root


async def make(root):
    folder = root / "log"
    folder.mkdir()
    store = FilesystemStore(folder)
    await store.check()
    log = await grown_log(store, SIZES[:1])
    for size in (*SIZES[1:], 600):
        (root / f"before-{size}").write_bytes(await log.checkpoint_note())
        await grow(log, (size,))
    for index in (0, 255, 256, 599):
        (root / f"{index}.tlog-proof").write_bytes(bytes(await log.proof(index)))
        (root / f"{index}.leaf").write_bytes(await log.entry(index))
    await store.close()


@pytest.fixture
def copy(made, tmp_path):
    shutil.copytree(made / "log", tmp_path / "log")
    for file in (tmp_path / "log").rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)
    return tmp_path / "log"


def test_go_verifies_every_entry_and_earlier_sizes_from_disk(check, made):
    done = check(
        "-vkey",
        VKEY,
        "-sizes",
        ",".join(map(str, SIZES)),
        *[word for size in (255, 600) for word in ("-from", made / f"before-{size}")],
        made / "log",
    )
    assert done.returncode == 0, done.stderr
    assert "600 entries" in done.stdout
    assert "7 earlier sizes" in done.stdout


def test_go_verifies_over_http_with_a_token(check, made):
    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self):
            if self.headers.get("Authorization") != "Bearer auditor":
                self.send_error(403)
                return
            super().do_GET()

        def log_message(self, *_):
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=made / "log"))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        assert check("-vkey", VKEY, url, token="auditor").returncode == 0
        assert check("-vkey", VKEY, url, token="nobody").returncode == 1
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("index", [0, 255, 256, 599])
def test_go_verifies_our_proof_files(check, made, index):
    done = check(
        "-vkey", VKEY, "-proof", made / f"{index}.tlog-proof", "-leaf", made / f"{index}.leaf"
    )
    assert done.returncode == 0, done.stderr
    assert f"entry {index} of 600" in done.stdout


def test_go_refuses_our_proof_for_another_entry(check, made):
    assert (
        check("-vkey", VKEY, "-proof", made / "0.tlog-proof", "-leaf", made / "255.leaf").returncode
        == 1
    )


def flip(path, at=-1):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def edit_size(log):
    path = log / "checkpoint"
    path.write_bytes(path.read_bytes().replace(b"\n600\n", b"\n599\n"))


TAMPERING = {
    "a byte of a bundle": lambda log: flip(log / "tile/entries/000"),
    "a byte of the last bundle": lambda log: flip(log / "tile/entries/002.p/88"),
    "a byte of a leaf tile": lambda log: flip(log / "tile/0/001"),
    "a byte of the last leaf tile": lambda log: flip(log / "tile/0/002.p/88"),
    "a byte of an upper tile": lambda log: flip(log / "tile/1/000.p/2"),
    "the size": edit_size,
    "a byte of the root": lambda log: flip(log / "checkpoint", len(SIGNER.name) + 6),
    "a missing bundle": lambda log: (log / "tile/entries/001").unlink(),
    "two bundles exchanged": lambda log: shutil.copy(
        log / "tile/entries/000", log / "tile/entries/001"
    ),
}


@pytest.mark.parametrize("what", TAMPERING)
def test_go_refuses_a_tampered_log(check, copy, what):
    assert check("-vkey", VKEY, copy).returncode == 0
    TAMPERING[what](copy)
    assert check("-vkey", VKEY, copy).returncode == 1


def test_go_refuses_another_key(check, made):
    other = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    assert check("-vkey", other, made / "log").returncode == 1


def test_the_checker_accepts_the_log_of_tessera(check, tmp_path):
    # transparency-dev/tessera, testdata/log (Apache-2.0): the checker is no friend of ours only
    files = json.loads(require_vectors("tessera-testdata-log.json").read_text())
    for name, data in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(data))
    vkey = "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx"
    done = check("-vkey", vkey, "-sizes", "1,7,14", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "15 entries" in done.stdout
