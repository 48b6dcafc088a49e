"""Without a tier: what is proved once is remembered, and slow clients keep nothing from others."""

import os
from contextlib import AsyncExitStack

import anyio
import pytest
from fakes.cache_world import cache_world
from fakes.remote_store import RemoteStore

from secure_cache.core.places import Places
from secure_cache.model.entry import CHUNK_BYTES
from secure_cache.model.errors import CorruptObject
from secure_cache.model.names import parse_key
from secure_cache.storage import layout
from secure_cache.storage.filesystem import FilesystemStore
from secure_cache.storage.memory import MemoryStore

pytestmark = pytest.mark.anyio

LARGE = 3 * CHUNK_BYTES + 1234


@pytest.fixture
async def world():
    """Over a remote store, with no tier."""
    async with cache_world() as made:
        made.stores["artifacts"] = RemoteStore(MemoryStore())
        made._assemble_over_the_same_log()
        yield made


async def opened(world, stack, key="1"):
    return await world.get(world.caller(branch="main"), parse_key(key), stack)


@pytest.mark.parametrize("readers", [1, 8, 40])
async def test_readers_at_once_of_a_remote_store_each_get_every_byte(world, readers):
    data = os.urandom(LARGE)
    await world.store(world.caller(branch="main"), "1", data)
    found = []

    async def read():
        found.append(await world.fetch(world.caller(branch="main"), "1") == data)

    async with anyio.create_task_group() as group:
        for _ in range(readers):
            group.start_soon(read)
    assert found == [True] * readers
    # One pass each: nothing is read twice to be proved.
    assert sum(world.stores["artifacts"].downloaded.values()) <= readers * LARGE


async def test_clients_that_take_nothing_keep_no_place_from_others_and_still_get_all(world):
    data = os.urandom(LARGE)
    main = world.caller(branch="main")
    await world.store(main, "1", data)
    async with AsyncExitStack() as stack:
        slow = [await opened(world, stack) for _ in range(20)]
        with anyio.fail_after(20):
            assert await world.fetch(main, "1") == data
        for artifact in slow:
            assert b"".join([block async for block in artifact.blocks]) == data


async def test_a_chunk_that_changed_while_its_reader_had_no_place_is_never_sent(world):
    data = os.urandom(LARGE)
    main = world.caller(branch="main")
    entry = await world.store(main, "1", data)
    remote = world.stores["artifacts"]
    places = world.get._sources[0]._places
    async with AsyncExitStack() as stack:
        artifact = await opened(world, stack)
        received = bytearray(await anext(artifact.blocks))
        received += await anext(artifact.blocks)
        for place in [*places._taken]:
            places._take_away(place)
        # As a storage would that keeps its version over other bytes.
        name = layout.artifact(entry.entry_id, entry.stored_at)
        stored = remote.inner._objects[name]
        object.__setattr__(stored, "data", bytes(len(data)))
        with pytest.raises(CorruptObject):
            received.extend(await anext(artifact.blocks))
    assert data.startswith(received)


async def test_the_first_proof_of_a_large_local_file_is_made_once_for_all_who_wait(tmp_path):
    async with cache_world() as world:
        clock = world.clock
        store = FilesystemStore(tmp_path / "artifacts", clock=lambda: clock.now + 1e9)
        await store.check()
        counted = RemoteStore(store)
        world.stores["artifacts"] = counted
        world._assemble_over_the_same_log()
        main = world.caller(branch="main")
        data = os.urandom(LARGE)
        await world.store(main, "1", data)
        counted.local = True

        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(world.fetch, main, "1")
        # Ten transfers, and one proof.
        assert sum(counted.downloaded.values()) == (10 + 1) * LARGE


async def test_a_place_is_taken_only_from_whoever_waits_for_a_client_the_longest():
    places = Places(2)
    async with places.one() as working, places.one() as idle:
        working.chunk = idle.chunk = b"x"
        idle.idle_since = anyio.current_time()
        async with places.one() as third:
            assert idle.chunk is None
            assert working.chunk == b"x"
            third.chunk = b"y"
            with anyio.move_on_after(0.4) as waited:
                async with places.one():
                    pytest.fail("both are at work")
            assert waited.cancelled_caught
        async with places.one():
            assert working.chunk == b"x"
