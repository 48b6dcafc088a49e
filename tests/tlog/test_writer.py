"""Group commit of pending batches, and the few rules that keep a boot's numbers without gaps."""

import anyio
import anyio.lowlevel
import pytest
from fakes.faults import Fault, FaultyStore
from fakes.logs import BOOT, finish, new_log, put_batch, sequencer_of
from hypothesis import given
from hypothesis import strategies as st

from secure_cache.model.errors import (
    LogInconsistent,
    Malformed,
    Overloaded,
    StorageUnavailable,
)
from secure_cache.storage.memory import MemoryStore
from secure_cache.tlog.backlog import sort_batches
from secure_cache.tlog.head import Head, Mark, empty_head
from secure_cache.tlog.pending import BatchName, decode_batch, encode_batch
from secure_cache.tlog.sequencer import SequencerLimits
from secure_cache.tlog.writer import BOOT_IDLE_SECONDS, PendingWriter, WriterLimits

pytestmark = pytest.mark.anyio


class Clock:
    def __init__(self):
        self.now = 1_700_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store():
    return FaultyStore(MemoryStore())


def writer_of(store, clock, **limits):
    count = iter(range(1, 1000))
    return PendingWriter(
        store,
        clock=clock,
        random_bytes=lambda size: next(count).to_bytes(size, "big"),
        pause=lambda _: anyio.lowlevel.checkpoint(),
        limits=WriterLimits(**limits),
    )


class Running:
    """The writer's task, for the time of a `with`."""

    def __init__(self, writer):
        self.writer = writer
        self.group = anyio.create_task_group()

    async def __aenter__(self):
        await self.group.__aenter__()
        self.group.start_soon(self.writer.run)
        await self.writer.started()
        return self.writer

    async def __aexit__(self, *error):
        self.group.cancel_scope.cancel()
        return await self.group.__aexit__(*error)


def created(store):
    return [o for o in store.operations if o.kind == "create"]


async def append_all(writer, leaves):
    async with anyio.create_task_group() as group:
        for leaf in leaves:
            group.start_soon(writer.append, leaf)


async def test_while_one_batch_is_written_the_next_collects(store, clock):
    gate = anyio.Event()
    create = store.inner.create

    async def slow(name, data):
        await gate.wait()
        return await create(name, data)

    store.inner.create = slow
    async with Running(writer_of(store, clock)) as writer, anyio.create_task_group() as group:
        group.start_soon(writer.append, b"first")
        while not created(store):
            await anyio.lowlevel.checkpoint()
        for number in range(100):
            group.start_soon(writer.append, b"%d" % number)
        await anyio.wait_all_tasks_blocked()
        assert len(created(store)) == 1
        gate.set()
    assert [len(decode_batch(o.data)) for o in created(store)] == [1, 100]


async def test_a_batch_has_bounds_and_positions_follow_the_order(store, clock):
    async with Running(writer_of(store, clock, batch_entries=4, batch_bytes=50)) as writer:
        await append_all(writer, [b"%02d" % n for n in range(10)])
        assert [len(decode_batch(o.data)) for o in created(store)] == [4, 4, 2]
        await append_all(writer, [bytes(40) for _ in range(4)])
        assert [len(decode_batch(o.data)) for o in created(store)][3:] == [2, 2]
    for operation in created(store):
        BatchName.parse(operation.name)
    names = [BatchName.parse(o.name) for o in created(store)]
    assert [name.sequence for name in names] == [1, 2, 3, 4, 5]
    assert len({name.boot for name in names}) == 1


@pytest.mark.parametrize("leaf", [b"", bytes(65_536)])
async def test_an_entry_of_no_size_or_too_large_is_refused(store, clock, leaf):
    async with Running(writer_of(store, clock)) as writer:
        with pytest.raises(Malformed):
            await writer.append(leaf)
        await writer.append(bytes(65_535))


