"""The filesystem store against its disk: modes, write order, full disks, failed fsyncs."""

import errno
import os
import resource
import shutil
import stat
from contextlib import contextmanager

import anyio
import pytest

from secure_cache.model.errors import (
    AlreadyExists,
    CorruptObject,
    DigestMismatch,
    Misconfigured,
    NotFound,
    StorageForbidden,
    StorageUnavailable,
    VersionMismatch,
)
from secure_cache.storage.beneath import Beneath
from secure_cache.storage.durable import Durability
from secure_cache.storage.filesystem import FilesystemStore
from secure_cache.storage.posix import translate
from secure_cache.storage.reading import open_object
from secure_cache.storage.upload import BLOCK_BYTES

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[False, True], ids=["linux", "portable"])
def portable(request):
    return request.param


@pytest.fixture
async def store(tmp_path, portable):
    store = FilesystemStore(tmp_path / "store", portable=portable)
    await store.check()
    yield store
    await store.close()


def drafts(store):
    return list((store.root / ".tmp").iterdir())


async def upload(store, name, size):
    async with store.begin_upload(name) as incoming:
        await incoming.write(b"x" * size)
        return await incoming.commit(size=size)


async def test_nothing_is_writable_by_others_and_nothing_is_left_in_staging(store):
    await store.create("a/b", b"x")
    await upload(store, "c", 3_000_000)
    await store.replace("c", b"y", expected=(await store.head("c")).version)
    for path in (store.root, *store.root.rglob("*")):
        mode = stat.S_IMODE(path.lstat().st_mode)
        if path.is_dir():
            assert mode & ~0o750 == 0, path
        elif ".locks" not in path.parts:
            assert mode & ~0o444 == 0, path
    assert drafts(store) == []


@pytest.fixture
def calls(monkeypatch):
    """The durability of writes as seen at the system calls: what, of which kind of file."""
    seen = []

    def record(name, kind_of):
        real = getattr(os, name)

        def recorded(*args, **kwargs):
            result = real(*args, **kwargs)
            seen.append(f"{name} {kind_of(*args)}".strip())
            return result

        monkeypatch.setattr(os, name, recorded)

    record("fsync", lambda fd: "folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
    for name in ("link", "rename", "unlink", "mkdir"):
        record(name, lambda *_args: "")
    return seen


async def test_a_create_fsyncs_the_file_before_and_the_folder_after_its_name_appears(store, calls):
    await store.create("first", b"x")
    unlink = ["unlink"] if not store._folder.staging.anonymous else []
    assert calls == ["fsync file", "link", *unlink, "fsync folder"]


async def test_new_folders_are_made_durable_from_the_top(store, calls):
    await store.create("a/b/c", b"x")
    before_link = calls[: calls.index("link")]
    assert before_link == ["fsync file", "mkdir", "fsync folder", "mkdir", "fsync folder"]
    calls.clear()
    await store.create("a/b/d", b"x")
    assert calls.count("fsync folder") == 1
    assert "mkdir" not in calls


async def test_folders_of_another_process_are_fsynced_before_they_are_relied_on(
    store, calls, portable
):
    await store.create("a/b/c", b"x")
    calls.clear()
    other = FilesystemStore(store.root, portable=portable)
    await other.create("a/b/d", b"x")
    assert calls[: calls.index("link")].count("fsync folder") == 2
    await other.close()


async def test_who_loses_a_race_makes_the_winner_durable_before_saying_so(store, calls):
    await store.create("a", b"x")
    calls.clear()
    with pytest.raises(AlreadyExists):
        await store.create("a", b"y")
    assert calls[-1] == "fsync folder" or calls[-2:] == ["fsync folder", "unlink"]


async def test_a_replace_fsyncs_the_file_before_and_the_folder_after_the_rename(store, calls):
    first = await store.create("a", b"w")
    first = await store.replace("a", b"x", expected=first.version)
    calls.clear()
    await store.replace("a", b"y", expected=first.version)
    assert calls == ["fsync file", "rename", "fsync folder"]


async def test_a_delete_is_durable(store, calls):
    await store.create("a", b"x")
    await store.delete("a")
    await store.create("a", b"x")
    calls.clear()
    await store.delete("a")
    assert calls == ["unlink", "fsync folder"]


@pytest.mark.parametrize("what", ["file", "folder"])
async def test_a_failed_fsync_ends_all_writing_and_tells_the_process(tmp_path, monkeypatch, what):
    told = []
    store = FilesystemStore(tmp_path / "store", on_fsync_failure=told.append)
    await store.check()
    kept = await store.create("kept", b"x")
    real = os.fsync

    def fail(fd):
        if stat.S_ISDIR(os.fstat(fd).st_mode) == (what == "folder"):
            raise OSError(errno.EIO, "Input/output error")
        real(fd)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageUnavailable) as failed:
        await store.create("lost", b"x")
    assert failed.value.applied is None
    assert len(told) == 1
    assert "fsync" in told[0]
    monkeypatch.undo()
    for write in (
        store.create("later", b"x"),
        store.replace("kept", b"y", expected=kept.version),
        store.delete("kept"),
        upload(store, "later", 1),
        upload(store, "later", 3_000_000),
    ):
        with pytest.raises(StorageUnavailable) as refused:
            await write
        assert refused.value.applied is None
    assert (await store.get("kept", max_bytes=1)).data == b"x"
    assert len(told) == 1
    assert drafts(store) == []
    await store.close()


