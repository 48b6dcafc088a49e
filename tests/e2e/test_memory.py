"""Promise 7: memory does not grow with the artifact's size."""

import concurrent.futures
import os
import shutil
import threading
import time

import pytest
from world.server import Server
from world.storage import OnAzurite
from world.wire import connect, request

MIB = 1024 * 1024
CONCURRENT = 20
ALLOWED = 200 * MIB
ALLOWED_OVER_AZURE = 150 * MIB
BLOCK = os.urandom(MIB)


def _size(directory) -> int:
    """256 MiB each, as the promise says; less where the disk has no room for all twenty twice, and
    SECURE_CACHE_TEST_ARTIFACT_MIB where somebody is in a hurry."""
    wanted = int(os.environ.get("SECURE_CACHE_TEST_ARTIFACT_MIB", "256"))
    room = shutil.disk_usage(directory).free // MIB // (2 * CONCURRENT)
    size = min(wanted, room)
    assert size >= 32, f"{directory} has too little room to show anything"
    return size


def _block(number: int, index: int) -> bytes:
    return b"%08d%08d" % (number, index) + BLOCK[16:]


def _upload(port: int, token: str, number: int, mebibytes: int) -> int:
    with connect(port, timeout=250) as wire:
        length = f"content-length: {mebibytes * MIB}"
        wire.send(request("PUT", f"/v1/cache/{number}", token, length))
        for index in range(mebibytes):
            wire.send(_block(number, index))
        answer = wire.read()
    assert answer is not None
    return answer.status


def _download(port: int, token: str, number: int, mebibytes: int) -> bool:
    """Whether every byte came back; compared block by block, so that this side stays small too."""
    with connect(port, timeout=250) as wire:
        wire.send(request("GET", f"/v1/cache/{number}", token))
        stream = wire.socket.makefile("rb", buffering=MIB)
        assert b" 200 " in stream.readline()
        while stream.readline() != b"\r\n":
            pass
        return all(stream.read(MIB) == _block(number, index) for index in range(mebibytes))


class Watch:
    """The largest resident size of any process of a server, looked at all the time.

    The kernel's own high-water mark would be exact, but it holds the start of the interpreter too;
    so both are read, and the mark counts where it rose."""

    def __init__(self, server):
        self.server = server
        self.idle = server.memory()
        self.most = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _look(self):
        while not self._stop.is_set():
            for pid, now in self.server.memory().items():
                before = self.idle.get(pid)
                if before is None:
                    continue
                grown = now.resident - before.resident
                if now.peak > before.peak:
                    grown = max(grown, now.peak - before.resident)
                self.most = max(self.most, grown)
            time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_twenty_large_artifacts_at_once_need_little_memory(make_server, tmp_path):
    server = make_server().start()
    token = server.token(branch="main")
    # What the first request loads is not idle memory's fault.
    server.put(token, "1000000", b"x" * 10 * MIB)
    server.get(token, "1000000")
    size = _size(tmp_path)
    with concurrent.futures.ThreadPoolExecutor(CONCURRENT) as pool, Watch(server) as watch:
        stored = list(
            pool.map(lambda number: _upload(server.port, token, number, size), range(CONCURRENT))
        )
        assert stored == [200] * CONCURRENT
        uploading = watch.most
        whole = list(
            pool.map(lambda number: _download(server.port, token, number, size), range(CONCURRENT))
        )
        assert all(whole)
    assert uploading <= ALLOWED, f"uploads: {uploading // MIB} MiB above idle"
    assert watch.most <= ALLOWED, f"downloads: {watch.most // MIB} MiB above idle"


@pytest.mark.slow
def test_readers_that_do_not_read_need_little_memory(make_server):
    """Slow readers of large artifacts: the server must not read ahead for them."""
    server = make_server().start()
    token = server.token(branch="main")
    assert _upload(server.port, token, 1, 64) == 200
    # From then on the file is old enough to be proved once and remembered.
    time.sleep(5)
    assert _download(server.port, token, 1, 64)
    wires = [connect(server.port) for _ in range(CONCURRENT)]
    with Watch(server) as watch:
        opened = [context.__enter__() for context in wires]
        for wire in opened:
            wire.send(request("GET", "/v1/cache/1", token))
            assert wire.socket.recv(1) == b"H"
        time.sleep(1)
        for context in wires:
            context.__exit__(None, None, None)
    assert watch.most <= ALLOWED, f"{watch.most // MIB} MiB above idle"
    assert server.get(token, "1").status_code == 200


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("tier", [False, True], ids=["without-tier", "with-tier"])
def test_one_gibibyte_up_and_down_over_azure_needs_little_memory(azurite, tmp_path, tier):
    environment = {"SECURE_CACHE_LOCAL_TIER__PATH": str(tmp_path / "tier")} if tier else {}
    server = Server(tmp_path / "server", storage=OnAzurite(azurite), environment=environment)
    try:
        server.start()
        token = server.token(branch="main")
        # What the first request loads is not idle memory's fault.
        server.put(token, "1000000", b"x" * 10 * MIB)
        server.get(token, "1000000")
        size = int(os.environ.get("SECURE_CACHE_TEST_ARTIFACT_MIB", "1024"))
        with Watch(server) as watch:
            assert _upload(server.port, token, 1, size) == 200
            uploading = watch.most
            assert _download(server.port, token, 1, size)
        assert uploading <= ALLOWED_OVER_AZURE, f"upload: {uploading // MIB} MiB above idle"
        assert watch.most <= ALLOWED_OVER_AZURE, f"download: {watch.most // MIB} MiB above idle"
    finally:
        server.remove()
