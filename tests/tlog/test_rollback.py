"""Drills: an old head, an old checkpoint, or both are restored; files vanish."""

import copy

import pytest
from fakes.logs import (
    SIGNER,
    finish,
    grow,
    grown_log,
    new_log,
    open_log,
    put_batch,
    sequencer_of,
    stores_of,
)

from secure_cache.model.errors import AlreadyExists, LogInconsistent, NotFound
from secure_cache.storage.memory import MemoryStore
from secure_cache.tlog.create import create_log, finish_log
from secure_cache.tlog.fsck import fsck

pytestmark = pytest.mark.anyio


async def restore(store, old, names):
    for name in names:
        data = (await old.get(name, max_bytes=1 << 24)).data
        await store.replace(name, data, expected=(await store.head(name)).version)


async def two_moments(sizes):
    """The store as it was, and as it is two commits later, with the process that saw both."""
    store = MemoryStore()
    log = await grown_log(store, sizes[:1])
    old = copy.deepcopy(store)
    await grow(log, sizes[1:])
    return old, store, log


@pytest.mark.parametrize("names", [("head",), ("checkpoint",), ("head", "checkpoint")])
@pytest.mark.parametrize("sizes", [(5, 9, 20), (250, 256, 300)])
async def test_a_rolled_back_log_is_not_continued_by_a_fresh_process(names, sizes):
    old, store, _log = await two_moments(sizes)
    await restore(store, old, names)
    await put_batch(store, 1, [b"another history"])
    checkpoint = (await store.get("checkpoint", max_bytes=1 << 20)).data
    for _ in range(2):
        with pytest.raises(LogInconsistent):
            await finish(sequencer_of(store))
    assert (await store.get("checkpoint", max_bytes=1 << 20)).data == checkpoint
    report = await fsck(**stores_of(store), verifiers=[SIGNER.verifier], origin=SIGNER.name)
    assert report.findings


@pytest.mark.parametrize("names", [("checkpoint",), ("head", "checkpoint")])
async def test_a_process_that_saw_the_newer_checkpoint_refuses_the_older(names):
    old, store, log = await two_moments((5, 9, 20))
    await log.published()
    await restore(store, old, names)
    with pytest.raises(LogInconsistent, match="went back"):
        await log.published()


async def test_a_running_log_stops_accepting_when_it_is_rolled_back_and_says_so():
    old, store, _ = await two_moments((5, 9, 20))
    told = []
    log = open_log(store, tell=lambda event, _facts: told.append(event))
    async with log.running():
        await log.append(b"fine")
        assert await log.flush()
        newest = copy.deepcopy(store)
        await restore(store, old, ("head", "checkpoint"))
        while "log.faulted" not in told:
            await log._pause(0.001)
        with pytest.raises(LogInconsistent):
            await log.append(b"refused")
        assert isinstance(log.fault, LogInconsistent)
        await restore(store, newest, ("head", "checkpoint"))
        while "log.recovered" not in told:
            await log._pause(0.001)
        assert log.fault is None
        await log.append(b"fine again")
        assert await log.flush()
    assert [entry async for _, entry in log.entries(20)] == [b"fine", b"fine again"]


async def test_two_signed_histories_of_one_size_are_told_apart_by_who_saw_one():
    store, other = MemoryStore(), MemoryStore()
    log = await grown_log(store, (5,))
    await grown_log(other, (5,), entry=lambda i: b"forged %d" % i)
    await log.published()
    await restore(store, other, ("head", "checkpoint"))
    with pytest.raises(LogInconsistent, match="two signed roots"):
        await log.published()


@pytest.mark.parametrize("name", ["head", "checkpoint"])
async def test_a_log_that_lost_its_edge_is_neither_opened_nor_begun_again(name):
    store = MemoryStore()
    await grown_log(store, (5,))
    await store.delete(name)
    with pytest.raises(LogInconsistent):
        await open_log(store).check()
    with pytest.raises(AlreadyExists):
        await new_log(store)


async def test_a_log_is_not_begun_where_anything_of_one_is_left():
    for left in ("tile/0/000.p/1", "commit/00000000000000000001", "pending/x/1"):
        store = MemoryStore()
        await store.create(left, b"x")
        with pytest.raises(AlreadyExists, match="not empty"):
            await create_log(
                **stores_of(store), signer=SIGNER, clock=lambda: 0.0, random_bytes=bytes
            )


