"""Several processes over one folder, each killed with SIGKILL at random moments; then fsck."""

import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fakes.log_world import check_log
from fakes.logs import SIGNER, finish, new_log, sequencer_of

from secure_cache.storage.filesystem import FilesystemStore

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parents[2]


class Worker:
    def __init__(self, folder, name):
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("hammer_worker.py")), folder, name],
            env=os.environ | {"PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.acked = []
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            # A line without its end was cut off by the kill; the entry was acknowledged all
            # the same, but its name may be incomplete.
            if line.endswith("\n"):
                self.acked.append(line.rstrip("\n").encode())

    def kill(self):
        self.process.kill()
        _, errors = self.process.wait(), self.process.stderr.read()
        self.reader.join()
        self.process.stdout.close()
        self.process.stderr.close()
        assert not errors, errors


@pytest.mark.slow
async def test_kill_9_at_random_moments_loses_nothing_that_was_acknowledged(tmp_path):
    folder = tmp_path / "log"
    folder.mkdir()
    store = FilesystemStore(folder)
    await store.check()
    await new_log(store)
    source = random.Random(os.urandom(8))
    acked, generation = [], 0
    workers = [Worker(folder, f"w{n}") for n in range(2)]
    end = time.monotonic() + 12
    while time.monotonic() < end:
        time.sleep(source.uniform(0.5, 2.0))  # noqa: ASYNC251 - nothing else runs here
        victim = source.randrange(len(workers))
        workers[victim].kill()
        acked += workers[victim].acked
        generation += 1
        workers[victim] = Worker(folder, f"g{generation}")
    for worker in workers:
        worker.kill()
        acked += worker.acked
    assert len(acked) > 100
    await finish(sequencer_of(store, rewrite_equal=True))
    entries = await check_log(store, SIGNER, acked=acked)
    assert len(entries) >= len(acked)
    await store.close()
