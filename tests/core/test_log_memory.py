"""A log put back to an older state, or replaced, is noticed by what another store remembers."""

import copy

import pytest
from fakes.cache_world import World, cache_world

from secure_cache.core.log_memory import LogMemory
from secure_cache.core.reconcile import unlogged_records
from secure_cache.model.errors import LogInconsistent
from secure_cache.storage import layout
from secure_cache.tlog.published import LogReader

pytestmark = pytest.mark.anyio


def memory(world):
    signer = world.note_signer
    reader = LogReader(
        tiles=world.stores["tiles"],
        head=world.stores["head"],
        pending=world.stores["pending"],
        verifiers=[signer.verifier],
        origin=signer.name,
    )
    return LogMemory(
        state=world.stores["state"], log=reader, verifier=signer.verifier, origin=signer.name
    )


async def grow(world, *keys):
    for key in keys:
        await world.store(world.caller(branch="main"), key, b"data")
    await world.log.flush()


def snapshot(world):
    return {name: copy.deepcopy(world.stores[name].inner) for name in ("tiles", "head", "pending")}


async def test_a_log_that_grows_is_fine():
    async with cache_world() as world:
        await memory(world).check()
        await memory(world).remember()
        await memory(world).check()
        await grow(world, "1", "2")
        await memory(world).check()
        await memory(world).remember()
        await grow(world, "3")

        await memory(world).check()


async def test_yesterdays_log_with_yesterdays_checkpoint_is_refused():
    async with cache_world() as world:
        await grow(world, "1")
        yesterday = snapshot(world)
        await grow(world, "2")
        await memory(world).remember()
    for name, store in yesterday.items():
        world.stores[name].inner = store

    with pytest.raises(LogInconsistent, match="put back to an older state"):
        await memory(world).check()


async def test_another_history_of_the_same_length_is_refused():
    async with cache_world() as world:
        await grow(world, "1", "2")
        await memory(world).remember()
        state = world.stores["state"]
    async with cache_world() as other:
        other.stores["state"] = state
        await grow(other, "3", "4", "5")

        with pytest.raises(LogInconsistent):
            await memory(other).check()


async def test_memory_never_goes_back():
    async with cache_world() as world:
        await grow(world, "1")
        yesterday = snapshot(world)
        await grow(world, "2")
        await memory(world).remember()
    newest = (await world.stores["state"].get(layout.SEEN_CHECKPOINT, max_bytes=9999)).data
    for name, store in yesterday.items():
        world.stores[name].inner = store
    await memory(world).remember()

    assert (await world.stores["state"].get(layout.SEEN_CHECKPOINT, max_bytes=9999)).data == newest


async def test_memory_that_was_tampered_with_is_refused():
    async with cache_world() as world:
        await grow(world, "1")
        await world.stores["state"].create(layout.SEEN_CHECKPOINT, b"nothing\n")

        with pytest.raises(LogInconsistent):
            await memory(world).check()


async def findings(world):
    return await unlogged_records(
        records=world.stores["records"], pending=world.stores["pending"], log=world.log
    )


async def test_every_record_is_in_the_log_or_waits_for_it():
    async with cache_world() as world:
        await world.store(world.caller(branch="main"), "1", b"data")
        assert await findings(world) == ()
        await grow(world, "2")

        assert await findings(world) == ()


async def test_a_record_whose_entry_is_in_no_log_is_found():
    async with cache_world() as world:
        await grow(world, "1")
        yesterday = snapshot(world)
        await grow(world, "2")
    for name, store in yesterday.items():
        world.stores[name].inner = store
    world.log = World(stores=world.stores, key=world.key).log
    (finding,) = await findings(world)

    assert "in no log" in finding.problem
    assert finding.path.startswith("records/demo/branch/")


async def test_a_damaged_record_is_found():
    async with cache_world() as world:
        await grow(world, "1")
        await world.stores["records"].create("demo/branch/x/y", b"{}")
        (finding,) = await findings(world)

        assert finding.path == "records/demo/branch/x/y"
