"""The tier's folder between real processes: bounded, whole files only, swept after a kill."""

import importlib.util
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from secure_cache.storage.tier_folder import TierFolder

pytestmark = pytest.mark.anyio

WORKER = Path(__file__).with_name("tier_worker.py")
MAX = 1_000_000
MANY = 1_000_000


def worker_module():
    spec = importlib.util.spec_from_file_location("tier_worker", WORKER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def start(folder, seed, rounds):
    arguments = [sys.executable, WORKER, folder, str(MAX), str(seed), str(rounds)]
    return subprocess.Popen(arguments, stderr=subprocess.PIPE)


def held(folder):
    """The real size of all that is in it, drafts included."""
    total = 0
    for path in [*folder.glob("0*"), *folder.glob(".tmp/0*")]:
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total


async def require_sound(folder):
    """Nothing but whole files, and a count that is exact once the dead were swept."""
    tier = TierFolder(folder, max_bytes=MAX)
    await tier.prepare()
    content = worker_module().content
    published = [path for path in folder.iterdir() if path.name.startswith("0")]
    assert published
    for path in published:
        assert path.read_bytes() == content(path.name)
    assert list((folder / ".tmp").iterdir()) == []
    rounded = sum(-(-path.stat().st_size // 4096) * 4096 for path in published)
    assert int((folder / ".room").read_text()) == rounded <= MAX
    await tier.close()


async def test_processes_that_share_a_folder_stay_within_its_bound_and_read_whole_files(tmp_path):
    folder = tmp_path / "tier"
    workers = [start(folder, seed, 120) for seed in range(3)]
    while any(worker.poll() is None for worker in workers):
        assert held(folder) <= MAX
        await anyio.sleep(0.01)
    for worker in workers:
        assert worker.communicate()[1] == b""
        assert worker.returncode == 0
    await require_sound(folder)


async def test_what_killed_processes_leave_is_swept_and_counted(tmp_path):
    folder = tmp_path / "tier"
    source = random.Random(7)
    for seed in range(4):
        workers = [start(folder, 10 * seed + number, MANY) for number in range(2)]
        while len([*folder.glob(".tmp/0*")]) < 5:
            await anyio.sleep(0.005)
            assert all(worker.poll() is None for worker in workers)
        await anyio.sleep(source.uniform(0.05, 0.3))
        for worker in workers:
            worker.send_signal(signal.SIGKILL)
            assert b"Traceback" not in worker.communicate()[1]
        await require_sound(folder)


async def test_a_system_that_reserves_no_room_on_its_disk_has_a_tier_too(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    tier = TierFolder(tmp_path / "tier", max_bytes=MAX)
    await tier.prepare()
    name = "0" * 26
    draft = await tier.begin(name, 5000)
    await draft.write(0, bytes(5000))
    await draft.publish()
    draft.close()
    file = await tier.find(name)
    assert await file.read(0, 6000) == bytes(5000)
    file.close()
    await tier.close()
    assert (tmp_path / "tier" / ".room").read_text().strip().lstrip("0") == "8192"
