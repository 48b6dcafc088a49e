"""Real processes that die, and system calls that fail, in the middle of writing."""

import random
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest
from tools import require_tool

from secure_cache.storage.filesystem import FilesystemStore

pytestmark = pytest.mark.anyio

# Every object's content follows from its name, so that any reader can judge it. A line on
# stdout acknowledges. The arguments: the root, a name that makes this run's objects unique, and
# how many rounds to do.
WRITER = """
import sys, anyio
from pathlib import Path
from secure_cache.model.errors import NotFound, SecureCacheError
from secure_cache.storage.filesystem import FilesystemStore

def body(name, size):
    return (name.encode() * (size // len(name) + 1))[:size]

async def rounds(store, run, task, count):
    for number in range(count):
        lead = f"{run}/{task}/{number // 4}/{number}"
        try:
            await store.create(f"{lead}.c4000", body(f"{lead}.c4000", 4000))
            print(f"{lead}.c4000", flush=True)
            name = f"{lead}.u2500000" if task == 0 else f"{lead}.u30000"
            size = int(name.rpartition("u")[2])
            whole = body(name, size)
            async with store.begin_upload(name) as upload:
                for start in range(0, size, 65536):
                    await upload.write(whole[start : start + 65536])
                await upload.commit(size=size)
            print(name, flush=True)
            now = await store.get("counter", max_bytes=100_000)
            value = int(now.data[:20]) + 1
            await store.replace("counter", b"%020d" % value * 100, expected=now.info.version)
            print(f"counter {value}", flush=True)
        except SecureCacheError as error:
            print(f"error {type(error).__name__} {getattr(error, 'applied', '-')}", flush=True)
            if type(error).__name__ != "VersionMismatch":
                return

async def main(root, run, count):
    store = FilesystemStore(Path(root), on_fsync_failure=lambda text: print("fatal", flush=True))
    try:
        await store.head("counter")
    except NotFound:
        await store.create("counter", b"%020d" % 0 * 100)
    print("ready", flush=True)
    async with anyio.create_task_group() as tasks:
        for task in range(3):
            tasks.start_soon(rounds, store, run, task, int(count))

anyio.run(main, *sys.argv[1:])
"""


def body(name, size):
    return (name.encode() * (size // len(name) + 1))[:size]


async def judge(root: Path, acknowledged: list[str]) -> None:
    """Nothing half-written can be read; everything acknowledged is there."""
    store = FilesystemStore(root)
    await store.check()
    seen = set()
    async for info in store.list(""):
        data = (await store.get(info.name, max_bytes=3_000_000)).data
        if info.name == "counter":
            assert len(data) == 2000
            assert data == data[:20] * 100
            value = int(data[:20])
        else:
            size = int(info.name.rpartition(".")[2][1:])
            assert data == body(info.name, size), info.name
        seen.add(info.name)
    counted = [int(line.split()[1]) for line in acknowledged if line.startswith("counter ")]
    created = {line for line in acknowledged if "/" in line}
    assert created <= seen, created - seen
    assert value >= max(counted, default=0)
    await store.close()


def run_and_kill(root: Path, run: str, after: float) -> list[str]:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(root), run, "10000"], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout.readline() == "ready\n"
        time.sleep(after)
        writer.kill()
        # The last line may be cut by the kill, and then was not an acknowledgement.
        text = writer.stdout.read()
    return text[: text.rfind("\n") + 1].splitlines()


async def test_a_writer_killed_at_any_moment_leaves_whole_objects_only(tmp_path):
    store = FilesystemStore(tmp_path)
    await store.check()
    await store.close()
    chance = random.Random(2)
    acknowledged: list[str] = []
    for number in range(8):
        lines = await anyio.to_thread.run_sync(
            run_and_kill, tmp_path, f"run{number}", chance.uniform(0, 0.2)
        )
        assert not [line for line in lines if line.startswith(("error S", "error C", "fatal"))]
        acknowledged += lines
        await judge(tmp_path, acknowledged)
    assert len(acknowledged) > 20


def run_injected(root: Path, injection: str) -> tuple[int, list[str]]:
    strace = require_tool("strace", "apt-get install strace")
    done = subprocess.run(
        [
            *(strace, "-f", "-o", "/dev/null"),
            *("-e", f"trace={injection.partition(':')[0]}", "-e", f"inject={injection}"),
            *(sys.executable, "-c", WRITER, str(root), "injected", "3"),
        ],
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout[: done.stdout.rfind("\n") + 1].splitlines()


# `when` counts the calls of one thread, whichever comes to it first.
FAULTS = [
    *[f"fsync:error=EIO:when={when}" for when in (1, 2, 6)],
    "linkat:error=EIO:when=2",
    "linkat:error=ENOSPC:when=2",
    "renameat:error=EIO:when=1",
    "mkdirat:error=ENOSPC:when=2",
    "writev:error=ENOSPC:when=3",
    "flock:error=ENOLCK:when=1",
]
DEATHS = [
    f"{call}:signal=SIGKILL:when={when}"
    for call, when in (
        ("fsync", 1),
        ("fsync", 3),
        ("fsync", 9),
        ("linkat", 2),
        ("linkat", 5),
        ("renameat", 2),
        ("mkdirat", 2),
        ("writev", 4),
    )
]


@pytest.fixture
async def root(tmp_path):
    store = FilesystemStore(tmp_path)
    await store.check()
    await store.create("counter", b"%020d" % 0 * 100)
    await store.close()
    return tmp_path


@pytest.mark.parametrize("injection", FAULTS)
async def test_a_failing_system_call_is_told_and_leaves_whole_objects_only(root, injection):
    code, lines = await anyio.to_thread.run_sync(run_injected, root, injection)
    assert code == 0
    failures = [line for line in lines if line.startswith("error Storage")]
    assert failures, lines
    assert ("fatal" in lines) == injection.startswith("fsync")
    if injection.startswith("fsync"):
        # One failed fsync ends the writing of all three tasks, none knowing what took effect.
        assert failures == ["error StorageUnavailable None"] * 3
        assert lines.index("fatal") < lines.index(failures[0])
    await judge(root, lines)


@pytest.mark.parametrize("injection", DEATHS)
async def test_death_at_a_system_call_leaves_whole_objects_only(root, injection):
    code, lines = await anyio.to_thread.run_sync(run_injected, root, injection)
    assert code != 0
    await judge(root, lines)
