"""The keys in force: a change is told once, and a fault never passes for an answer."""

import errno
import os

import anyio
import pytest
from fakes.cache_world import cache_world

from secure_cache.core.key_folder import KeyFolder
from secure_cache.core.keystore import create_keystore, load_keystore, rotate
from secure_cache.model.errors import AlreadyExists, Misconfigured, Unavailable

pytestmark = pytest.mark.anyio

NOW = 1_800_000_000


@pytest.fixture
def folder(tmp_path):
    create_keystore(tmp_path / "keys", log_origin="cache.acme.example/log", now=NOW)
    return tmp_path / "keys"


async def test_a_change_that_a_reader_met_first_is_told_all_the_same(folder):
    keys, told = KeyFolder(folder), anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(keys.watch, 0.05, told.set)
        await anyio.lowlevel.checkpoint()
        rotate(folder, "entry", NOW + 100)
        await keys.reload()
        with anyio.fail_after(60):
            await told.wait()
        group.cancel_scope.cancel()


async def test_keys_that_cannot_be_read_again_are_not_the_ones_in_force(folder):
    keys = KeyFolder(folder)
    rotate(folder, "entry", NOW + 100)
    (folder / "keys.json").chmod(0o644)
    with pytest.raises(Unavailable):
        await keys.reload()
    (folder / "keys.json").chmod(0o600)

    assert await keys.reload() == load_keystore(folder).ring


async def test_a_fault_that_passes_leaves_no_trouble(folder):
    keys = KeyFolder(folder)
    folder.rename(folder.with_name("aside"))
    with pytest.raises(Unavailable):
        await keys.reload()
    folder.with_name("aside").rename(folder)
    await keys.reload()

    assert keys.trouble is None


async def test_a_folder_that_cannot_be_opened_is_trouble_and_not_the_end(folder, monkeypatch):
    """Out of open files, say: were it not an error of ours, it would end the server's tasks."""
    keys = KeyFolder(folder)
    rotate(folder, "entry", NOW + 100)
    real = os.open

    def full(path, flags, *args, **kwargs):
        if flags & os.O_DIRECTORY:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(Misconfigured, match="Too many open files"):
        load_keystore(folder)
    with pytest.raises(Unavailable):
        await keys.reload()
    assert "Too many open files" in keys.trouble
    monkeypatch.undo()
    await keys.reload()

    assert keys.trouble is None


async def test_what_an_unread_key_has_signed_is_neither_replaced_nor_called_damaged():
    async with cache_world() as world:
        main, known = world.caller(branch="main"), world.ring
        await world.store(main, "1", b"first")

        async def unreadable():
            raise Unavailable("the keys cannot be read again")

        world.ring = type(known)(())
        world.catalog._reload_ring = unreadable
        with pytest.raises(Unavailable):
            await world.fetch(main, "1")
        with pytest.raises(Unavailable):
            await world.store(main, "1", b"second")
        world.ring = known

        assert await world.fetch(main, "1") == b"first"
        with pytest.raises(AlreadyExists):
            await world.store(main, "1", b"second")