async def test_the_process_is_told_of_the_first_failed_fsync_only():
    told = []
    durability = Durability(told.append)
    # A pipe can not be fsynced.
    ends = os.pipe()
    for end in ends + ends:
        with pytest.raises(StorageUnavailable):
            durability.sync(end, "a")
    for end in ends:
        os.close(end)
    with pytest.raises(StorageUnavailable, match="fsync of a"):
        durability.require()
    assert len(told) == 1


async def test_an_upload_whose_commit_failed_can_not_be_committed_after_all(store):
    async with store.begin_upload("a") as incoming:
        await incoming.write(b"x" * 3_000_000)
        with pytest.raises(DigestMismatch):
            await incoming.commit(size=1)
        with pytest.raises(DigestMismatch):
            await incoming.commit(size=3_000_000)
    with pytest.raises(NotFound):
        await store.head("a")


async def test_an_upload_that_was_open_when_an_fsync_failed_can_not_commit(store, monkeypatch):
    async with store.begin_upload("a") as incoming:
        await incoming.write(b"x" * 3_000_000)
        with monkeypatch.context() as broken:
            broken.setattr(os, "fsync", lambda _fd: (_ for _ in ()).throw(OSError(errno.EIO, "x")))
            with pytest.raises(StorageUnavailable):
                await store.create("b", b"x")
        with pytest.raises(StorageUnavailable):
            await incoming.commit(size=3_000_000)
    with pytest.raises(NotFound):
        await store.head("a")


@contextmanager
def largest_file(size):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [300_000, 3_000_000])
async def test_a_full_disk_fails_the_write_and_leaves_nothing(store, size):
    first = await store.create("a", b"x")
    with largest_file(200_000):
        for write in (
            store.create("b", b"x" * size),
            upload(store, "b", size),
            store.replace("a", b"x" * size, expected=first.version),
        ):
            with pytest.raises(StorageUnavailable) as full:
                await write
            assert full.value.applied is False
    assert drafts(store) == []
    assert [info async for info in store.list("")] == [first]
    await store.create("b", b"x" * size)


async def test_a_slow_disk_stops_the_sender_after_two_blocks(store):
    sent = 0

    async def send() -> None:
        nonlocal sent
        async with store.begin_upload("a") as incoming:
            while sent < 20 * BLOCK_BYTES:
                await incoming.write(b"x" * 65_536)
                sent += 65_536
            await incoming.commit(size=sent)

    everything = store._writers.total_tokens
    holders = [object() for _ in range(int(everything))]
    for holder in holders:
        store._writers.acquire_on_behalf_of_nowait(holder)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send)
        await anyio.wait_all_tasks_blocked()
        assert sent < 2 * BLOCK_BYTES
        for holder in holders:
            store._writers.release_on_behalf_of(holder)
    assert (await store.head("a")).size == sent == 20 * BLOCK_BYTES


async def test_dripped_bytes_are_joined_and_not_kept_one_by_one(store):
    async with store.begin_upload("a") as incoming:
        for _ in range(200_000):
            await incoming.write(b"x")
        assert len(incoming._block) < 10
        await incoming.commit(size=200_000)


async def test_a_folder_that_vanishes_is_made_again(store):
    await store.create("a/b/c", b"x")
    for gone in ("a/b", "a", ".tmp", ".locks"):
        shutil.rmtree(store.root / gone, ignore_errors=True)
        info = await store.create("a/b/c", b"again")
        await store.replace("a/b/c", b"and again", expected=info.version)
        assert (await store.get("a/b/c", max_bytes=100)).data == b"and again"
        await upload(store, f"u{len(gone)}", 2_000_000)
        await store.delete("a/b/c")


async def test_when_the_whole_store_vanishes_nothing_is_called_missing(store):
    first = await store.create("a", b"x")
    shutil.rmtree(store.root)
    for call in (
        store.head("a"),
        store.head("b/c"),
        store.get("a", max_bytes=1),
        store.create("a", b"x"),
        store.replace("a", b"x", expected=first.version),
        store.delete("a"),
        upload(store, "c", 1),
        anext(store.list("")),
        anext(store.list("b/")),
    ):
        with pytest.raises(StorageUnavailable):
            await call
    assert not store.root.exists()


async def test_a_missing_root_is_a_misconfiguration_and_not_a_miss(tmp_path):
    store = FilesystemStore(tmp_path / "never made")
    with pytest.raises(Misconfigured, match="never made"):
        await store.head("a")
    with pytest.raises(Misconfigured, match="never made"):
        await store.create("a", b"x")


async def test_a_closed_store_does_nothing_more(store):
    await store.create("a", b"x")
    await store.close()
    with pytest.raises(StorageUnavailable):
        await store.head("a")
    with pytest.raises(StorageUnavailable):
        await store.create("b", b"x")


