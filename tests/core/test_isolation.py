"""Promises 1 and 2: what a lower tier writes reaches nobody above it, and blocks nobody."""

import os
from contextlib import AsyncExitStack, aclosing

import anyio
import pytest
from fakes.cache_world import POLICY, cache_world

from secure_cache.model.entry import CHUNK_BYTES
from secure_cache.model.errors import AlreadyExists, Denied, NotFound
from secure_cache.model.names import parse_key

pytestmark = pytest.mark.anyio

POISON, GOOD = b"poison", b"good"


async def test_creep_the_pull_request_writes_first_and_main_still_gets_its_own():
    async with cache_world() as world:
        main, pr = world.caller(branch="main"), world.caller(pull_request="7", base="main")
        await world.store(pr, "123", POISON)
        with pytest.raises(NotFound):
            await world.fetch(main, "123")
        await world.store(main, "123", GOOD)

        assert await world.fetch(main, "123") == GOOD


async def test_mains_entry_is_served_to_the_pull_request_even_beside_its_own():
    async with cache_world() as world:
        main, pr = world.caller(branch="main"), world.caller(pull_request="7", base="main")
        await world.store(pr, "123", POISON)
        assert await world.fetch(pr, "123") == POISON
        await world.store(main, "123", GOOD)

        assert await world.fetch(pr, "123") == GOOD


async def test_pull_requests_do_not_see_each_other():
    async with cache_world() as world:
        await world.store(world.caller(pull_request="7", base="main"), "123", POISON)

        with pytest.raises(NotFound):
            await world.fetch(world.caller(pull_request="8", base="main"), "123")


async def test_a_store_is_refused_only_for_what_stands_in_the_writers_own_namespace():
    async with cache_world() as world:
        main, pr = world.caller(branch="main"), world.caller(pull_request="7", base="main")
        await world.store(main, "123", GOOD)
        await world.store(pr, "123", POISON)

        with pytest.raises(AlreadyExists):
            await world.store(pr, "123", POISON)
        with pytest.raises(AlreadyExists):
            await world.store(main, "123", GOOD)


async def test_a_role_without_write_stores_nothing():
    async with cache_world() as world:
        with pytest.raises(Denied):
            await world.store(world.caller(role="developer"), "123", GOOD)


async def test_of_fifty_writers_of_one_key_exactly_one_succeeds_and_all_read_its_bytes():
    async with cache_world() as world:
        main = world.caller(branch="main")
        outcomes = []

        async def write(number):
            try:
                await world.store(main, "123", b"writer %d" % number)
            except AlreadyExists:
                outcomes.append(None)
            else:
                outcomes.append(number)

        async with anyio.create_task_group() as group:
            for number in range(50):
                group.start_soon(write, number)
        (winner,) = [number for number in outcomes if number is not None]

        assert len(outcomes) == 50
        assert await world.fetch(main, "123") == b"writer %d" % winner


async def test_an_entry_written_before_a_namespace_became_trusted_is_not_trusted():
    async with cache_world() as world:
        world.edit(
            POLICY.replace("branch: main }, tier: trusted", "branch: master }, tier: trusted")
        )
        await world.store(world.caller(branch="main"), "123", POISON)
        world.edit(POLICY)

        with pytest.raises(NotFound):
            await world.fetch(world.caller(branch="main"), "123")


async def test_slow_readers_of_a_pull_requests_artifact_keep_nobody_waiting():
    """Promise 2: whoever takes no bytes holds no place that a trusted reader needs."""
    data = os.urandom(2 * CHUNK_BYTES)
    async with cache_world() as world, AsyncExitStack() as stack:
        main, pr = world.caller(branch="main"), world.caller(pull_request="7", base="main")
        await world.store(pr, "1", POISON * 2_000_000)
        await world.store(main, "2", data)
        with anyio.fail_after(30):
            for _ in range(50):
                slow = await world.get(pr, parse_key("1"), stack)
                blocks = await stack.enter_async_context(aclosing(slow.blocks))
                assert await anext(blocks)

            assert await world.fetch(main, "2") == data
