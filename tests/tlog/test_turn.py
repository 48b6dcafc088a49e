"""The turn that replicas pass on through a store: a hint that no clock and no death can break."""

import random
from pathlib import Path

import anyio
import pytest
from fakes.faults import Fault, FaultyStore
from fakes.log_world import check_log
from fakes.logs import SIGNER, new_log, open_log

from secure_cache.model.errors import StorageForbidden
from secure_cache.storage import layout
from secure_cache.storage.memory import MemoryStore
from secure_cache.tlog.log import LogOptions
from secure_cache.tlog.turn import EXPIRY_SECONDS, StoreTurn

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture(name="play")
def play_on_a_virtual_clock(monkeypatch):
    """Runs an async function; waiting takes no time."""
    monkeypatch.syspath_prepend(str(BENCH))
    from virtual_time import VirtualLoop

    return lambda story: anyio.run(story, backend_options={"loop_factory": VirtualLoop})


def turns(store, count, **arguments):
    source = random.Random(count)
    return [StoreTurn(store, random_bytes=source.randbytes, **arguments) for _ in range(count)]


async def takers(several):
    return [turn for turn in several if await turn.try_take()]


def test_of_many_exactly_one_has_the_turn(play):
    async def story():
        several, taken = turns(MemoryStore(), 20), []

        async def take(turn):
            taken.append(await turn.try_take())

        async with anyio.create_task_group() as group:
            for turn in several:
                group.start_soon(take, turn)
        assert sum(taken) == 1

    play(story)


def test_a_turn_that_is_given_back_is_free_at_once(play):
    async def story():
        first, second = turns(MemoryStore(), 2)
        assert await takers([first, second]) == [first]
        await first.give_back()
        assert await takers([second, first]) == [second]
        assert not await first.keep()

    play(story)


def test_a_holder_that_gives_signs_of_life_keeps_its_turn_for_ever(play):
    async def story():
        holder, *others = turns(MemoryStore(), 5)
        assert await holder.try_take()
        for _ in range(100):
            await anyio.sleep(EXPIRY_SECONDS / 2)
            assert await holder.keep()
            assert not await takers(others)

    play(story)


def test_the_turn_of_a_dead_holder_goes_to_one_other(play):
    async def story():
        dead, *others = turns(MemoryStore(), 5)
        assert await dead.try_take()
        assert not await takers(others)
        await anyio.sleep(EXPIRY_SECONDS - 0.1)
        assert not await takers(others)
        await anyio.sleep(0.2)
        assert len(await takers(others)) == 1

    play(story)


def test_a_holder_that_slept_learns_that_it_lost_its_turn(play):
    async def story():
        asleep, other = turns(MemoryStore(), 2)
        await asleep.try_take()
        await takers([other])
        await anyio.sleep(EXPIRY_SECONDS)
        assert await other.try_take()
        assert not await asleep.keep()
        await asleep.give_back()
        assert await other.keep()

    play(story)


@pytest.mark.parametrize("skew", [-1e6, 1e6])
def test_clocks_that_are_wrong_change_nothing(play, skew):
    """The storage's clock dates the object; no replica compares it, or any other, with its own."""

    async def story():
        holder, other = turns(MemoryStore(clock=lambda: 1e9 + skew), 2)
        assert await holder.try_take()
        for _ in range(10):
            await anyio.sleep(EXPIRY_SECONDS / 2)
            assert await holder.keep()
            assert not await other.try_take()
        await anyio.sleep(EXPIRY_SECONDS)
        assert await other.try_take()

    play(story)


def test_a_sign_of_life_whose_answer_was_lost_does_not_cost_the_turn(play):
    async def story():
        memory = MemoryStore()
        store = FaultyStore(memory)
        (holder,) = turns(store, 1)
        _, other = turns(memory, 2)
        assert await holder.try_take()
        store.plan = lambda operation: Fault.LOST_AFTER if operation.kind == "replace" else None
        assert await holder.keep()
        store.plan = lambda _operation: None
        assert await holder.keep()
        assert await holder.keep()
        assert not await other.try_take()

    play(story)


def test_an_object_that_cannot_be_written_does_not_stop_the_log(play):
    async def story():
        store = FaultyStore(MemoryStore(), lambda _operation: Fault.LOST_BEFORE)
        (turn,) = turns(store, 1)
        assert not await turn.try_take()
        await anyio.sleep(EXPIRY_SECONDS)
        assert await turn.try_take()
        assert not await turn.keep()

    play(story)


def test_a_refusal_of_the_store_is_told(play):
    async def story():
        def refuse(_operation):
            raise StorageForbidden("no")

        (turn,) = turns(FaultyStore(MemoryStore(), refuse), 1)
        with pytest.raises(StorageForbidden):
            await turn.try_take()

    play(story)


@pytest.mark.parametrize("scribble", [b"", b"nobody", b'{"holder":7}', b"\xff" * 100])
def test_what_somebody_scribbled_into_the_object_is_nobodys_turn(play, scribble):
    async def story():
        store = MemoryStore()
        await store.create(layout.TURN, scribble)
        first, second = turns(store, 2)
        assert await takers([first, second]) == [first]

    play(story)


def test_replicas_with_turns_share_a_log_and_survive_the_death_of_whoever_has_it(play):
    async def story():
        store, acked = MemoryStore(), []
        await new_log(store)
        dead, *others = turns(store, 4)
        assert await dead.try_take()

        async def replica(name, turn):
            log = open_log(store, turn=turn, options=LogOptions(poll_seconds=1))
            async with log.running():
                for number in range(20):
                    leaf = b"%d of %d" % (number, name)
                    await log.append(leaf)
                    acked.append(leaf)
                    await anyio.sleep(1)
                assert not log.owed

        async with anyio.create_task_group() as group:
            for name, turn in enumerate(others):
                group.start_soon(replica, name, turn)
        assert len(await check_log(store, SIGNER, acked=acked)) == 60

    play(story)


def test_whoever_has_the_turn_for_ever_and_does_nothing_cannot_stop_the_log(play):
    async def story():
        store = MemoryStore()
        await new_log(store)
        idle, turn = turns(store, 2)
        assert await idle.try_take()
        log = open_log(store, turn=turn)
        async with anyio.create_task_group() as group, log.running():

            async def hold():
                while await idle.keep():  # noqa: ASYNC110 - a beat, no event
                    await anyio.sleep(1)

            group.start_soon(hold)
            await log.append(b"entry")
            await anyio.sleep(20)
            assert log.owed == 1
            await anyio.sleep(20)
            assert log.owed == 0
            assert (await log.published()).size == 1
            group.cancel_scope.cancel()

    play(story)