async def test_a_full_queue_refuses(store, clock):
    limits = {"waiting_entries": 3, "batch_entries": 1}
    async with Running(writer_of(store, clock, **limits)) as writer:
        store.inner.create = lambda *_: anyio.sleep_forever()
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(writer.append, b"x")
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(Overloaded):
                await writer.append(b"x")
            assert writer.waiting == 3
            group.cancel_scope.cancel()


async def test_bytes_are_bounded_too(store, clock):
    async with Running(writer_of(store, clock, waiting_bytes=100)) as writer:
        store.inner.create = lambda *_: anyio.sleep_forever()
        async with anyio.create_task_group() as group:
            group.start_soon(writer.append, bytes(100))
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(Overloaded):
                await writer.append(b"x")
            group.cancel_scope.cancel()


@pytest.mark.parametrize("fault", [Fault.LOST_BEFORE, Fault.LOST_AFTER])
async def test_an_unknown_outcome_is_resolved_with_the_same_name_and_bytes(store, clock, fault):
    plans = [fault, fault, None]
    store.plan = lambda o: plans.pop(0) if o.kind == "create" and plans else None
    async with Running(writer_of(store, clock)) as writer:
        logged = await writer.append(b"entry")
    tries = created(store)
    assert len(tries) == 3 if fault is Fault.LOST_BEFORE else len(tries) >= 2
    assert {(o.name, o.data) for o in tries} == {(logged.batch, encode_batch([b"entry"]))}


async def test_a_batch_that_was_sequenced_and_swept_meanwhile_is_acknowledged(store, clock):
    """The reply was lost, the batch was taken in and deleted, then we tried again."""
    plans = [Fault.LOST_AFTER]
    store.plan = lambda o: plans.pop(0) if o.kind == "create" and plans else None
    create = store.inner.create

    async def create_then_sweep(name, data):
        info = await create(name, data)
        if len(created(store)) == 1:
            await store.inner.delete(name)
        return info

    store.inner.create = create_then_sweep
    async with Running(writer_of(store, clock)) as writer:
        await writer.append(b"entry")


async def test_after_a_failure_another_boot_is_used_so_that_no_gap_can_stay(store, clock):
    plans = [None, Fault.BEFORE]
    store.plan = lambda o: plans.pop(0) if o.kind == "create" and plans else None
    async with Running(writer_of(store, clock)) as writer:
        first = BatchName.parse((await writer.append(b"1")).batch)
        with pytest.raises(StorageUnavailable) as caught:
            await writer.append(b"2")
        assert caught.value.applied is False
        third = BatchName.parse((await writer.append(b"3")).batch)
    assert third.boot != first.boot
    assert third.sequence == 1


async def test_an_outcome_that_stays_unknown_is_told_and_the_boot_given_up(store, clock):
    store.plan = lambda o: Fault.LOST_BEFORE if o.kind == "create" else None
    async with Running(writer_of(store, clock, resolve_seconds=-1.0)) as writer:
        with pytest.raises(StorageUnavailable) as caught:
            await writer.append(b"1")
        assert caught.value.applied is None
        store.plan = lambda _: None
        logged = BatchName.parse((await writer.append(b"2")).batch)
    assert logged.sequence == 1
    assert str(logged) != created(store)[0].name


async def test_an_idle_boot_is_not_used_again(store, clock):
    async with Running(writer_of(store, clock)) as writer:
        first = BatchName.parse((await writer.append(b"1")).batch)
        clock.now += BOOT_IDLE_SECONDS - 1
        second = BatchName.parse((await writer.append(b"2")).batch)
        clock.now += BOOT_IDLE_SECONDS + 1
        third = BatchName.parse((await writer.append(b"3")).batch)
    assert (second.boot, second.sequence) == (first.boot, 2)
    assert third.boot != first.boot


async def test_a_machine_that_slept_in_the_middle_does_not_acknowledge(store, clock):
    async with Running(writer_of(store, clock)) as writer:
        create = store.inner.create

        async def sleepy(name, data):
            clock.now += BOOT_IDLE_SECONDS + 1
            return await create(name, data)

        store.inner.create = sleepy
        with pytest.raises(StorageUnavailable) as caught:
            await writer.append(b"1")
        assert caught.value.applied is None


