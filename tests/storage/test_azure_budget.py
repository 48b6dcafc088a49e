"""Memory has one bound for all transfers of a process, and nobody waits for anybody else's."""

from contextlib import aclosing

import anyio
import anyio.lowlevel
import pytest
from fakes.azure import account_of, azure_store, shared_container
from hypothesis import given
from hypothesis import strategies as st
from world.fault_proxy import FaultProxy
from world.wire_faults import Hold

from secure_cache.model.digest import Digest
from secure_cache.model.errors import Overloaded
from secure_cache.storage.azure_blob.budget import ByteBudget
from secure_cache.storage.azure_blob.retry import StorageCall, Timing
from secure_cache.storage.azure_blob.upload import BLOCK_BYTES, SMALLEST_BLOCK_BYTES

pytestmark = pytest.mark.anyio

KIB = 1024
MIB = 1024 * KIB


@pytest.fixture
def proxy(azurite):
    with FaultProxy(azurite.port) as proxy:
        yield proxy


def body_of(number: int, size: int) -> bytes:
    return bytes([number]) * size


async def upload(store, name: str, body: bytes, piece: int = 100_000) -> None:
    async with store.begin_upload(name) as incoming:
        for start in range(0, len(body), piece):
            await incoming.write(body[start : start + piece])
            await anyio.lowlevel.checkpoint()
        await incoming.commit(size=len(body), digest=Digest.of(body))


async def read(store, name: str, size: int = 262_144) -> bytes:
    async with store.open(name) as reading, aclosing(reading.chunks(size=size)) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def test_many_uploads_share_a_little_memory_and_all_arrive(azurite, proxy):
    most: list[int] = []
    account = account_of(
        azurite,
        port=proxy.port,
        upload_bytes=4 * MIB,
        tell=lambda _: most.append(account.uploads.used),
    )
    store = account.store(shared_container(azurite), "budget-up/", name="s")
    bodies = {f"u/{number}": body_of(number, 3 * MIB) for number in range(10)}
    async with anyio.create_task_group() as tasks:
        for name, body in bodies.items():
            tasks.start_soon(upload, store, name, body)
    for name, body in bodies.items():
        assert (await store.get(name, max_bytes=len(body))).data == body
        assert await store.delete(name)
    # Above the limit there is only what a transfer cannot do without.
    assert max(most) <= 4 * MIB + len(bodies) * SMALLEST_BLOCK_BYTES
    assert account.uploads.used == 0
    sizes = [int(seen.headers["content-length"]) for seen in proxy.seen(comp="block")]
    # The last block of each is what was left.
    assert sum(size < SMALLEST_BLOCK_BYTES for size in sizes) <= len(bodies)
    assert max(sizes) < BLOCK_BYTES
    await account.close()


async def test_a_lone_upload_uses_whole_blocks(azurite, proxy):
    store = azure_store(azurite, port=proxy.port)
    await upload(store, "a", body_of(1, 10 * MIB), piece=1_000_000)
    sizes = [int(seen.headers["content-length"]) for seen in proxy.seen(comp="block")]
    assert sorted(sizes) == [2 * MIB, 4 * MIB, 4 * MIB]
    await store.close()


async def test_an_upload_whose_client_sleeps_keeps_nobody_waiting(azurite):
    account = account_of(azurite, upload_bytes=4 * MIB)
    store = account.store(shared_container(azurite), "budget-sleep/", name="s")
    async with store.begin_upload("sleeper") as asleep:
        await asleep.write(body_of(1, BLOCK_BYTES - 1))
        assert account.uploads.used == 4 * MIB
        with anyio.fail_after(60):
            await upload(store, "other", body_of(2, 3 * MIB))
    assert account.uploads.used == 0
    assert await store.delete("other")
    await account.close()


async def test_a_slow_client_gives_its_large_block_back(azurite):
    now = [0.0]
    account = account_of(azurite, timing=Timing(monotonic=lambda: now[0]))
    store = account.store(shared_container(azurite), "budget-slow/", name="s")
    async with store.begin_upload("slow") as incoming:
        await incoming.write(body_of(1, 300 * KIB))
        assert account.uploads.used == 512 * KIB
        now[0] += 3
        await incoming.write(b"x")
        await incoming._drain()
        assert account.uploads.used == 0
    await account.close()


async def test_beyond_twice_the_limit_new_bodies_are_refused_and_the_others_go_on(azurite):
    account = account_of(azurite, upload_bytes=256 * KIB)
    store = account.store(shared_container(azurite), "budget-hard/", name="s")
    async with store.begin_upload("one") as one, store.begin_upload("two") as two:
        await one.write(b"1")
        await two.write(b"2")
        with pytest.raises(Overloaded):
            await upload(store, "three", b"3")
        await one.commit(size=1)
        await two.commit(size=1)
    assert account.uploads.used == 0
    assert await store.delete("one")
    assert await store.delete("two")
    await account.close()


