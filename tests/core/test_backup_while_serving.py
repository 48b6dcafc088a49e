"""Promise 5: a backup that links or touches files beside a running server breaks no transfer."""

import os
from contextlib import AsyncExitStack

import pytest
from fakes.cache_world import cache_world

from secure_cache.model.errors import CorruptObject, NotFound
from secure_cache.model.names import parse_key
from secure_cache.storage import layout
from secure_cache.storage.filesystem import FilesystemStore

pytestmark = pytest.mark.anyio

DATA = os.urandom(3 * 1024 * 1024)


@pytest.fixture
async def world(tmp_path):
    """Artifacts on a real disk, by a clock that makes every file old enough to be remembered."""
    async with cache_world() as made:
        clock = made.clock
        store = FilesystemStore(tmp_path / "artifacts", clock=lambda: clock.now + 1e9)
        await store.check()
        made.stores["artifacts"] = store
        made._assemble_over_the_same_log()
        yield made


async def transfer(world, disturb, received=None):
    """Fetch, and do something to the stored file after the first block."""
    received = bytearray() if received is None else received
    async with AsyncExitStack() as stack:
        artifact = await world.get(world.caller(branch="main"), parse_key("1"), stack)
        async for block in artifact.blocks:
            if not received:
                disturb()
            received += block
    return received


async def stored(world, tmp_path):
    entry = await world.store(world.caller(branch="main"), "1", DATA)
    return tmp_path / "artifacts" / layout.artifact(entry.entry_id, entry.stored_at)


async def test_a_hard_link_made_during_a_transfer_does_not_break_it(world, tmp_path):
    path = await stored(world, tmp_path)

    assert await transfer(world, lambda: os.link(path, tmp_path / "backup")) == DATA
    assert await transfer(world, lambda: None) == DATA


async def test_a_mode_changed_during_a_transfer_does_not_break_it(world, tmp_path):
    path = await stored(world, tmp_path)

    assert await transfer(world, lambda: path.chmod(0o400)) == DATA


async def test_bytes_changed_during_a_transfer_are_never_sent(world, tmp_path):
    path = await stored(world, tmp_path)
    received = bytearray()

    def tamper():
        path.chmod(0o600)
        with path.open("r+b") as file:
            file.seek(2 * 1024 * 1024)
            file.write(b"poison")

    with pytest.raises(CorruptObject):
        await transfer(world, tamper, received)
    assert received
    assert DATA.startswith(received)
    # Quarantined by the reader who met it, in the middle of its transfer.
    with pytest.raises(NotFound):
        await world.fetch(world.caller(branch="main"), "1")