async def test_another_writer_under_our_name_is_an_alarm(store, clock):
    async with Running(writer_of(store, clock)) as writer:
        first = BatchName.parse((await writer.append(b"1")).batch)
        await put_batch(store.inner, 2, [b"forged"], boot=first.boot)
        with pytest.raises(LogInconsistent):
            await writer.append(b"2")


async def test_a_writer_that_does_not_run_refuses_and_a_stopped_one_tells_those_who_wait(
    store, clock
):
    writer = writer_of(store, clock)
    with pytest.raises(StorageUnavailable):
        await writer.append(b"1")
    outcomes = []

    async def append():
        try:
            await writer.append(b"2")
        except StorageUnavailable as error:
            outcomes.append(error.applied)

    async with anyio.create_task_group() as group, Running(writer):
        store.inner.create = lambda *_: anyio.sleep_forever()
        group.start_soon(append)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(append)
        await anyio.wait_all_tasks_blocked()
    assert sorted(outcomes, key=str) == [False, None]
    assert writer.waiting == 0
    with pytest.raises(StorageUnavailable):
        await writer.append(b"3")


async def test_a_cancelled_caller_does_not_take_the_others_down(store, clock):
    async with Running(writer_of(store, clock)) as writer:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await writer.append(b"cancelled")
        await writer.append(b"2")


@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=20))
def test_batches_are_read_back(leaves):
    assert decode_batch(encode_batch(leaves)) == tuple(leaves)


