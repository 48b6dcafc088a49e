"""The log over three stores with different rights: what is written once, swapped, swept."""

import pytest
from fakes.faults import Fault, FaultyStore
from fakes.log_world import check_log
from fakes.logs import SIGNER, finish, grow, new_log, open_log, put_batch, sequencer_of

from secure_cache.model.errors import NotFound, StorageForbidden
from secure_cache.storage.memory import MemoryStore
from secure_cache.tlog.fsck import fsck
from secure_cache.tlog.pending import BatchName
from secure_cache.tlog.ports import Logged
from secure_cache.tlog.tlog_proof import TlogProof

pytestmark = pytest.mark.anyio

SIZES = (1, 200, 255, 256, 300, 600)


def three_stores():
    """`tiles` fails the test that replaces or deletes in it."""
    return {
        "tiles": FaultyStore(MemoryStore(immutable=True)),
        "head": FaultyStore(MemoryStore()),
        "pending": FaultyStore(MemoryStore()),
    }


async def names(store):
    return [info.name async for info in store.list("")]


async def look(stores):
    return await fsck(**stores, verifiers=[SIGNER.verifier], origin=SIGNER.name)


@pytest.fixture
async def stores():
    stores = three_stores()
    log = await new_log(stores)
    await grow(log, SIZES)
    return stores


async def test_each_object_stands_in_its_store(stores):
    await put_batch(stores["pending"], 1, [b"waits"])
    tiles, pending = await names(stores["tiles"]), await names(stores["pending"])
    assert await names(stores["head"]) == ["checkpoint", "head"]
    assert all(".p/" not in name for name in tiles)
    assert {"tile/0/000", "tile/0/001", "tile/entries/000", "tile/entries/001"} <= {*tiles}
    assert {name.partition("/")[0] for name in tiles} == {"tile", "commit"}
    batches = [name for name in pending if name.startswith("pending/")]
    assert len(batches) == 1
    assert all(".p/" in name for name in pending if name not in batches)


async def test_only_pending_is_ever_deleted_in_and_only_the_head_is_swapped(stores):
    done = {
        place: {operation.kind for operation in store.operations} & {"create", "replace", "delete"}
        for place, store in stores.items()
    }
    assert done == {
        "tiles": {"create"},
        "head": {"create", "replace"},
        "pending": {"create", "delete"},
    }


async def test_partial_tiles_of_what_is_full_are_swept_from_pending(stores):
    left = await names(stores["pending"])
    assert not [name for name in left if "/000.p/" in name and not name.startswith("tile/1/")]
    assert "tile/entries/002.p/88" in left


async def test_every_entry_proof_and_tile_is_read_back(stores):
    log = open_log(stores)
    await check_log(stores, SIGNER)
    assert [entry async for _, entry in log.entries()] == [b"record %d" % i for i in range(600)]
    assert isinstance(await log.proof(599), TlogProof)
    assert await log.consistency_proof(255, 600)
    assert len(await log.tile("tile/0/001")) == 256 * 32
    assert len(await log.tile("tile/0/002.p/88")) == 88 * 32
    with pytest.raises(NotFound):
        await log.tile("tile/0/002.p/87")


async def test_where_an_entry_went_is_found_by_the_commits(stores):
    name = await put_batch(stores["pending"], 1, [b"a", b"b"])
    await finish(sequencer_of(stores))
    assert await open_log(stores).index_of(Logged(name, 1)) == 601
    assert str(BatchName.parse(name)) == name


async def test_fsck_finds_what_stands_in_the_wrong_store(stores):
    report = await look(stores)
    report.require_clean()
    assert report.entries == 600
    full = await stores["tiles"].get("tile/0/000", max_bytes=1 << 20)
    part = await stores["pending"].get("tile/0/002.p/88", max_bytes=1 << 20)
    await stores["pending"].create("tile/0/000", full.data)
    await stores["tiles"].create("tile/0/002.p/88", part.data)
    report = await look(stores)
    assert {finding.path for finding in report.findings} == {"tile/0/000", "tile/0/002.p/88"}
    assert all("full and partial are apart" in finding.problem for finding in report.findings)


async def test_a_reader_falls_back_to_the_full_tile_when_the_partial_one_was_swept(stores):
    """It has a checkpoint of 300; meanwhile the log grew, and tile 1 is full."""
    old = three_stores()
    await grow(await new_log(old), (300,))
    reader = await open_log(old)._reader()
    await grow(open_log(old), (600,))
    assert "tile/0/001.p/44" not in await names(old["pending"])
    reader._edge = None
    assert [entry async for _, entry in reader.entries(255)] == [
        b"record %d" % i for i in range(255, 300)
    ]


async def test_a_store_that_refuses_to_delete_what_is_pending_is_not_passed_over(stores):
    """It would be listed anew at every pass, and grow for ever."""
    await put_batch(stores["pending"], 1, [b"x"])
    forbidden = Fault.raising(StorageForbidden("no right to delete"))
    stores["pending"].plan = lambda o: forbidden if o.kind == "delete" else None
    with pytest.raises(StorageForbidden):
        await finish(sequencer_of(stores))
    stores["pending"].plan = lambda _: None
    await finish(sequencer_of(stores))
    assert len(await check_log(stores, SIGNER, acked=[b"x"])) == 601