async def test_check_sweeps_only_the_drafts_of_the_long_dead(tmp_path, portable):
    now = 1_000_000_000.0
    store = FilesystemStore(tmp_path / "new" / "store", portable=portable, clock=lambda: now)
    await store.check()
    for name, age in (("dead", 90_000), ("alive", 3_600)):
        path = store.root / ".tmp" / name
        path.write_bytes(b"x")
        os.utime(path, (now - age, now - age))
    await store.check()
    assert [path.name for path in drafts(store)] == ["alive"]
    assert (tmp_path / "new").stat().st_mode & 0o027 == 0
    await store.close()


async def test_a_root_that_is_a_file_is_refused_by_name(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises((Misconfigured, CorruptObject), match="file"):
            await FilesystemStore(root).check()


async def test_versions_grow_even_when_the_clock_stands_still(tmp_path, portable):
    store = FilesystemStore(tmp_path, portable=portable, clock=lambda: 1_000_000_000.0)
    await store.check()
    info = await store.create("a", b"0")
    modified = [(tmp_path / "a").stat().st_mtime_ns]
    for number in range(10):
        info = await store.replace("a", b"%d" % number, expected=info.version)
        modified.append((tmp_path / "a").stat().st_mtime_ns)
    assert modified == sorted(set(modified))
    await store.close()


async def test_bytes_changed_in_place_while_they_are_read_do_not_go_out(store):
    await store.create("a", b"x" * 1000)
    async with store.open("a") as reading:
        chunks = reading.chunks(size=100)
        await anext(chunks)
        before = (store.root / "a").stat()
        (store.root / "a").chmod(0o640)
        with (store.root / "a").open("r+b") as file:
            file.write(b"y" * 1000)
        os.utime(store.root / "a", ns=(before.st_atime_ns, before.st_mtime_ns))
        with pytest.raises(VersionMismatch):
            await anext(chunks)


async def test_a_file_cut_short_while_it_is_read_is_noticed(store):
    await upload(store, "a", 1_000_000)
    async with store.open("a") as reading:
        chunks = reading.chunks(size=300_000)
        await anext(chunks)
        os.truncate(store.root / "a", 300_001)
        with pytest.raises(VersionMismatch):
            await anext(chunks)


async def test_the_identity_of_fresh_bytes_is_not_yet_stable(tmp_path):
    offset = 0.0
    store = FilesystemStore(tmp_path, clock=lambda: (tmp_path / "a").stat().st_ctime + offset)
    (tmp_path / "a").write_bytes(b"x")
    async with store.open("a") as reading:
        assert reading.stable_identity is None
        offset = 1.9
        assert reading.stable_identity is None
        offset = 2.1
        settled = reading.stable_identity
        assert settled is not None
    (tmp_path / "a").write_bytes(b"y")
    os.utime(tmp_path / "a", (0, 0))
    async with store.open("a") as reading:
        assert reading.stable_identity not in {None, settled}


@pytest.mark.parametrize(
    ("code", "expected", "applied"),
    [
        (errno.EACCES, StorageForbidden, None),
        (errno.EPERM, StorageForbidden, None),
        (errno.ELOOP, CorruptObject, None),
        (errno.ENOTDIR, CorruptObject, None),
        (errno.EISDIR, CorruptObject, None),
        (errno.ENAMETOOLONG, Misconfigured, None),
        (errno.ENOSPC, StorageUnavailable, False),
        (errno.EDQUOT, StorageUnavailable, False),
        (errno.EROFS, StorageUnavailable, False),
        (errno.EMFILE, StorageUnavailable, False),
        (errno.EIO, StorageUnavailable, None),
        (errno.ESTALE, StorageUnavailable, None),
    ],
)
def test_an_error_of_the_disk_is_never_a_miss(tmp_path, code, expected, applied):
    error = translate(OSError(code, os.strerror(code)), "a", applied=None)
    assert type(error) is expected
    assert getattr(error, "applied", None) is applied

    def failing(_root: int, _name: str, _flags: int) -> int:
        raise OSError(code, os.strerror(code))

    with pytest.raises(expected):
        open_object(Beneath(tmp_path, resolve=failing), "a")


async def test_a_name_part_too_long_for_the_file_system_is_a_misconfiguration(store):
    for call in (store.create("a" * 300, b""), store.head("a" * 300)):
        with pytest.raises(Misconfigured, match="longer"):
            await call


async def test_open_descriptors_do_not_grow(store):
    async def everything(name: str) -> None:
        info = await store.create(name, b"x")
        await store.replace(name, b"y", expected=info.version)
        await upload(store, f"{name}.up", 2_000_000)
        async with store.open(name) as reading:
            await anext(reading.chunks())
        for failing in (store.create(name, b""), store.get("no", max_bytes=1), store.head("no/no")):
            with pytest.raises((AlreadyExists, NotFound)):
                await failing
        [_ async for _ in store.list("")]
        await store.delete(name)

    def descriptors() -> int:
        return sum(1 for _ in os.scandir("/proc/self/fd"))

    await everything("warm/up")
    before = descriptors()
    for number in range(5):
        await everything(f"n/{number}/x")
    assert descriptors() == before
