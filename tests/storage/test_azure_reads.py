"""Reading from Azure when the network or the storage fails, and listing."""

import gc
from contextlib import aclosing
from dataclasses import replace

import anyio
import pytest
from fakes.azure import QUICK, account_of, azure_store, fresh_prefix, shared_container
from world.fault_proxy import FaultProxy
from world.wire_faults import Answer, CutAnswer, Hang, Reset, azure_error

from secure_cache.model.errors import (
    Misconfigured,
    NotFound,
    StorageForbidden,
    StorageUnavailable,
    VersionMismatch,
)
from secure_cache.storage.azure_blob.container import total_size
from secure_cache.storage.azure_blob.options import Effort
from secure_cache.storage.azure_blob.reading import FIRST_BYTES

pytestmark = pytest.mark.anyio

BIG = bytes(range(256)) * 40_000

TRANSIENT = {
    "reset": Reset(),
    "silence": Hang(30),
    "busy": azure_error(503, "ServerBusy"),
    "throttled": Answer(429),
    "internal": azure_error(500, "InternalError"),
    "gateway": Answer(504),
}

ANSWERED = {name: fault for name, fault in TRANSIENT.items() if name != "silence"}


@pytest.fixture
def proxy(azurite):
    with FaultProxy(azurite.port) as proxy:
        yield proxy


@pytest.fixture
async def store(azurite, proxy):
    store = azure_store(azurite, port=proxy.port)
    yield store
    await store.close()
    assert store._read_ahead.used == 0


async def read(store, name: str, **where: int) -> bytes:
    async with store.open(name) as reading, aclosing(reading.chunks(**where)) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def names(store, prefix: str = "") -> list[str]:
    return [info.name async for info in store.list(prefix)]


@pytest.mark.parametrize("fault", TRANSIENT.values(), ids=TRANSIENT)
async def test_a_read_that_failed_once_succeeds(store, proxy, fault):
    info = await store.create("a", b"hello")
    rules = []

    def once() -> None:
        proxy.clear()
        rules.append(proxy.when(fault, times=1))

    once()
    assert await store.head("a") == info
    once()
    assert (await store.get("a", max_bytes=9)).data == b"hello"
    once()
    assert await read(store, "a") == b"hello"
    once()
    assert await names(store) == ["a"]
    assert [rule.hits for rule in rules] == [1, 1, 1, 1]


@pytest.mark.parametrize("fault", ANSWERED.values(), ids=ANSWERED)
async def test_a_read_that_always_fails_is_an_outage_and_never_a_miss(store, proxy, fault):
    proxy.when(fault)
    for call in (store.head("a"), store.get("a", max_bytes=9), read(store, "a"), names(store)):
        with pytest.raises(StorageUnavailable) as caught:
            await call
        assert caught.value.applied is False


async def test_a_silent_storage_is_given_up_on_and_never_a_miss(azurite, proxy):
    patience = replace(QUICK, small_read=Effort(0.4, 0.2, 9))
    store = azure_store(azurite, port=proxy.port, patience=patience)
    proxy.when(Hang(30))
    with pytest.raises(StorageUnavailable):
        await store.get("a", max_bytes=9)
    assert len(proxy.requests) > 1
    await store.close()


@pytest.mark.parametrize("how", ["reset", "fin", "stall"])
async def test_a_transfer_that_breaks_in_the_middle_goes_on(store, proxy, how):
    await store.create("a", BIG)
    # The second range, in its middle; the first bytes come whole.
    rule = proxy.when(CutAnswer(1_000_000, how, seconds=30), method="GET", skip=1, times=1)
    assert await read(store, "a") == BIG
    assert rule.hits == 1


async def test_a_small_object_whose_bytes_break_off_is_read_again(store, proxy):
    await store.create("a", b"x" * 10_000)
    rule = proxy.when(CutAnswer(100), method="GET", times=1)
    assert (await store.get("a", max_bytes=10_000)).data == b"x" * 10_000
    assert rule.hits == 1


