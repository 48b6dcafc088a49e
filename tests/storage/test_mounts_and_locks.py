"""Refusal of network file systems, and locks between processes."""

import errno
import os
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import anyio
import pytest

import secure_cache.storage.locks as locks_module
from secure_cache.model.errors import CorruptObject, Misconfigured, StorageUnavailable
from secure_cache.storage.beneath import Beneath
from secure_cache.storage.filesystem import FilesystemStore
from secure_cache.storage.locks import FlockTurn, StripedLocks, try_flock
from secure_cache.storage.memory import AlwaysTurn, ImmutableObjectTouched, MemoryStore
from secure_cache.storage.mounts import (
    MOUNTINFO,
    filesystem_number,
    filesystem_type,
    require_local_filesystem,
)

pytestmark = pytest.mark.anyio

TABLE = r"""
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
30 27 0:40 / /mnt/share rw,relatime shared:7 master:2 - nfs4 server:/share rw,vers=4.2
31 30 0:41 / /mnt/share/local rw - xfs /dev/vdb rw
32 27 0:42 / /mnt/over rw - cifs //server/over rw
33 27 0:43 / /mnt/over rw - btrfs /dev/vdc rw
34 27 0:44 / /mnt/with\040blank rw - fuse.sshfs host:/ rw
35 27 0:45 / /mnt/sharer rw - tmpfs none rw
a line that is not one
36 27 0:46 / /mnt/cut rw
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/srv/cache", "ext4"),
        ("/", "ext4"),
        ("/mnt/share", "nfs4"),
        ("/mnt/share/deep/down", "nfs4"),
        ("/mnt/share/local/deep", "xfs"),
        ("/mnt/sharer/deep", "tmpfs"),
        ("/mnt/over/deep", "btrfs"),
        ("/mnt/with blank/deep", "fuse.sshfs"),
        ("/mnt/cut", "ext4"),
    ],
)
def test_the_innermost_and_latest_mount_counts(path, expected):
    assert filesystem_type(Path(path), TABLE) == expected


def test_a_table_that_names_no_mount_of_ours_tells_nothing():
    assert filesystem_type(Path("/srv"), "") is None


def fake_table(tmp_path, kind):
    table = tmp_path / "mountinfo"
    table.write_text(
        f"27 1 254:0 / / rw - ext4 /dev/vda rw\n28 27 0:9 / {tmp_path} rw - {kind} x rw\n"
    )
    return table


@pytest.mark.parametrize(
    "kind",
    ["nfs", "nfs4", "cifs", "smb3", "fuse", "fuse.s3fs", "fuseblk", "9p", "ceph", "virtiofs"],
)
async def test_a_network_file_system_is_refused_naming_folder_type_and_setting(tmp_path, kind):
    table = fake_table(tmp_path, kind)
    store = FilesystemStore(tmp_path / "store", mountinfo=table)
    with pytest.raises(Misconfigured) as refused:
        await store.check()
    for part in (str(tmp_path / "store"), kind, "storage.insecure_allow_network_filesystem"):
        assert part in str(refused.value)
    await store.close()
    allowed = FilesystemStore(
        tmp_path / "store", mountinfo=table, insecure_allow_network_filesystem=True
    )
    await allowed.check()
    await allowed.close()


def test_a_link_to_a_network_folder_does_not_hide_it(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "near").symlink_to(tmp_path / "far")
    table = tmp_path / "mountinfo"
    table.write_text(f"27 1 254:0 / / rw - ext4 d rw\n28 27 0:9 / {tmp_path}/far rw - nfs x rw\n")
    with pytest.raises(Misconfigured):
        require_local_filesystem(tmp_path / "near", mountinfo=table)


def test_the_disk_of_this_machine_is_known_to_be_local(tmp_path):
    if not MOUNTINFO.exists():
        pytest.skip("this system has no /proc/self/mountinfo: nothing can be told here")
    require_local_filesystem(tmp_path)


def test_without_a_mount_table_nothing_is_refused(tmp_path):
    require_local_filesystem(tmp_path, mountinfo=tmp_path / "absent")


async def test_only_one_has_the_turn(tmp_path):
    one, other = FlockTurn(tmp_path / "turn"), FlockTurn(tmp_path / "turn")
    assert await one.try_take()
    assert not await one.try_take()
    assert not await other.try_take()
    await other.give_back()
    assert not await other.try_take()
    await one.give_back()
    assert await other.try_take()
    await other.give_back()
    await other.give_back()


HOLDER = """
import sys, anyio
from functools import partial
from pathlib import Path
from secure_cache.storage.locks import FlockTurn
print(anyio.run(FlockTurn(Path(sys.argv[1])).try_take), flush=True)
sys.stdin.readline()
"""


async def test_the_turn_of_a_killed_process_ends(tmp_path):
    turn = FlockTurn(tmp_path / "turn")
    with subprocess.Popen(  # noqa: ASYNC220 - the test has nothing else to do meanwhile
        [sys.executable, "-c", HOLDER, str(tmp_path / "turn")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout.readline() == "True\n"
        assert not await turn.try_take()
        holder.kill()
        holder.wait()
    assert await turn.try_take()
    await turn.give_back()


async def test_a_turn_whose_file_is_a_link_is_not_taken(tmp_path):
    (tmp_path / "turn").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CorruptObject):
        await FlockTurn(tmp_path / "turn").try_take()
    assert not (tmp_path / "elsewhere").exists()


async def test_who_is_alone_always_has_the_turn():
    turn = AlwaysTurn()
    assert await turn.try_take()
    await turn.give_back()
    assert await turn.try_take()


def test_a_lock_that_is_not_given_back_ends_in_an_error_and_not_in_a_hang(tmp_path):
    mine, other = (StripedLocks(Beneath(tmp_path), longest_wait=0.05) for _ in range(2))
    with mine.held("a"):
        for locks in (mine, other):
            with pytest.raises(StorageUnavailable) as late, locks.held("a"):
                pass
            assert late.value.applied is False
    with other.held("a"):
        pass


def test_a_lock_that_could_not_be_looked_at_is_nobodys(tmp_path, monkeypatch):
    locks = StripedLocks(Beneath(tmp_path), longest_wait=0.05)

    def failing(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as broken:
        broken.setattr(locks_module, "_still_names", failing)
        with pytest.raises(OSError, match="Input/output"), locks.held("a"):
            pytest.fail("it was never taken")
    with locks.held("a"):
        pass


def test_a_lock_file_that_was_removed_while_one_waited_is_not_trusted(tmp_path):
    first, second = (StripedLocks(Beneath(tmp_path)) for _ in range(2))
    inside = []

    def wait_for_it() -> None:
        with second.held("a"):
            inside.append((tmp_path / ".locks" / stripe).stat().st_ino)

    with first.held("a"):
        (stripe,) = (path.name for path in (tmp_path / ".locks").iterdir())
        waiter = threading.Thread(target=wait_for_it)
        waiter.start()
        time.sleep(0.01)
        assert inside == []
    waiter.join(20)
    assert inside == [(tmp_path / ".locks" / stripe).stat().st_ino]


def test_a_lock_file_that_is_removed_between_opening_and_locking_it_is_opened_again(
    tmp_path, monkeypatch
):
    removed = []

    def remove_first(fd: int) -> bool:
        if not removed:
            removed.extend(path.unlink() or path for path in (tmp_path / ".locks").iterdir())
        return try_flock(fd)

    monkeypatch.setattr("secure_cache.storage.locks.try_flock", remove_first)
    late = StripedLocks(Beneath(tmp_path), longest_wait=0.05)
    with StripedLocks(Beneath(tmp_path)).held("a"):
        assert len(removed) == 1
        with pytest.raises(StorageUnavailable), late.held("a"):
            pass


@pytest.mark.parametrize("change", ["replace", "delete"])
async def test_changes_wait_for_the_lock_of_their_object(tmp_path, change):
    store = FilesystemStore(tmp_path)
    await store.check()
    info = await store.create("a", b"x")
    async with anyio.create_task_group() as tasks:
        with StripedLocks(Beneath(tmp_path)).held("a"):
            if change == "replace":
                tasks.start_soon(partial(store.replace, "a", b"y", expected=info.version))
            else:
                tasks.start_soon(store.delete, "a")
            await anyio.sleep(0.05)
            assert await store.head("a") == info
    assert [found async for found in store.list("")] != [info]
    await store.close()


async def test_an_immutable_memory_store_fails_who_changes_an_object():
    store = MemoryStore(immutable=True)
    info = await store.create("a", b"x")
    with pytest.raises(ImmutableObjectTouched):
        await store.replace("a", b"y", expected=info.version)
    with pytest.raises(ImmutableObjectTouched):
        await store.delete("a")
    assert await store.delete("b") is False
    assert (await store.get("a", max_bytes=1)).data == b"x"


def test_in_a_chroot_whose_table_is_silent_the_kernel_is_asked(tmp_path):
    table = tmp_path / "mountinfo"
    table.write_text("")
    require_local_filesystem(tmp_path, mountinfo=table, number=lambda _: 0xEF53)
    for foreign in (0x6969, 0xFF534D42, 0x65735546, None):
        with pytest.raises(Misconfigured, match="unknown"):
            require_local_filesystem(tmp_path, mountinfo=table, number=lambda _, n=foreign: n)


def test_a_type_that_the_table_names_is_not_overruled_by_the_kernel(tmp_path):
    with pytest.raises(Misconfigured, match="nfs4"):
        require_local_filesystem(
            tmp_path, mountinfo=fake_table(tmp_path, "nfs4"), number=lambda _: 0xEF53
        )


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="asks Linux about /proc")
def test_the_kernel_tells_proc_from_a_disk():
    assert filesystem_number(Path("/proc")) == 0x9FA0
