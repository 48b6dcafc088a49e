"""What becomes of a write when the network or the storage fails, before and after its effect."""

import anyio
import pytest
from fakes.azure import azure_store
from world.fault_proxy import FaultProxy
from world.wire_faults import Answer, FlipRequestBit, Hang, Hold, LoseAnswer, Reset, azure_error

from secure_cache.model.digest import Digest
from secure_cache.model.errors import (
    AlreadyExists,
    NotFound,
    StorageForbidden,
    StorageUnavailable,
    VersionMismatch,
)
from secure_cache.storage.azure_blob.upload import BLOCK_BYTES

pytestmark = pytest.mark.anyio

BIG = bytes(range(256)) * 36_000  # three blocks

# Each with whether the write has taken effect when the client sees the fault.
FAULTS = {
    "reset-before": Reset(),
    "reset-midway": Reset(after_request_bytes=2),
    "silence": Hang(30),
    "answer-lost": LoseAnswer(),
    "corrupted": FlipRequestBit(1),
    "busy": azure_error(503, "ServerBusy", Retry_After="0"),
    "throttled": Answer(429),
    "internal": azure_error(500, "InternalError"),
    "gateway": Answer(502),
    "timed-out": azure_error(500, "OperationTimedOut"),
    "request-timeout": Answer(408),
}
BODILESS = {name: fault for name, fault in FAULTS.items() if name != "corrupted"}
NOT_APPLIED = {
    name: fault
    for name, fault in FAULTS.items()
    if name not in {"answer-lost", "silence", "corrupted"}
}


@pytest.fixture
def proxy(azurite):
    with FaultProxy(azurite.port) as proxy:
        yield proxy


@pytest.fixture
async def store(azurite, proxy):
    store = azure_store(azurite, port=proxy.port)
    yield store
    await store.close()


async def upload(store, name: str, body: bytes, piece: int = 1_000_000):
    async with store.begin_upload(name) as incoming:
        for start in range(0, len(body), piece):
            await incoming.write(body[start : start + piece])
        return await incoming.commit(size=len(body), digest=Digest.of(body))


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_a_create_that_failed_once_succeeds_exactly_once(store, proxy, fault):
    rule = proxy.when(fault, method="PUT", path="/a/b", times=1)
    info = await store.create("a/b", b"hello")
    assert rule.hits == 1
    assert await store.head("a/b") == info
    assert (await store.get("a/b", max_bytes=9)).data == b"hello"
    with pytest.raises(AlreadyExists):
        await store.create("a/b", b"hello")


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_a_replace_that_failed_once_succeeds_exactly_once(store, proxy, fault):
    first = await store.create("a", b"one")
    rule = proxy.when(fault, method="PUT", path="/a", times=1)
    second = await store.replace("a", b"two", expected=first.version)
    assert rule.hits == 1
    assert await store.head("a") == second
    assert (await store.get("a", max_bytes=9)).data == b"two"
    with pytest.raises(VersionMismatch):
        await store.replace("a", b"six", expected=first.version)


@pytest.mark.parametrize("comp", ["block", "blocklist"])
@pytest.mark.parametrize("fault", BODILESS.values(), ids=BODILESS)
async def test_an_upload_whose_block_or_commit_failed_once_succeeds(store, proxy, fault, comp):
    rule = proxy.when(fault, comp=comp, times=1)
    committed = await upload(store, "a", BIG)
    assert rule.hits == 1
    assert committed.info == await store.head("a")
    assert (await store.get("a", max_bytes=len(BIG))).data == BIG


async def test_a_delete_whose_answer_was_lost_is_done(store, proxy):
    await store.create("a", b"x")
    proxy.when(LoseAnswer(), method="DELETE", times=1)
    # By then nothing is there any more, and nobody knows who did it.
    assert await store.delete("a") is False
    with pytest.raises(NotFound):
        await store.head("a")


async def test_a_create_whose_answers_are_all_lost_is_known_to_be_ours(store, proxy):
    proxy.when(LoseAnswer(), method="PUT", path="/a")
    info = await store.create("a", b"hello")
    proxy.clear()
    assert await store.head("a") == info


async def test_a_replace_whose_answers_are_all_lost_is_known_to_be_ours(store, proxy):
    first = await store.create("a", b"one")
    proxy.when(LoseAnswer(), method="PUT", path="/a")
    second = await store.replace("a", b"two", expected=first.version)
    proxy.clear()
    assert await store.head("a") == second