async def test_a_transfer_that_can_not_go_on_is_an_outage(store, proxy):
    await store.create("a", BIG)
    async with store.open("a") as reading, aclosing(reading.chunks()) as chunks:
        assert await anext(chunks) == BIG[:FIRST_BYTES]
        proxy.refuse()
        with pytest.raises(StorageUnavailable):
            [chunk async for chunk in chunks]
    proxy.accept()


async def test_what_is_deleted_while_it_is_read_is_not_taken_for_a_miss(store):
    await store.create("a", BIG)
    async with store.open("a") as reading:
        assert await store.delete("a")
        with pytest.raises(VersionMismatch):
            [chunk async for chunk in reading.chunks()]


async def test_a_small_object_costs_one_request(store, proxy):
    await store.create("a", b"hello")
    proxy.clear()
    assert await read(store, "a") == b"hello"
    assert len(proxy.requests) == 1


async def test_the_first_range_is_small_and_the_others_are_of_one_version(store, proxy):
    info = await store.create("a", BIG)
    proxy.clear()
    assert await read(store, "a", size=4_194_304) == BIG
    ranges = [seen.headers["x-ms-range"] for seen in proxy.requests]
    assert ranges == [
        "bytes=0-262143",
        "bytes=262144-4194303",
        "bytes=4194304-8388607",
        f"bytes=8388608-{len(BIG) - 1}",
    ]
    assert {seen.headers.get("if-match") for seen in proxy.requests[1:]} == {info.version}


@pytest.mark.parametrize("offset", [0, 1, 262_143, 262_144, 5_000_000, 10_239_999, 10_240_000])
async def test_a_read_may_begin_anywhere(store, offset):
    await store.create("a", BIG)
    assert await read(store, "a", offset=offset, size=1_000_000) == BIG[offset:]


async def test_an_abandoned_read_leaves_no_task_and_no_memory(store):
    await store.create("a", BIG)
    before = len(anyio.get_running_tasks())
    for _ in range(5):
        async with store.open("a") as reading, aclosing(reading.chunks(size=1000)) as chunks:
            for _ in range(300):
                await anext(chunks)
    assert len(anyio.get_running_tasks()) == before
    assert store._read_ahead.used == 0
    gc.collect()


async def test_an_iterator_that_was_left_open_ends_with_its_reading(store):
    await store.create("a", BIG)
    before = len(anyio.get_running_tasks())
    async with store.open("a") as reading:
        chunks = reading.chunks()
        for _ in range(3):
            await anext(chunks)
        assert store._read_ahead.used > 0
    assert store._read_ahead.used == 0
    assert len(anyio.get_running_tasks()) == before
    await chunks.aclose()
    assert store._read_ahead.used == 0


async def test_a_cancelled_read_leaves_no_task_and_no_memory(store, proxy):
    await store.create("a", BIG)
    rule = proxy.when(Hang(30), method="GET", skip=1)
    before = len(anyio.get_running_tasks())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read, store, "a")
        await anyio.to_thread.run_sync(rule.wait_hit)
        assert store._read_ahead.used > 0
        tasks.cancel_scope.cancel()
    assert len(anyio.get_running_tasks()) == before
    assert store._read_ahead.used == 0
    gc.collect()


async def test_given_up_reads_do_not_use_up_the_connections(azurite):
    """The SDK keeps the connection of an answer whose reading was cancelled."""
    with FaultProxy(azurite.port) as proxy:
        store = azure_store(azurite, port=proxy.port, connections=2)
        await store.create("a", b"x" * 100_000)
        gc.disable()
        try:
            proxy.when(CutAnswer(50_000, "stall", seconds=30), method="GET", times=6)
            for _ in range(6):
                with anyio.move_on_after(0.05):
                    await store.get("a", max_bytes=100_000)
            assert (await store.get("a", max_bytes=100_000)).info.size == 100_000
        finally:
            gc.enable()
            await store.close()


