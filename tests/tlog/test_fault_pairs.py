"""Each write of a commit fails before and after taking effect; then the whole log is checked."""

import copy

import pytest
from fakes.faults import MUTATION_FAULTS, FailOnce, FaultyStore
from fakes.log_world import check_log
from fakes.logs import SIGNER, finish, grown_log, put_batch, sequencer_of

from secure_cache.model.errors import Unavailable
from secure_cache.storage.memory import MemoryStore

pytestmark = pytest.mark.anyio

WRITES = [
    ("replace", "head"),
    ("create", "tile/0/"),
    ("create", "tile/entries/"),
    ("create", "tile/1/"),
    ("create", "commit/"),
    ("replace", "checkpoint"),
    ("delete", "pending/"),
    ("delete", "tile/entries/"),
    ("delete", "tile/0/"),
]
READS = [
    ("get", "head"),
    ("get_if_changed", "checkpoint"),
    ("get", "tile/"),
    ("list", "pending/"),
    ("get", "pending/"),
    ("list", "tile/"),
]


@pytest.fixture(scope="module")
def base():
    """A log of 254 entries, so that the next commits cross the border of a tile."""
    import anyio

    async def make():
        store = MemoryStore()
        await grown_log(store, (200, 254), entry=lambda i: b"old %d" % i)
        return store

    return anyio.run(make)


@pytest.fixture
def store(base):
    return FaultyStore(copy.deepcopy(base))


async def step_until_quiet(sequencer):
    for _ in range(20):
        try:
            if not await sequencer.step():
                return
        except Unavailable:
            continue
    pytest.fail("the sequencer does not come to rest")


@pytest.mark.parametrize("fault", MUTATION_FAULTS, ids=["before", "lost before", "lost after"])
@pytest.mark.parametrize("write", WRITES, ids="-".join)
@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("then", ["goes on", "reloads", "another replica", "more entries"])
async def test_a_failed_write_costs_nothing(store, write, nth, fault, then):
    acked = [b"new %d" % i for i in range(3)]
    await put_batch(store, 1, acked)
    plan = FailOnce(fault, *write, nth=nth)
    store.plan = plan
    sequencer = sequencer_of(store)
    try:
        await sequencer.step()
    except Unavailable:
        assert plan.happened
    await check_log(store.inner, SIGNER, acked=[b"old 253"])
    if then == "more entries":
        acked.append(b"more")
        await put_batch(store, 2, [b"more"])
    if then in ("reloads", "another replica"):
        sequencer = sequencer_of(store)
    await step_until_quiet(sequencer)
    entries = await check_log(store.inner, SIGNER, acked=acked)
    assert len(entries) == 254 + len(acked)


@pytest.mark.parametrize(("kind", "prefix"), WRITES)
async def test_a_write_that_fails_again_and_again_costs_nothing(store, kind, prefix):
    await put_batch(store, 1, [b"new 1", b"new 2", b"new 3"])
    for fault in MUTATION_FAULTS * 2:
        store.plan = FailOnce(fault, kind, prefix)
        try:
            await sequencer_of(store).step()
        except Unavailable:
            assert store.plan.happened
        await check_log(store.inner, SIGNER)
    store.plan = lambda _: None
    await finish(sequencer_of(store))
    entries = await check_log(store.inner, SIGNER, acked=[b"new 1", b"new 2", b"new 3"])
    assert len(entries) == 257


@pytest.mark.parametrize(("kind", "prefix"), READS)
@pytest.mark.parametrize("nth", [1, 2, 3])
async def test_a_failed_read_costs_nothing(store, kind, prefix, nth):
    await put_batch(store, 1, [b"new 1", b"new 2", b"new 3"])
    store.plan = FailOnce(MUTATION_FAULTS[0], kind, prefix, nth=nth)
    sequencer = sequencer_of(store)
    await step_until_quiet(sequencer)
    await put_batch(store, 2, [b"more"])
    await step_until_quiet(sequencer)
    assert len(await check_log(store.inner, SIGNER, acked=[b"new 1", b"more"])) == 258


class Killed(BaseException):
    """The process is no more; nothing catches it."""


async def test_kill_9_at_every_single_operation_loses_nothing(base):
    """A crash at each request in turn, before and after its effect, then a restart."""
    number, was_killed = 0, True
    while was_killed:
        number += 1
        was_killed = False
        for after in (False, True):
            store = FaultyStore(copy.deepcopy(base))
            await put_batch(store, 1, [b"new 1", b"new 2", b"new 3"])
            store.operations.clear()
            store.plan = kill_at(number, after=after)
            try:
                await finish(sequencer_of(store))
            except (Killed, BaseExceptionGroup):
                was_killed = True
            store.plan = lambda _: None
            await check_log(store.inner, SIGNER)
            await finish(sequencer_of(store))
            entries = await check_log(store.inner, SIGNER, acked=[b"new 1", b"new 2", b"new 3"])
            assert len(entries) == 257
    assert number > 15


def kill_at(number, *, after):
    from fakes.faults import Fault

    def plan(operation):
        return Fault.raising(Killed(), after=after) if operation.number == number else None

    return plan