async def test_a_commit_whose_answers_are_all_lost_is_known_to_be_ours(store, proxy):
    proxy.when(LoseAnswer(), comp="blocklist")
    committed = await upload(store, "a", BIG)
    proxy.clear()
    assert await store.head("a") == committed.info


@pytest.mark.parametrize("fault", NOT_APPLIED.values(), ids=NOT_APPLIED)
async def test_a_write_that_always_fails_is_told_as_unknown_and_changes_nothing(
    store, proxy, fault
):
    first = await store.create("old", b"one")
    proxy.when(fault, method="PUT")
    for write in (
        store.create("new", b"two"),
        store.replace("old", b"two", expected=first.version),
    ):
        with pytest.raises(StorageUnavailable) as caught:
            await write
        assert caught.value.applied is None
    with pytest.raises(StorageUnavailable):
        await upload(store, "big", BIG)
    proxy.clear()
    assert [info async for info in store.list("")] == [first]


async def test_a_write_of_which_nothing_more_is_heard_is_told_as_unknown(store, proxy):
    rule = proxy.when(LoseAnswer(), method="PUT", path="/a")
    proxy.when(Reset(), method="HEAD")
    with pytest.raises(StorageUnavailable) as caught:
        await store.create("a", b"hello")
    assert caught.value.applied is None
    assert rule.hits > 1
    proxy.clear()
    # And the caller finds out by calling again.
    with pytest.raises(AlreadyExists):
        await store.create("a", b"hello")
    assert (await store.get("a", max_bytes=9)).data == b"hello"


async def test_a_replace_after_which_another_replaced_is_not_told_as_ours(store, azurite, proxy):
    first = await store.create("a", b"one")
    held = proxy.when(LoseAnswer(), method="PUT", path="/a", times=1)
    behind = proxy.when(Hang(30), method="PUT", path="/a", times=1)
    other = azure_store(azurite, prefix=store._container.prefix)
    try:
        async with anyio.create_task_group() as tasks:

            async def replaced_by_another() -> None:
                await anyio.to_thread.run_sync(behind.wait_hit)
                now = await other.get("a", max_bytes=9)
                assert now.data == b"two"
                await other.replace("a", b"three", expected=now.info.version)

            tasks.start_soon(replaced_by_another)
            with pytest.raises((VersionMismatch, StorageUnavailable)):
                await store.replace("a", b"two", expected=first.version)
    finally:
        await other.close()
    assert held.hits == 1
    assert (await store.get("a", max_bytes=9)).data == b"three"


async def test_a_block_that_was_corrupted_is_sent_again_alone(store, proxy):
    proxy.when(FlipRequestBit(1_000_000), comp="block", times=1)
    await upload(store, "a", BIG)
    assert proxy.count(comp="block") == 4
    assert (await store.get("a", max_bytes=len(BIG))).data == BIG


async def test_a_block_that_is_always_corrupted_commits_nothing(store, proxy):
    proxy.when(FlipRequestBit(1_000_000), comp="block")
    with pytest.raises(StorageUnavailable) as caught:
        await upload(store, "a", BIG)
    assert caught.value.applied is False
    assert proxy.count(comp="blocklist") == 0
    with pytest.raises(NotFound):
        await store.head("a")


async def test_a_large_body_is_sent_anew_from_its_start_on_a_connection_that_broke(store, proxy):
    """aiohttp repeats by itself on a kept connection: a body that remembers how far it was read
    would arrive without its beginning."""
    body = BIG[:900_000]
    await store.create("first", b"x")
    proxy.when(Reset(after_request_bytes=500_000), method="PUT", times=1)
    await store.create("a", body)
    assert (await store.get("a", max_bytes=len(body))).data == body


async def test_blocks_that_another_commit_dropped_mean_that_the_race_is_lost(store, proxy):
    other = b"winner"
    proxy.when(azure_error(400, "InvalidBlockList"), comp="blocklist")
    async with store.begin_upload("a") as incoming:
        await incoming.write(BIG)
        await store.create("a", other)
        with pytest.raises(AlreadyExists):
            await incoming.commit(size=len(BIG))
    assert (await store.get("a", max_bytes=9)).data == other


