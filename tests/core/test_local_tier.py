"""The local tier: one download for many readers, and never a wrong byte, whatever happens to it."""

import errno
import io
import json
import os
import random
import resource
import time
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial

import anyio
import pytest
import structlog
from fakes.cache_world import cache_world
from fakes.faults import FailOnce, Fault, no_faults
from fakes.remote_store import RemoteStore

from secure_cache.core.local_tier import LocalTier
from secure_cache.core.telemetry import Silent
from secure_cache.model.entry import CHUNK_BYTES
from secure_cache.model.errors import (
    CorruptObject,
    Misconfigured,
    NotFound,
    SecureCacheError,
    StorageUnavailable,
)
from secure_cache.model.names import parse_key
from secure_cache.observability.logging import configure_logging
from secure_cache.storage import layout
from secure_cache.storage.memory import MemoryStore
from secure_cache.storage.tier_folder import TierFolder

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
LARGE = 3 * CHUNK_BYTES + 1234
SETTLED = 10.0


class Counts(Silent):
    """What the tier told."""

    def __init__(self):
        self.reads, self.fills, self.failed = [], [], []
        self.evicted = self.taken = 0

    def tier_read(self, *, outcome):
        self.reads.append(outcome)

    def tier_filled(self, *, result, size_bytes):
        self.fills.append(result)

    def tier_failed(self, *, kind):
        self.failed.append(kind)

    def tier_evicted(self, *, files, size_bytes, taken_bytes):
        self.evicted += files
        self.taken = taken_bytes


