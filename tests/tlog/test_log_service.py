"""The log of a process: appends, sequences, drains, shares its work with other processes."""

import anyio
import pytest
from fakes.faults import Fault, FaultyStore, no_faults
from fakes.log_world import check_log
from fakes.logs import EAGER, SIGNER, finish, new_log, open_log, put_batch, sequencer_of, until

from secure_cache.model.errors import (
    CorruptObject,
    Misconfigured,
    Overloaded,
    StorageUnavailable,
)
from secure_cache.storage.memory import MemoryStore
from secure_cache.tlog.log import LogOptions

pytestmark = pytest.mark.anyio


class SharedTurn:
    """Of several services one at a time has the turn."""

    def __init__(self):
        self.holder = None
        self.taken = 0

    def of(self, name):
        turn = self

        class Mine:
            async def try_take(self):
                if turn.holder is not None:
                    return False
                turn.holder = name
                turn.taken += 1
                return True

            async def keep(self):
                return turn.holder == name

            async def give_back(self):
                assert turn.holder == name
                turn.holder = None

        return Mine()


async def append_many(log, name, count, acked):
    for number in range(count):
        await log.append(b"%s %d" % (name, number))
        acked.append(b"%s %d" % (name, number))


@pytest.mark.parametrize("has_turns", [True, False])
async def test_several_processes_share_one_log(has_turns):
    store, turn, acked = MemoryStore(), SharedTurn(), []
    await new_log(store)
    async with anyio.create_task_group() as group:
        for name in (b"a", b"b", b"c"):
            group.start_soon(work, store, turn.of(name) if has_turns else None, name, acked)
    assert len(acked) == 150
    assert len(await check_log(store, SIGNER, acked=acked)) == 150
    assert turn.holder is None


async def work(store, turn, name, acked):
    log = open_log(store, turn=turn)
    async with log.running(), anyio.create_task_group() as group:
        for client in (b"x", b"y"):
            group.start_soon(append_many, log, name + client, 25, acked)


async def test_a_process_without_the_turn_learns_that_its_entries_are_in():
    store = MemoryStore()
    turn = SharedTurn()
    await new_log(store)
    turn.holder = "somebody"
    log = open_log(store, turn=turn.of("us"))
    async with log.running():
        logged = await log.append(b"entry")
        assert log.owed == 1
        assert await log.index_of(logged) is None
        await finish(sequencer_of(store))
        await until(lambda: not log.owed)
        assert await log.index_of(logged) == 0


async def test_leaving_drains_what_was_acknowledged():
    store = MemoryStore()
    log = await new_log(store, options=LogOptions(commit_seconds=3600, poll_seconds=3600))
    async with log.running():
        for number in range(10):
            await log.append(b"%d" % number)
    assert (await log.published()).size == 10
    with pytest.raises(StorageUnavailable):
        await log.append(b"late")


async def test_a_drain_has_a_deadline_and_what_is_left_is_not_lost():
    store = FaultyStore(MemoryStore())
    told = []
    log = await new_log(
        store,
        options=LogOptions(flush_seconds=0.05, poll_seconds=3600),
        tell=lambda event, facts: told.append((event, facts.get("code"))),
    )
    replace = store.inner.replace
    async with log.running():
        store.inner.replace = lambda *_, **__: anyio.sleep_forever()
        await log.append(b"entry")
    assert ("log.unavailable", "flush") in told
    store.inner.replace = replace
    await finish(sequencer_of(store.inner))
    assert await check_log(store.inner, SIGNER) == [b"entry"]


async def test_what_a_dead_process_left_is_picked_up():
    store = MemoryStore()
    log = await new_log(store)
    await log.published()
    await put_batch(store, 1, [b"orphan"])
    async with log.running():
        await until(lambda: log._publications.newest.checkpoint.size > 0)
    assert await log.entry(0) == b"orphan"


async def test_entries_without_a_place_are_bounded():
    store = FaultyStore(MemoryStore())
    log = await new_log(
        store, options=LogOptions(max_owed=3, commit_seconds=0.001, flush_seconds=0.05)
    )
    store.plan = lambda o: Fault.BEFORE if o.kind == "replace" else None
    async with log.running():
        for number in range(3):
            await log.append(b"%d" % number)
        with pytest.raises(Overloaded):
            await log.append(b"one too many")
        store.plan = lambda _: None
        await until(lambda: not log.owed)
        await log.append(b"3")
    assert await check_log(store.inner, SIGNER) == [b"0", b"1", b"2", b"3"]


async def test_every_commit_is_told_with_its_size():
    told = []
    log = await new_log(tell=lambda event, facts: told.append((event, dict(facts))))
    async with log.running():
        await log.append(b"one")
        await log.flush()
    (facts,) = [facts for event, facts in told if event == "log.committed"]
    assert (facts["size"], facts["entries"]) == (1, 1)
    assert facts["seconds"] >= 0


async def test_the_turn_is_given_back_when_the_store_fails():
    store, turn = FaultyStore(MemoryStore()), SharedTurn()
    log = await new_log(store, turn=turn.of("us"), options=EAGER)
    store.plan = lambda o: Fault.BEFORE if o.name == "checkpoint" else None
    async with anyio.create_task_group() as group:
        group.start_soon(log.run)
        await until(lambda: turn.taken >= 3)
        group.cancel_scope.cancel()
    assert turn.holder is None


@pytest.mark.parametrize("error", [Misconfigured("no container"), CorruptObject("no file")])
async def test_what_a_sweep_meets_is_a_fault_of_the_log_and_ends_no_server(error):
    """Look-ups must go on, whatever became of the store under the log."""
    store, told = FaultyStore(MemoryStore()), []
    log = await new_log(store, tell=lambda event, _: told.append(event))
    store.plan = lambda o: Fault.raising(error) if o.kind == "delete" else None
    async with log.running():
        await log.append(b"one")
        await until(lambda: "log.faulted" in told)
        store.plan = no_faults
        await until(lambda: log.fault is None)
        await log.append(b"two")
    assert len(await check_log(store.inner, SIGNER)) == 2


async def test_an_error_of_the_body_comes_out_as_it_is():
    log = await new_log()
    with pytest.raises(KeyError):
        async with log.running():
            raise KeyError("of the body")


async def test_a_busy_log_does_not_take_its_own_commits_for_a_backlog():
    """There is always something more to sequence, so that nobody rests to count anew."""
    store, owed = MemoryStore(), []

    async def pause(_seconds):
        if len(owed) < 20:
            await put_batch(store, len(owed) + 1, [b"another's %d" % len(owed)])
            owed.append(log.owed)
        else:
            await anyio.sleep(0.001)

    log = await new_log(store, pause=pause)
    async with log.running():
        await log.append(b"ours")
        await until(lambda: len(owed) == 20)
    assert owed[5:] == [0] * 15


async def test_replicas_that_began_together_do_not_ask_the_store_together():
    """What is left to chance is around what was asked for, and nothing when nothing is."""
    for random_bytes, factor in ((lambda n: b"\0" * n, 0.75), (lambda n: b"\xff" * n, 1.25)):
        options = LogOptions(poll_seconds=4.0, spread=0.5)
        log = open_log(MemoryStore(), options=options, random_bytes=random_bytes)
        assert log._spread(4.0) == pytest.approx(4.0 * factor, rel=0.001)
        steady = open_log(MemoryStore(), options=LogOptions(), random_bytes=random_bytes)
        assert steady._spread(4.0) == 4.0