async def test_a_closed_account_has_no_socket_left(azurite_oauth):
    """Under TLS a connection that is given up in the middle says goodbye for half a minute."""
    account = account_of(azurite_oauth)
    store = account.store(shared_container(azurite_oauth), fresh_prefix(), name="s")
    await store.create("a", BIG)
    for _ in range(3):
        async with store.open("a") as reading, aclosing(reading.chunks()) as chunks:
            for _ in range(3):
                await anext(chunks)
    sockets = [*account._session._sockets._open]
    assert any(one.fileno() != -1 for one in sockets)
    await account.close()
    assert all(one.fileno() == -1 for one in sockets)


async def test_nested_readers_may_be_left_in_any_order(store):
    """Readers live in async generators, which end in the order of their consumers."""
    await store.create("a", BIG)

    async def pieces():
        async with store.open("a") as reading, aclosing(reading.chunks()) as chunks:
            async for chunk in chunks:
                yield chunk

    first, second = pieces(), pieces()
    with anyio.move_on_after(60):
        await anext(first)
    with anyio.move_on_after(60):
        await anext(second)
        await anext(first)
    await first.aclose()
    await anext(second)
    await second.aclose()


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (azure_error(404, "ContainerNotFound"), Misconfigured),
        (azure_error(409, "ContainerBeingDeleted"), Misconfigured),
        (azure_error(404, "BlobNotFound"), NotFound),
        (Answer(404), Misconfigured),
        (Answer(404, {"Content-Type": "text/html"}, b"<html>not here"), Misconfigured),
        (azure_error(400, "InvalidHeaderValue"), Misconfigured),
        (azure_error(409, "BlobArchived"), Misconfigured),
        (azure_error(403, "AuthorizationFailure"), StorageForbidden),
        (azure_error(403, "AuthenticationFailed"), StorageForbidden),
        (azure_error(401, "NoAuthenticationInformation"), StorageForbidden),
        (azure_error(404, "AnythingNew"), Misconfigured),
        (Answer(403), StorageForbidden),
        (Answer(302, {"Location": "http://127.0.0.1:9/elsewhere"}), StorageUnavailable),
        (Answer(501), StorageUnavailable),
    ],
    ids=[
        "no-container",
        "container-going",
        "no-blob",
        "nothing-said",
        "stranger",
        "api-version",
        "archived",
        "network-rule",
        "wrong-key",
        "anonymous",
        "new-code",
        "bare-403",
        "redirect",
        "not-implemented",
    ],
)
async def test_each_refusal_is_told_as_what_it_is(store, proxy, refusal, error):
    proxy.when(refusal)
    calls = [store.head("a"), store.get("a", max_bytes=9), read(store, "a")]
    for call in calls:
        with pytest.raises(error):
            await call
    if error is not NotFound:
        with pytest.raises(error):
            await names(store)


async def test_an_object_replaced_between_two_looks_at_it_is_tried_again_by_the_caller(
    store, proxy
):
    """An empty object has no range; when it has grown by the second look, neither is right."""
    await store.create("a", b"grown")
    proxy.when(azure_error(416, "InvalidRange"), method="GET")
    with pytest.raises(StorageUnavailable):
        await store.get("a", max_bytes=9)


async def test_a_page_that_fails_is_asked_for_again_alone(store, proxy):
    expected = [f"p/{number:04d}" for number in range(450)]
    async with anyio.create_task_group() as tasks:
        for name in expected:
            tasks.start_soon(store.create, name, b"")
    proxy.clear()
    proxy.when(Reset(), comp="list", skip=1, times=1)
    assert await names(store, "p/") == expected
    # Three pages, one of them twice (or thrice, where aiohttp repeated it by itself).
    assert proxy.count(comp="list") in {4, 5}


async def test_blobs_of_strangers_are_not_listed(store):
    await store.create("a", b"x")
    container = store._container.client()
    for name in ("a b", ".hidden", "x//y", "é"):
        await container.upload_blob(store._container.prefix + name, b"x")
    assert await names(store) == ["a"]


def test_a_total_size_is_taken_from_a_well_formed_range_alone():
    assert total_size("bytes 0-9/100") == 100
    for text in (None, "", "bytes 0-9/*", "bytes"):
        with pytest.raises(ValueError, match="invalid literal"):
            total_size(text)