@pytest.fixture
def log():
    stream = io.StringIO()
    configure_logging(style="json", level="info", stream=stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    structlog.reset_defaults()


async def until(condition):
    with anyio.fail_after(60):
        while not condition():  # noqa: ASYNC110 - states that the outside can only observe
            await anyio.sleep(0.005)


class Tiered:
    """A process over a remote store, with a tier."""

    def __init__(self, world, path, max_bytes):
        self.world = world
        self.path = path
        self.max_bytes = max_bytes
        self.ahead = 0.0
        self.main = world.caller(branch="main")

    @property
    def remote(self):
        return self.world.stores["artifacts"]

    def clock(self):
        return time.time() + self.ahead

    @asynccontextmanager
    async def process(self):
        """A fresh process over the same folder and stores."""
        self.counts = counts = Counts()
        world = self.world

        def tell(change):
            counts.tier_evicted(
                files=change.evicted, size_bytes=change.evicted_bytes, taken_bytes=change.taken
            )

        folder = TierFolder(self.path, max_bytes=self.max_bytes, tell=tell, clock=self.clock)
        world.tier = "placeholder"
        world._assemble_over_the_same_log()
        world.tier = self.tier = LocalTier(
            folder=folder,
            artifacts=world.stores["artifacts"],
            lists=world.lists,
            telemetry=counts,
        )
        world.get._sources = (world.tier, world.get._sources[-1])
        self.folder = folder
        async with world.tier.running():
            yield self

    async def fetch(self, key="1"):
        data = await self.world.fetch(self.main, key)
        # The last bytes are sent before the file has its name.
        await until(lambda: not self.tier._works)
        return data

    async def receive(self, received, key="1"):
        """A fetch that breaks off leaves what had come."""
        async with AsyncExitStack() as stack:
            artifact = await self.world.get(self.main, parse_key(key), stack)
            async for block in artifact.blocks:
                received += block

    async def store(self, data, key="1"):
        return await self.world.store(self.main, key, data)

    def downloads(self):
        return sum(self.remote.downloaded.values())

    def files(self):
        return [
            path for path in self.path.iterdir() if path.is_file() and not path.name.startswith(".")
        ]

    def drafts(self):
        return list((self.path / ".tmp").iterdir())

    def taken(self):
        return int((self.path / ".room").read_text())


@pytest.fixture
async def idle(tmp_path):
    """A tier whose process was not started."""
    async with cache_world() as world:
        world.stores["artifacts"] = RemoteStore(MemoryStore())
        world._assemble_over_the_same_log()
        yield Tiered(world, tmp_path / "tier", 64 * MIB)


@pytest.fixture
async def tiered(idle):
    async with idle.process():
        yield idle


@pytest.mark.parametrize(
    "size", [32 * 1024 + 1, 256 * 1024, CHUNK_BYTES, CHUNK_BYTES + 1, LARGE, 2 * CHUNK_BYTES]
)
async def test_what_was_downloaded_once_is_served_from_the_disk(tiered, size):
    data = os.urandom(size)
    await tiered.store(data)

    assert [await tiered.fetch() for _ in range(3)] == [data] * 3
    assert tiered.downloads() == size
    assert tiered.counts.fills == ["ok"]
    assert tiered.counts.reads == ["miss", "hit", "hit"]


async def test_fifty_readers_of_100_mib_at_once_make_one_download(tmp_path):
    async with cache_world() as world:
        world.stores["artifacts"] = RemoteStore(MemoryStore())
        world._assemble_over_the_same_log()
        tiered = Tiered(world, tmp_path / "tier", 256 * MIB)
        async with tiered.process():
            block = os.urandom(CHUNK_BYTES)
            data = b"".join(b"%08d" % number + block[8:] for number in range(25))
            await tiered.store(data)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            sizes = []

            async def read():
                sent = 0
                async with AsyncExitStack() as stack:
                    artifact = await world.get(tiered.main, parse_key("1"), stack)
                    async for part in artifact.blocks:
                        assert part == data[sent : sent + len(part)]
                        sent += len(part)
                sizes.append(sent)

            async with anyio.create_task_group() as group:
                for _ in range(50):
                    group.start_soon(read)
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

            assert sizes == [len(data)] * 50
            assert tiered.downloads() == len(data)
            assert grown * 1024 < 64 * MIB


async def test_a_slow_reader_holds_up_neither_the_download_nor_other_readers(tiered):
    data = os.urandom(LARGE)
    await tiered.store(data)
    async with AsyncExitStack() as stack:
        slow = await tiered.world.get(tiered.main, parse_key("1"), stack)
        first = await anext(slow.blocks)
        assert await tiered.fetch() == data
        rest = b"".join([block async for block in slow.blocks])
    assert first + rest == data
    assert tiered.downloads() == LARGE


async def stored_artifacts(tiered):
    return {info.name async for info in tiered.remote.list("")}


async def test_the_downloads_of_a_pull_request_keep_main_waiting_for_none_of_its_own(tiered):
    """Whoever has some large artifacts downloaded at once would else slow everybody's."""
    data = os.urandom(LARGE)
    await tiered.store(data)
    ours = await stored_artifacts(tiered)
    contributor = tiered.world.caller(branch="feature")
    for number in range(10):
        await tiered.world.store(contributor, f"large{number}", os.urandom(2 * MIB))
    tiered.remote.halted = await stored_artifacts(tiered) - ours
    tiered.remote.gate = anyio.Event()

    async with anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(tiered.world.fetch, contributor, f"large{number}")
        await until(lambda: len(tiered.tier._works) == 10)
        with anyio.fail_after(30):
            assert await tiered.world.fetch(tiered.main, "1") == data
        tiered.remote.gate.set()


async def test_a_file_of_an_earlier_process_is_found_proved_and_not_downloaded(idle):
    data = os.urandom(LARGE)
    async with idle.process():
        await idle.store(data)
        assert await idle.fetch() == data
    idle.ahead = SETTLED
    async with idle.process():
        assert await idle.fetch() == data
        assert await idle.fetch() == data
        known = idle.world.lists.of(
            (
                await idle.world.catalog.find(
                    idle.world.namespace("demo:branch/main"), parse_key("1")
                )
            ).entry
        )
        assert known.file is not None
    assert idle.downloads() == LARGE


async def test_two_processes_share_what_one_downloaded(idle):
    data = os.urandom(LARGE)
    async with idle.process():
        await idle.store(data)
        other = Tiered(idle.world, idle.path, idle.max_bytes)
        assert await idle.fetch() == data
        async with other.process():
            assert await other.fetch() == data
            assert other.counts.reads == ["hit"]
    assert idle.downloads() == LARGE


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def flip_first(path):
    data = bytearray(path.read_bytes())
    data[0] ^= 0x80
    path.write_bytes(data)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def append(path):
    path.write_bytes(path.read_bytes() + b"\n")


def empty(path):
    path.write_bytes(b"")


def in_place_with_old_times(path):
    before = path.stat()
    with path.open("r+b") as file:
        file.write(b"\xff\xfe")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced_by_a_link(path):
    target = path.with_name("elsewhere")
    target.write_bytes(os.urandom(path.stat().st_size))
    path.unlink()
    path.symlink_to(target)


def replaced_by_a_pipe(path):
    path.unlink()
    os.mkfifo(path)


def replaced_by_a_folder(path):
    path.unlink()
    path.mkdir()


DAMAGE = (
    flip,
    flip_first,
    truncate,
    append,
    empty,
    in_place_with_old_times,
    replaced_by_a_link,
    replaced_by_a_pipe,
    replaced_by_a_folder,
    os.unlink,
)


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("state", ["fresh", "settled", "down"])
async def test_a_local_file_that_was_changed_is_never_served_and_nobody_misses_anything(
    idle, damage, state, log
):
    data = os.urandom(LARGE)
    async with AsyncExitStack() as running:
        await running.enter_async_context(idle.process())
        await idle.store(data)
        await idle.fetch()
        if state == "settled":
            idle.ahead = SETTLED
            assert await idle.fetch() == data
        (path,) = idle.files()
        damage(path)
        if state == "down":
            await running.aclose()
            await running.enter_async_context(idle.process())
        assert await idle.fetch() == data
        assert await idle.fetch() == data
        assert idle.downloads() == 2 * LARGE
        # What is local says nothing about the entry.
        assert [line["event"] for line in log() if line["event"].startswith("artifact")] == []


@pytest.mark.parametrize("damage", [flip, in_place_with_old_times])
async def test_a_file_changed_under_a_reader_costs_a_download_and_no_byte(tiered, damage):
    data = os.urandom(LARGE)
    await tiered.store(data)
    await tiered.fetch()
    tiered.ahead = SETTLED
    await tiered.fetch()
    async with AsyncExitStack() as stack:
        artifact = await tiered.world.get(tiered.main, parse_key("1"), stack)
        received = await anext(artifact.blocks)
        damage(tiered.files()[0])
        received += b"".join([block async for block in artifact.blocks])
    assert received == data


async def test_a_draft_changed_under_its_readers_is_never_served(tiered):
    data = os.urandom(LARGE)
    await tiered.store(data)
    async with AsyncExitStack() as stack:
        artifact = await tiered.world.get(tiered.main, parse_key("1"), stack)
        received = await anext(artifact.blocks)
        for path in [*tiered.drafts(), *tiered.files()]:
            path.write_bytes(os.urandom(LARGE))
        received += b"".join([block async for block in artifact.blocks])
    assert received == data
    assert await tiered.fetch() == data


@pytest.mark.parametrize("at", [0, CHUNK_BYTES + 5, LARGE - 1])
async def test_remote_bytes_that_do_not_verify_condemn_the_entry_and_stay_out(tiered, at, log):
    data = bytearray(os.urandom(LARGE))
    entry = await tiered.store(bytes(data))
    name = layout.artifact(entry.entry_id, entry.stored_at)
    stored = await tiered.remote.inner.get(name, max_bytes=1 << 30)
    wrong = bytearray(data)
    wrong[at] ^= 1
    await tiered.remote.inner.replace(name, bytes(wrong), expected=stored.info.version)
    received = bytearray()
    with pytest.raises(CorruptObject):
        await tiered.receive(received)
    assert len(received) <= at
    assert data.startswith(received)
    with pytest.raises(NotFound):
        await tiered.fetch()
    assert tiered.files() == tiered.drafts() == []
    assert tiered.taken() == 0
    assert [line["event"] for line in log()] == ["artifact.quarantined"]


@pytest.mark.parametrize("nth", [1, 3])
async def test_a_download_that_fails_breaks_off_and_is_never_a_short_answer(tiered, nth):
    data = os.urandom(LARGE)
    entry = await tiered.store(data)
    name = layout.artifact(entry.entry_id, entry.stored_at)
    tiered.remote.plan = FailOnce(Fault.BEFORE, "chunk", name, nth=nth)
    received = bytearray()
    with pytest.raises(StorageUnavailable):
        await tiered.receive(received)
    assert len(received) == (nth - 1) * CHUNK_BYTES
    assert data.startswith(received)
    assert tiered.files() == tiered.drafts() == []
    assert await tiered.fetch() == data


async def test_the_readers_that_joined_get_the_same_end(tiered):
    data = os.urandom(LARGE)
    entry = await tiered.store(data)
    name = layout.artifact(entry.entry_id, entry.stored_at)
    tiered.remote.plan = FailOnce(Fault.BEFORE, "chunk", name, nth=3)
    tiered.remote.gate = anyio.Event()
    ends = []

    async def read():
        try:
            ends.append(len(await tiered.fetch()))
        except StorageUnavailable as error:
            ends.append(error)

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        tiered.remote.gate.set()
    assert [type(end) for end in ends] == [StorageUnavailable] * 5
    # One each: a traceback belongs to one task.
    assert len({id(end) for end in ends}) == 5


async def test_a_download_that_all_have_left_early_stops_and_leaves_nothing(tiered):
    data = os.urandom(LARGE)
    await tiered.store(data)
    tiered.remote.gate = anyio.Event()
    with anyio.move_on_after(0.05):
        await tiered.fetch()
    tiered.remote.gate.set()
    await until(lambda: tiered.counts.fills == ["left"])
    assert tiered.downloads() <= CHUNK_BYTES
    assert tiered.files() == tiered.drafts() == []
    assert tiered.taken() == 0
    assert await tiered.fetch() == data


async def test_a_download_that_has_half_goes_on_without_readers(tiered):
    data = os.urandom(LARGE)
    await tiered.store(data)
    async with AsyncExitStack() as stack:
        artifact = await tiered.world.get(tiered.main, parse_key("1"), stack)
        sent = 0
        async for block in artifact.blocks:
            sent += len(block)
            if sent > LARGE * 2 // 3:
                break
    await until(lambda: tiered.counts.fills == ["ok"])
    assert await tiered.fetch() == data
    assert tiered.downloads() == LARGE


async def test_the_least_used_go_first_and_the_bound_holds(idle):
    idle.max_bytes = 8 * MIB
    bodies = {str(number): os.urandom(MIB + number) for number in range(20)}
    async with idle.process():
        for key, body in bodies.items():
            await idle.store(body, key)
        for key, body in bodies.items():
            assert await idle.fetch(key) == body
            # The first is used again and again, and stays.
            idle.ahead += 100
            assert await idle.fetch("0") == bodies["0"]
            held = sum(path.stat().st_size for path in idle.files())
            assert held <= idle.taken() <= idle.max_bytes
        assert idle.counts.evicted >= 10
    assert idle.remote.opened[max(idle.remote.opened, key=idle.remote.opened.get)] == 1


async def test_a_file_that_is_being_read_is_not_evicted(idle):
    idle.max_bytes = 5 * MIB
    first, second = os.urandom(4 * MIB), os.urandom(4 * MIB)
    async with idle.process():
        await idle.store(first, "1")
        await idle.store(second, "2")
        await idle.fetch("1")
        async with AsyncExitStack() as stack:
            artifact = await idle.world.get(idle.main, parse_key("1"), stack)
            received = await anext(artifact.blocks)
            # There is no room for it now: it is served without.
            assert await idle.fetch("2") == second
            assert idle.counts.reads[-1] == "aside"
            assert len(idle.files()) == 1
            received += b"".join([block async for block in artifact.blocks])
        assert received == first
        assert await idle.fetch("2") == second
        assert idle.counts.fills == ["ok", "aside", "ok"]


async def test_what_is_larger_than_the_whole_tier_is_served_without_it(idle):
    idle.max_bytes = MIB
    data = os.urandom(LARGE)
    async with idle.process():
        await idle.store(data)
        assert await idle.fetch() == data
        assert idle.counts.failed == []
        assert idle.files() == []


async def test_what_a_crash_left_is_swept_and_its_room_is_free_again(idle):
    async with idle.process():
        draft = await idle.folder.begin("0" * 26, 8 * MIB)
        assert idle.taken() == 8 * MIB
    # As the kernel does it when the process dies.
    os.close(draft._fd)
    draft._fd = -1
    async with idle.process():
        assert idle.taken() == 0
        assert idle.drafts() == []


async def test_a_draft_of_a_living_process_is_not_swept(idle):
    async with idle.process():
        draft = await idle.folder.begin("0" * 26, 8 * MIB)
        other = Tiered(idle.world, idle.path, idle.max_bytes)
        async with other.process():
            assert len(idle.drafts()) == 1
            assert idle.taken() == 8 * MIB
        await draft.discard()
        draft.close()
        assert idle.taken() == 0


@pytest.mark.parametrize("found", [b"", b"0\n", b"garbage", b"9" * 30])
async def test_a_lost_or_forged_count_is_made_good(idle, found):
    idle.max_bytes = 3 * MIB
    async with idle.process():
        for key in "1234567":
            await idle.store(os.urandom(MIB), key)
            await idle.fetch(key)
            (idle.path / ".room").write_bytes(found)
        assert idle.counts.failed == []
    async with idle.process():
        assert idle.taken() == sum(path.stat().st_size for path in idle.files())


@pytest.mark.parametrize("mode", [0o777, 0o750, 0o701, 0o720])
async def test_a_folder_that_others_can_open_is_refused(idle, mode):
    idle.path.mkdir()
    idle.path.chmod(mode)
    with pytest.raises(Misconfigured, match="chmod 700"):
        async with idle.process():
            pass


async def test_a_file_in_the_folders_place_is_refused(idle):
    idle.path.write_bytes(b"")
    with pytest.raises(Misconfigured):
        async with idle.process():
            pass


async def test_what_is_not_ours_in_the_folder_is_never_removed(idle):
    idle.max_bytes = 2 * MIB
    idle.path.mkdir(mode=0o700)
    theirs = idle.path / "thesis.txt"
    theirs.write_bytes(b"x" * MIB)
    async with idle.process():
        for key in "1234":
            await idle.store(os.urandom(MIB), key)
            await idle.fetch(key)
    assert theirs.stat().st_size == MIB


class BrokenDisk:
    """A LocalFolder over another one that fails the nth of an operation, and all after it."""

    def __init__(self, inner, operation, nth=1):
        self._inner = inner
        self._operation = operation
        self._nth = nth

    def happen(self, operation):
        if operation == self._operation:
            self._nth -= 1
            if self._nth <= 0:
                raise StorageUnavailable(os.strerror(errno.ENOSPC))

    async def prepare(self):
        self.happen("prepare")
        await self._inner.prepare()

    async def find(self, name):
        self.happen("find")
        return self._wrap(await self._inner.find(name))

    async def begin(self, name, size):
        self.happen("begin")
        return self._wrap(await self._inner.begin(name, size))

    async def close(self):
        await self._inner.close()

    def _wrap(self, file):
        return None if file is None else BrokenFile(file, self)


class BrokenFile:
    def __init__(self, inner, disk):
        self._inner = inner
        self._disk = disk

    @property
    def size(self):
        return self._inner.size

    def identity(self):
        self._disk.happen("identity")
        return self._inner.identity()

    async def read(self, offset, size):
        self._disk.happen("read")
        return await self._inner.read(offset, size)

    async def write(self, offset, data):
        self._disk.happen("write")
        await self._inner.write(offset, data)

    async def publish(self):
        self._disk.happen("publish")
        await self._inner.publish()

    async def discard(self):
        self._disk.happen("discard")
        await self._inner.discard()

    def close(self):
        self._inner.close()


FAULTS = [
    ("find", 1),
    ("begin", 1),
    ("write", 1),
    ("write", 2),
    ("publish", 1),
    ("read", 1),
    ("read", 4),
    ("read", 20),
    ("read", 70),
    ("identity", 1),
    ("discard", 1),
]


@pytest.mark.parametrize(("operation", "nth"), FAULTS)
async def test_a_disk_that_is_full_or_breaks_costs_speed_and_nothing_else(
    idle, operation, nth, log
):
    data = os.urandom(LARGE)
    async with idle.process():
        await idle.store(data)
        disk = BrokenDisk(idle.folder, operation, nth)
        idle.tier._folder = idle.tier._filler._folder = disk
        assert [await idle.fetch() for _ in range(4)] == [data] * 4
        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(idle.fetch)
        told = [line for line in log() if line["event"] == "tier.stepped_aside"]
        assert len(told) == (operation != "discard")
        assert [line["event"] for line in log() if line["level"] == "error"] == []


async def test_a_disk_that_is_full_at_the_start_is_no_reason_not_to_serve(idle, log):
    data = os.urandom(LARGE)
    await idle.store(data)

    async def full():
        raise StorageUnavailable("no space left on device")

    async with AsyncExitStack() as stack:
        process = idle.process()
        original, TierFolder.prepare = TierFolder.prepare, lambda _self: full()
        try:
            await stack.enter_async_context(process)
        finally:
            TierFolder.prepare = original
        assert await idle.fetch() == data
        assert [line["event"] for line in log()] == ["tier.stepped_aside"]


@contextmanager
def largest_file(size):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_the_systems_own_refusal_to_write_leaves_no_trace(tiered):
    data = os.urandom(LARGE)
    await tiered.store(data)
    with largest_file(MIB):
        assert await tiered.fetch() == data
    assert tiered.counts.failed == ["io"]
    assert tiered.files() == tiered.drafts() == []
    assert tiered.taken() == 0


class Storm:
    """Readers that come, dawdle and leave, and what happens to the tier meanwhile."""

    def __init__(self, tiered, source, bodies):
        self.tiered = tiered
        self.source = source
        self.bodies = bodies
        self.whole = 0
        self.ends = set()

    async def read(self, key, patience, *, dawdles):
        received, body = bytearray(), self.bodies[key]
        try:
            async with AsyncExitStack() as stack:
                artifact = await self.tiered.world.get(self.tiered.main, parse_key(key), stack)
                async for block in artifact.blocks:
                    received += block
                    assert body.startswith(received)
                    if len(received) > patience:
                        return
                    if dawdles:
                        await anyio.sleep(0.001)
        except SecureCacheError as error:
            self.ends.add(error.code)
            return
        assert received == body
        self.whole += 1

    def disturb(self):
        kinds = (self.damage, self.damage, self.unlink, self.fault, self.heal, self.age)
        with suppress(FileNotFoundError):
            self.source.choice(kinds)()

    def damage(self):
        kinds = (flip, flip_first, append, in_place_with_old_times, empty)
        found = [*self.tiered.files(), *self.tiered.drafts()]
        if found and (path := self.source.choice(found)).stat().st_size:
            self.source.choice(kinds)(path)

    def unlink(self):
        for path in [*self.tiered.drafts(), *self.tiered.files()][:1]:
            path.unlink()

    def fault(self):
        self.tiered.remote.plan = FailOnce(Fault.BEFORE, "chunk", nth=self.source.randrange(1, 4))

    def heal(self):
        self.tiered.remote.plan = no_faults

    def age(self):
        self.tiered.ahead += self.source.choice([1.0, SETTLED])


@pytest.mark.parametrize("seed", range(12))
async def test_no_reader_gets_a_wrong_byte_in_any_order_of_events(idle, seed):
    source = random.Random(seed)
    idle.max_bytes = source.choice([6, 12, 40]) * MIB
    sizes = [40_000, MIB, CHUNK_BYTES + 9, LARGE]
    bodies = {str(number): source.randbytes(source.choice(sizes)) for number in range(6)}
    storm = Storm(idle, source, bodies)
    async with idle.process():
        for key, body in bodies.items():
            await idle.store(body, key)
    for _ in range(3):
        async with idle.process(), anyio.create_task_group() as group:
            for _ in range(25):
                patience = source.choice([0, MIB, LARGE, LARGE])
                dawdles = source.random() < 0.3
                read = partial(storm.read, source.choice([*bodies]), patience, dawdles=dawdles)
                group.start_soon(read)
                await anyio.sleep(source.choice([0, 0.001, 0.005]))
                storm.disturb()
    storm.heal()
    async with idle.process():
        for key, body in bodies.items():
            assert await idle.fetch(key) == body
        assert sum(path.stat().st_size for path in idle.files()) <= idle.max_bytes
        assert idle.drafts() == []
    assert storm.whole
    assert storm.ends <= {"storage-unavailable"}