async def test_blocks_wait_for_the_storage_and_the_client_for_them(azurite, proxy):
    """Back-pressure: three blocks under way and one that fills, and no more is taken."""
    store = azure_store(azurite, port=proxy.port)
    rule = proxy.when(Hold(), comp="block")
    body, taken = body_of(1, 32 * MIB), 0
    async with anyio.create_task_group() as tasks:

        async def send() -> None:
            nonlocal taken
            async with store.begin_upload("a") as incoming:
                for start in range(0, len(body), MIB):
                    await incoming.write(body[start : start + MIB])
                    taken += MIB
                await incoming.commit(size=len(body))

        tasks.start_soon(send)
        await anyio.to_thread.run_sync(rule.wait_hit)
        for _ in range(200):
            await anyio.sleep(0.001)
        assert taken <= 4 * BLOCK_BYTES
        assert store._uploads.used <= 4 * BLOCK_BYTES
        rule.release()
    assert (await store.head("a")).size == len(body)
    await store.close()


async def test_readers_without_memory_read_a_little_at_a_time(azurite, proxy):
    body = bytes(range(256)) * (20 * KIB)
    calls: list[StorageCall] = []
    account = account_of(azurite, port=proxy.port, read_ahead_bytes=2 * MIB, tell=calls.append)
    store = account.store(shared_container(azurite), "budget-down/", name="s")
    await upload(store, "a", body, piece=1_000_000)
    got: list[bool] = []
    assert account.read_ahead.try_take(2 * MIB)

    async def check() -> None:
        got.append(await read(store, "a") == body)

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(check)
    assert got == [True] * 4
    assert account.read_ahead.used == 2 * MIB
    ranges = [seen.headers["x-ms-range"] for seen in proxy.seen(method="GET")]
    lengths = {1 + int(b) - int(a) for a, b in (text[6:].split("-") for text in ranges)}
    assert max(lengths) <= 256 * KIB
    assert await store.delete("a")
    await account.close()


async def test_a_reader_whose_client_sleeps_keeps_nobody_waiting(azurite):
    account = account_of(azurite, read_ahead_bytes=8 * MIB)
    store = account.store(shared_container(azurite), "budget-nap/", name="s")
    body = body_of(1, 20 * MIB)
    await upload(store, "a", body, piece=1_000_000)
    async with store.open("a") as reading, aclosing(reading.chunks()) as sleeper:
        for _ in range(30):
            await anext(sleeper)
        with anyio.fail_after(60):
            assert await read(store, "a") == body
    assert account.read_ahead.used == 0
    assert await store.delete("a")
    await account.close()


async def test_a_transfer_that_has_begun_waits_for_memory_and_does_not_break(azurite):
    """To Nx a transfer that breaks is a failed build, whoever holds the memory meanwhile."""
    account = account_of(azurite, read_ahead_bytes=MIB)
    store = account.store(shared_container(azurite), "budget-begun/", name="s")
    body, got = bytes(range(256)) * (12 * KIB), []
    await upload(store, "a", body, piece=1_000_000)

    async def read_on(chunks) -> None:
        got.extend([chunk async for chunk in chunks])

    assert account.read_ahead.try_take(MIB)
    async with store.open("a") as reading, aclosing(reading.chunks()) as chunks:
        got.append(await anext(chunks))
        others = 2 * MIB - account.read_ahead.used
        account.read_ahead.take_needed(others)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read_on, chunks)
            await anyio.sleep(0.2)
            assert len(got) == 1
            account.read_ahead.give_back(others)
    assert b"".join(got) == body
    assert account.read_ahead.used == MIB
    assert await store.delete("a")
    await account.close()


async def test_memory_that_never_comes_ends_a_transfer_in_the_end(azurite):
    now = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    timing = Timing(monotonic=lambda: now, sleep=sleep)
    account = account_of(azurite, read_ahead_bytes=MIB, timing=timing)
    store = account.store(shared_container(azurite), "budget-never/", name="s")
    await upload(store, "a", body_of(1, 2 * MIB), piece=1_000_000)
    assert account.read_ahead.try_take(MIB)
    async with store.open("a") as reading, aclosing(reading.chunks()) as chunks:
        await anext(chunks)
        account.read_ahead.take_needed(2 * MIB - account.read_ahead.used)
        with pytest.raises(Overloaded):
            await anext(chunks)
    assert now > 10
    assert await store.delete("a")
    await account.close()


async def test_who_waits_for_his_client_holds_no_memory_beyond_the_limit(azurite):
    account = account_of(azurite, read_ahead_bytes=MIB)
    store = account.store(shared_container(azurite), "budget-slow/", name="s")
    await upload(store, "a", body_of(1, 3 * MIB), piece=1_000_000)
    assert account.read_ahead.try_take(MIB)
    async with store.open("a") as reading, aclosing(reading.chunks()) as chunks:
        for _ in range(3):
            assert len(await anext(chunks)) == 256 * KIB
            assert account.read_ahead.used == MIB
    async with store.open("a") as reading:
        for _ in range(2):
            async with aclosing(reading.chunks(size=MIB)) as chunks:
                assert b"".join([chunk async for chunk in chunks]) == body_of(1, 3 * MIB)
    assert account.read_ahead.used == MIB
    assert await store.delete("a")
    await account.close()


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 50)), max_size=60))
def test_a_budget_never_exceeds_its_bounds(steps):
    budget = ByteBudget(100)
    held: list[int] = []
    for needed, count in steps:
        if held and count % 3 == 0:
            budget.give_back(held.pop())
        elif needed:
            try:
                budget.take_needed(count)
            except Overloaded:
                assert budget.used + count > 200
            else:
                held.append(count)
        elif budget.try_take(count):
            assert budget.used <= 100
            held.append(count)
    assert budget.used == sum(held) <= 200
