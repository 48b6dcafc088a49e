"""How the log writes: create or equal, compare and swap, and every unknown outcome resolved."""

import pytest
from fakes.faults import Fault, FaultyStore

from secure_cache.model.errors import LogInconsistent, StorageUnavailable
from secure_cache.storage.filesystem import FilesystemStore
from secure_cache.storage.memory import MemoryStore
from secure_cache.tlog.backlog import together
from secure_cache.tlog.objects import put_immutable, swap

pytestmark = pytest.mark.anyio


async def test_equal_bytes_that_are_there_already_are_fine_and_others_are_an_alarm():
    store = MemoryStore(immutable=True)
    await put_immutable(store, "tile/0/000", b"x")
    await put_immutable(store, "tile/0/000", b"x")
    for other in (b"y", b"", b"xx"):
        with pytest.raises(LogInconsistent):
            await put_immutable(store, "tile/0/000", other)
    assert (await store.get("tile/0/000", max_bytes=9)).data == b"x"


async def test_on_a_file_system_equal_bytes_are_written_again(tmp_path):
    """After a failed fsync the page cache shows what the disk may not hold."""
    store = FilesystemStore(tmp_path)
    await store.check()
    await put_immutable(store, "tile/0/000", b"x")
    before = (tmp_path / "tile/0/000").stat().st_ino
    await put_immutable(store, "tile/0/000", b"x")
    assert (tmp_path / "tile/0/000").stat().st_ino == before
    await put_immutable(store, "tile/0/000", b"x", rewrite_equal=True)
    assert (tmp_path / "tile/0/000").stat().st_ino != before
    with pytest.raises(LogInconsistent):
        await put_immutable(store, "tile/0/000", b"y", rewrite_equal=True)
    assert (tmp_path / "tile/0/000").read_bytes() == b"x"
    await store.close()


async def test_a_partial_tile_that_is_swept_between_two_looks_is_no_error():
    store = FaultyStore(MemoryStore())
    await put_immutable(store, "tile/0/000.p/1", b"x")
    get, delete = store.inner.get, store.inner.delete

    async def swept(name, *, max_bytes):
        await delete(name)
        return await get(name, max_bytes=max_bytes)

    store.inner.get = swept
    await put_immutable(store, "tile/0/000.p/1", b"x")


async def test_a_partial_tile_that_is_rewritten_by_two_or_swept_meanwhile_is_no_error():
    store = FaultyStore(MemoryStore())
    await put_immutable(store, "tile/0/000.p/1", b"x")
    replace = store.inner.replace

    async def late(name, data, *, expected):
        await store.inner.delete(name)
        return await replace(name, data, expected=expected)

    store.inner.replace = late
    await put_immutable(store, "tile/0/000.p/1", b"x", rewrite_equal=True)


@pytest.mark.parametrize(("fault", "ours"), [(Fault.LOST_AFTER, True), (Fault.LOST_BEFORE, False)])
async def test_a_swap_whose_reply_is_lost_is_ours_if_our_bytes_are_there(fault, ours):
    store = FaultyStore(MemoryStore())
    info = await store.create("head", b"old")
    store.plan = lambda o: fault if o.kind == "replace" else None
    assert await swap(store, "head", b"new", expected=info.version) is ours


async def test_a_swap_that_surely_failed_says_so():
    store = FaultyStore(MemoryStore())
    info = await store.create("head", b"old")
    store.plan = lambda o: Fault.BEFORE if o.kind == "replace" else None
    with pytest.raises(StorageUnavailable):
        await swap(store, "head", b"new", expected=info.version)


async def test_a_swap_that_lost_the_race_is_not_ours():
    store = MemoryStore()
    info = await store.create("head", b"old")
    assert await swap(store, "head", b"first", expected=info.version)
    assert not await swap(store, "head", b"second", expected=info.version)


async def test_of_several_errors_the_worst_is_told_and_everything_came_to_its_end():
    ended = []

    async def work(error):
        ended.append(error)
        if error is not None:
            raise error

    calls = [StorageUnavailable("a"), None, LogInconsistent("b"), None]
    with pytest.raises(LogInconsistent):
        await together([lambda error=error: work(error) for error in calls])
    assert len(ended) == 4
    assert await together([]) == []