async def test_blocks_that_vanished_without_a_winner_are_an_outage(store, proxy):
    proxy.when(azure_error(400, "InvalidBlockList"), comp="blocklist")
    with pytest.raises(StorageUnavailable) as caught:
        await upload(store, "a", BIG)
    assert caught.value.applied is False


async def test_a_name_taken_by_a_blob_of_another_type_is_taken(store, proxy):
    await store.create("a", b"x")
    proxy.when(azure_error(409, "InvalidBlobType"), comp="block")
    with pytest.raises(AlreadyExists):
        await upload(store, "a", BIG)


async def test_of_many_staged_racers_one_wins_and_its_bytes_are_whole(store, proxy):
    """With block ids that can be guessed, the winner's list takes up blocks of the losers."""
    won: list[bytes] = []

    async def race(number: int) -> None:
        body = bytes([number]) * 4_500_000
        try:
            await upload(store, "a", body)
            won.append(body)
        except AlreadyExists:
            pass

    async with anyio.create_task_group() as tasks:
        for number in range(8):
            tasks.start_soon(race, number)
    assert len(won) == 1
    assert (await store.get("a", max_bytes=5_000_000)).data == won[0]
    ids = [seen.query["blockid"] for seen in proxy.seen(comp="block")]
    assert len(set(ids)) == len(ids) == 16
    assert len({len(block) for block in ids}) == 1


@pytest.mark.parametrize(
    "refusal",
    [
        azure_error(409, "BlobImmutableDueToPolicy"),
        azure_error(412, "LeaseIdMissing"),
        azure_error(403, "AuthorizationPermissionMismatch"),
    ],
    ids=["immutable", "leased", "no-role"],
)
async def test_what_the_storage_will_never_do_is_forbidden_and_no_race_lost(store, proxy, refusal):
    first = await store.create("a", b"x")
    proxy.when(refusal, method="PUT")
    proxy.when(refusal, method="DELETE")
    with pytest.raises(StorageForbidden):
        await store.replace("a", b"y", expected=first.version)
    with pytest.raises(StorageForbidden):
        await store.delete("a")


async def test_an_immutable_object_that_exists_exists(store, proxy):
    await store.create("a", b"x")
    proxy.when(azure_error(409, "BlobImmutableDueToPolicy"), method="PUT")
    with pytest.raises(AlreadyExists):
        await store.create("a", b"y")


async def test_an_upload_of_which_a_write_was_given_up_is_never_committed(store, proxy):
    """The block that waited for its turn was hashed, and is not stored: what remains is shorter
    than its digest says."""
    rule = proxy.when(Hold(), comp="block")
    async with store.begin_upload("a") as incoming:
        with anyio.move_on_after(1.0) as scope:
            await incoming.write(bytes(5 * BLOCK_BYTES))
        assert scope.cancelled_caught
        rule.release()
        with pytest.raises(StorageUnavailable, match="given up"):
            await incoming.commit(size=incoming._written)
    with pytest.raises(NotFound):
        await store.head("a")
    assert store._uploads.used == 0


async def test_a_cancelled_upload_leaves_no_task_and_no_memory(store, proxy):
    rule = proxy.when(Hang(30), comp="block")
    before = len(anyio.get_running_tasks())
    async with anyio.create_task_group() as tasks:

        async def send() -> None:
            async with store.begin_upload("a") as incoming:
                await incoming.write(BIG)
                await anyio.sleep_forever()

        tasks.start_soon(send)
        await anyio.to_thread.run_sync(rule.wait_hit)
        assert store._uploads.used > 0
        tasks.cancel_scope.cancel()
    assert len(anyio.get_running_tasks()) == before
    assert store._uploads.used == 0


@pytest.mark.parametrize("body", [b"", b"x", BIG], ids=["empty", "small", "big"])
async def test_blocks_that_an_upload_left_behind_do_not_take_the_name(store, body):
    """Azurite takes them for an object, though nobody can read one."""
    async with store.begin_upload("a") as incoming:
        await incoming.write(BIG)
        await incoming._drain()
    info = await store.create("a", body)
    assert await store.head("a") == info
    assert (await store.get("a", max_bytes=len(BIG))).data == body
    with pytest.raises(AlreadyExists):
        await store.create("a", body)