async def test_a_log_of_another_key_or_origin_is_not_opened():
    from secure_cache.tlog.note import Ed25519NoteSigner

    store = MemoryStore()
    await grown_log(store, (5,))
    for signer in (
        Ed25519NoteSigner(SIGNER.name, bytes(32)),
        Ed25519NoteSigner("other.example.com", SIGNER._key.private_bytes_raw()),
    ):
        with pytest.raises(LogInconsistent):
            await sequencer_of(store, signer=signer).step()


@pytest.mark.parametrize(
    "name", ["tile/0/000", "tile/1/000.p/1", "tile/0/001.p/44", "tile/entries/001.p/44"]
)
async def test_a_missing_tile_of_the_edge_stops_the_log(name):
    store = MemoryStore()
    await grown_log(store, (300,))
    await store.delete(name)
    await put_batch(store, 1, [b"x"])
    with pytest.raises(LogInconsistent):
        await go_on_and_read(store)


async def go_on_and_read(store):
    await finish(sequencer_of(store))
    await open_log(store).entry(0)


async def test_a_checkpoint_rolled_back_by_one_commit_is_published_again_or_refused():
    """Right after a commit this is what a crash before publication leaves; once the batch has
    been swept it can only be a rollback, and nothing is made up."""
    old, store, _log = await two_moments((3, 4))
    newest = (await store.get("checkpoint", max_bytes=1 << 20)).data
    await restore(store, old, ("checkpoint",))
    with pytest.raises(LogInconsistent, match="committed batch is missing"):
        await finish(sequencer_of(store))
    assert (await store.get("checkpoint", max_bytes=1 << 20)).data != newest


async def test_a_head_that_vanishes_while_the_log_runs_is_a_fault_and_ends_no_server():
    store = MemoryStore()
    told = []
    log = await grown_log(store, (3,))
    log = open_log(store, tell=lambda event, facts: told.append((event, facts.get("code"))))
    async with log.running():
        await log.append(b"entry")
        await store.delete("head")
        while ("log.faulted", "log-inconsistent") not in told:
            await log._pause(0.001)
    assert log.fault is not None


async def begun(signer=SIGNER):
    """A creation that was cut after the head."""
    store = MemoryStore()
    await create_log(
        **stores_of(store), signer=signer, clock=lambda: 0.0, random_bytes=lambda n: b"\7" * n
    )
    await store.delete("checkpoint")
    return store


async def test_a_creation_that_was_cut_is_finished_with_the_same_key():
    store = await begun()
    with pytest.raises(LogInconsistent):
        await open_log(store).check()
    assert (await finish_log(**stores_of(store), signer=SIGNER)).size == 0
    await open_log(store).check()
    await grow(open_log(store), (3,))


async def test_a_creation_is_not_finished_under_another_name():
    from secure_cache.tlog.note import Ed25519NoteSigner

    store = await begun()
    with pytest.raises(LogInconsistent):
        await finish_log(**stores_of(store), signer=Ed25519NoteSigner("other", bytes(32)))
    with pytest.raises(NotFound):
        await store.head("checkpoint")


@pytest.mark.parametrize(
    "left",
    ["checkpoint", "tile/0/000", "tile/0/000.p/1", "commit/00000000000000000001", "pending/x"],
)
async def test_nothing_but_a_lone_head_is_taken_for_a_creation_that_was_cut(left):
    store = await begun()
    await store.create(left, b"x")
    with pytest.raises(AlreadyExists):
        await finish_log(**stores_of(store), signer=SIGNER)


async def test_a_head_with_entries_is_no_beginning():
    store = MemoryStore()
    await grown_log(store, (3,))
    for prefix in ("tile/", "commit/", "checkpoint"):
        for name in [info.name async for info in store.list(prefix)]:
            await store.delete(name)
    with pytest.raises(AlreadyExists):
        await finish_log(**stores_of(store), signer=SIGNER)


async def test_without_even_a_head_there_is_nothing_to_finish():
    with pytest.raises(NotFound):
        await finish_log(**stores_of(MemoryStore()), signer=SIGNER)
