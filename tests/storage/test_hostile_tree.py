"""Whoever can write into the store's folder can neither lead us out of it nor hang us."""

import os
import stat

import anyio
import pytest

from secure_cache.model.errors import AlreadyExists, CorruptObject
from secure_cache.storage.filesystem import FilesystemStore

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[False, True], ids=["linux", "portable"])
async def store(request, tmp_path):
    store = FilesystemStore(tmp_path / "store", portable=request.param)
    await store.check()
    yield store
    await store.close()


@pytest.fixture
def outside(tmp_path):
    """A folder that is none of the store's business, with a file in it."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_bytes(b"secret")
    yield folder
    assert [path.name for path in folder.iterdir()] == ["secret"]
    assert (folder / "secret").read_bytes() == b"secret"


async def read_calls(store, name):
    with pytest.raises(CorruptObject):
        await store.head(name)
    with pytest.raises(CorruptObject):
        await store.get(name, max_bytes=100)
    with pytest.raises(CorruptObject):
        await store.get_if_changed(name, version="v", max_bytes=100)
    with pytest.raises(CorruptObject):
        async with store.open(name):
            pass


async def write_calls(store, name):
    with pytest.raises((CorruptObject, AlreadyExists)):
        await store.create(name, b"x")
    async with store.begin_upload(name) as incoming:
        await incoming.write(b"x" * 2_000_000)
        with pytest.raises((CorruptObject, AlreadyExists)):
            await incoming.commit(size=2_000_000)
    with pytest.raises(CorruptObject):
        await store.replace(name, b"x", expected="v")
    with pytest.raises(CorruptObject):
        await store.delete(name)


async def names(store, prefix=""):
    return [info.name async for info in store.list(prefix)]


async def test_a_link_in_an_objects_place_is_not_followed(store, outside):
    (store.root / "link").symlink_to(outside / "secret")
    (store.root / "dangling").symlink_to(outside / "new")
    (store.root / "inside").symlink_to("real")
    await store.create("real", b"x")
    for name in ("link", "dangling", "inside"):
        await read_calls(store, name)
        await write_calls(store, name)
    assert await names(store) == ["real"]


async def test_a_link_in_a_folders_place_is_not_followed(store, outside):
    (store.root / "a").mkdir()
    (store.root / "a" / "b").symlink_to(outside)
    await read_calls(store, "a/b/secret")
    await write_calls(store, "a/b/secret")
    await write_calls(store, "a/b/new/deep")
    assert await names(store) == []
    with pytest.raises(CorruptObject):
        await names(store, "a/b/")


async def test_a_link_from_one_namespace_to_another_is_not_followed(store):
    await store.create("demo/branch/main/key", b"trusted")
    (store.root / "demo" / "pr").mkdir()
    (store.root / "demo" / "pr" / "1").symlink_to("../branch/main")
    (store.root / "other").symlink_to("demo")
    for name in ("demo/pr/1/key", "other/branch/main/key"):
        await read_calls(store, name)
        await write_calls(store, name)
        await write_calls(store, f"{name}2")
    assert await names(store) == ["demo/branch/main/key"]


async def test_a_folder_swapped_for_a_link_after_we_knew_it_is_not_followed(store, outside):
    await store.create("a/b/real", b"x")
    (store.root / "a" / "b").rename(store.root / "a" / "aside")
    (store.root / "a" / "b").symlink_to(outside)
    await read_calls(store, "a/b/secret")
    await write_calls(store, "a/b/new")


@pytest.mark.parametrize("ours", [".tmp", ".locks"])
async def test_our_own_folders_swapped_for_links_are_not_followed(store, outside, ours):
    info = await store.create("a", b"x")
    if (store.root / ours).exists():
        (store.root / ours).rename(store.root / "aside")
    (store.root / ours).symlink_to(outside)
    with pytest.raises(CorruptObject):
        await store.replace("a", b"y", expected=info.version)
    if ours == ".tmp":
        with pytest.raises(CorruptObject):
            await store.create("b", b"x")
        with pytest.raises(CorruptObject):
            await store.check()
    assert (await store.get("a", max_bytes=1)).data == b"x"


async def test_a_lock_file_swapped_for_a_link_is_not_followed(store, outside):
    info = await store.create("a", b"x")
    (store.root / ".locks").mkdir()
    for stripe in range(256):
        (store.root / ".locks" / f"{stripe:02x}").symlink_to(outside / "made")
    with pytest.raises(CorruptObject):
        await store.replace("a", b"y", expected=info.version)


async def test_a_fifo_or_a_socket_in_an_objects_place_does_not_hang_us(store):
    os.mkfifo(store.root / "fifo")
    os.mknod(store.root / "socket", stat.S_IFSOCK | 0o600)
    with anyio.fail_after(20):
        for name in ("fifo", "socket"):
            await read_calls(store, name)
            await write_calls(store, name)
    assert await names(store) == []


async def test_a_folder_in_an_objects_place_is_not_a_miss(store):
    await store.create("a/b", b"x")
    await read_calls(store, "a")
    await write_calls(store, "a")


async def test_a_file_in_a_folders_place_is_not_a_miss(store):
    await store.create("a", b"x")
    await read_calls(store, "a/b")
    await write_calls(store, "a/b")
    await write_calls(store, "a/b/c")
    with pytest.raises(CorruptObject):
        await names(store, "a/")


async def test_strangers_files_are_never_handed_out(store):
    await store.create("a/b", b"x")
    for name in ("with space", "new\nline", "-dash", "ünicode", "a/back\\slash"):
        (store.root / name).write_bytes(b"x")
    (store.root / ".hidden").mkdir()
    (store.root / ".hidden" / "x").write_bytes(b"x")
    (store.root / os.fsdecode(b"bytes\xff")).write_bytes(b"x")
    assert await names(store) == ["a/b"]


async def test_drafts_and_locks_have_no_names(store):
    async with store.begin_upload("a") as incoming:
        await incoming.write(b"x" * 2_000_000)
        await incoming.write(b"x" * 2_000_000)
        info = await store.create("b", b"x")
        await store.replace("b", b"y", expected=info.version)
        assert await names(store) == ["b"]