def test_every_flipped_bit_of_a_batch_is_found():
    data = bytearray(encode_batch([b"one", b"two"]))
    for at in range(len(data) * 8):
        data[at // 8] ^= 1 << at % 8
        with pytest.raises(LogInconsistent):
            decode_batch(bytes(data))
        data[at // 8] ^= 1 << at % 8


@pytest.mark.parametrize(
    "name",
    [
        "pending/" + "0" * 32,
        "pending/" + "0" * 32 + "/1",
        "pending/" + "0" * 32 + "/000000000000",
        "pending/" + "A" * 32 + "/000000000001",
        "pending/" + "0" * 31 + "/000000000001",
        "pending/" + "0" * 32 + "/000000000001/x",
        "pending/" + "0" * 32 + "/000000000001\n",
        "other/" + "0" * 32 + "/000000000001",
    ],
)
def test_the_name_of_a_batch_has_one_spelling(name):
    with pytest.raises(Malformed):
        BatchName.parse(name)


def test_of_each_boot_only_what_follows_without_a_gap_is_ready():
    a, b, c = "a" * 32, "b" * 32, "c" * 32
    names = [BatchName(boot, n) for boot, n in ((a, 3), (a, 4), (a, 6), (b, 1), (b, 2), (c, 2))]
    found = sort_batches(names, {a: 3})
    assert found.ready == (
        BatchName(a, 4),
        BatchName(b, 1),
        BatchName(b, 2),
    )
    assert found.spent == (BatchName(a, 3),)
    assert found.stranded == (BatchName(a, 6), BatchName(c, 2))
    assert found.boots == {a, b, c}


def test_boots_take_turns():
    a, b = "a" * 32, "b" * 32
    names = [BatchName(a, n) for n in range(1, 5)] + [BatchName(b, 1)]
    ready = sort_batches(names, {}).ready
    assert ready.index(BatchName(b, 1)) == 1


async def test_a_commit_takes_no_more_than_its_bounds():
    store = MemoryStore()
    await new_log(store)
    for number in range(1, 6):
        await put_batch(store, number, [bytes(1000)])
    sequencer = sequencer_of(store, limits=SequencerLimits(batches=2))
    sizes = []
    while await sequencer.step():
        sizes.append(await size_of(store))
    assert sizes == [2, 4, 5]
    for number in range(6, 9):
        await put_batch(store, number, [bytes(1000)])
    sequencer = sequencer_of(store, limits=SequencerLimits(batch_bytes=1500))
    while await sequencer.step():
        sizes.append(await size_of(store))
    assert sizes == [2, 4, 5, 6, 7, 8]


async def size_of(store):
    stored = await store.get("head", max_bytes=1 << 20)
    return Head.decode(stored.data, origin="cache.example.com/manifest/2026").size


async def test_a_late_re_creation_of_a_sequenced_batch_is_ignored_and_swept():
    store = MemoryStore()
    await new_log(store)
    await put_batch(store, 1, [b"once"])
    await finish(sequencer_of(store))
    name = await put_batch(store, 1, [b"once"])
    await finish(sequencer_of(store))
    assert await size_of(store) == 1
    assert [info.name async for info in store.list("pending/")] == []
    assert name


async def test_idle_boots_are_forgotten_only_after_a_day_and_not_while_anything_is_pending():
    store, clock = MemoryStore(), Clock()
    await new_log(store)
    sequencer = sequencer_of(store, clock=clock)

    async def consumed():
        stored = await store.get("head", max_bytes=1 << 20)
        return set(Head.decode(stored.data, origin="cache.example.com/manifest/2026").consumed)

    await put_batch(store, 1, [b"1"])
    await finish(sequencer)
    clock.now += 24 * 3600 - 1
    await put_batch(store, 1, [b"2"], boot="f" * 32)
    await finish(sequencer)
    assert await consumed() == {BOOT, "f" * 32}
    clock.now += 2
    await put_batch(store, 3, [b"gap"], boot=BOOT)
    await put_batch(store, 1, [b"3"], boot="e" * 32)
    await finish(sequencer)
    assert BOOT in await consumed()
    await store.delete(str(BatchName(BOOT, 3)))
    await put_batch(store, 1, [b"4"], boot="d" * 32)
    await finish(sequencer)
    assert await consumed() == {"d" * 32, "e" * 32, "f" * 32}


async def test_a_sequencer_that_slept_after_its_look_forgets_no_boot_that_was_alive():
    """Found by the simulation: a batch written after the look was stranded."""
    store, clock = FaultyStore(MemoryStore()), Clock()
    await new_log(store)
    sequencer = sequencer_of(store, clock=clock)
    await put_batch(store, 1, [b"1"])
    await finish(sequencer)
    await put_batch(store, 1, [b"other"], boot="f" * 32)
    get = store.inner.get

    async def sleepy(name, *, max_bytes):
        if name.startswith("pending/" + "f" * 32):
            await put_batch(store.inner, 2, [b"2"])
            clock.now += 30 * 3600
        return await get(name, max_bytes=max_bytes)

    store.inner.get = sleepy
    await sequencer.step()
    store.inner.get = get
    await finish(sequencer)
    assert await size_of(store.inner) == 3


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"v":1', b'"v":2'),
        (b'"v":1', b'"v":1,"v":1'),
        (b'"v":1', b'"x":1,"v":1'),
        (b'"v":1,', b'"v": 1,'),
        (b'"size":0', b'"size":1'),
        (b'"size":0', b'"size":-1'),
        (b'"size":0', b'"size":0.0'),
        (b'"batches":[]', b'"batches":[["pending/x",1]]'),
        (b'"batches":[]', b'"batches":[1]'),
        (b'"consumed":{}', b'"consumed":{"a":[1,1],"a":[1,1]}'),
        (b'"origin":"o"', b'"origin":"p"'),
        (b"{", b"[{"),
    ],
)
def test_a_head_in_any_other_form_is_refused(old, new):
    data = empty_head("o", commit="0" * 32, at=1).encode()
    assert Head.decode(data, origin="o").size == 0
    assert old in data
    with pytest.raises(LogInconsistent):
        Head.decode(data.replace(old, new, 1), origin="o")


def test_a_mark_is_kept_as_written():
    head = Head(
        origin="o",
        size=1,
        root=bytes(32),
        prev_size=0,
        prev_root=empty_head("o", commit="", at=0).root,
        batches=(),
        consumed={"a": Mark(1, 2)},
        commit="0" * 32,
        at=1,
    )
    with pytest.raises(LogInconsistent, match="add up"):
        Head.decode(head.encode(), origin="o")
