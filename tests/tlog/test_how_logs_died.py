"""Logs that died in public, and why ours would not have. One test for each."""

import errno

import pytest
from fakes.faults import Fault, FaultyStore
from fakes.log_world import check_log
from fakes.logs import SIGNER, finish, grown_log, new_log, open_log, put_batch, sequencer_of

from secure_cache.model.errors import LogInconsistent, Overloaded, StorageUnavailable
from secure_cache.storage.memory import MemoryStore
from secure_cache.tlog import commit
from secure_cache.tlog.log import LogOptions
from secure_cache.tlog.note import Ed25519NoteSigner
from secure_cache.tlog.tiles import encode_bundle
from secure_cache.tlog.writer import WriterLimits

pytestmark = pytest.mark.anyio


async def test_azul_raio_2025_does_not_go_on_with_stale_state_after_a_failed_reload():
    """A tile write failed, the reload failed too, and the sequencer went on: tiles were lost."""
    store = FaultyStore(MemoryStore())
    await grown_log(store, (5,))
    sequencer = sequencer_of(store)
    await put_batch(store, 1, [b"a"])
    store.plan = lambda operation: Fault.LOST_BEFORE if operation.name.startswith("tile/") else None
    with pytest.raises(StorageUnavailable):
        await sequencer.step()
    await put_batch(store, 2, [b"b"])
    committed = (await store.inner.get("head", max_bytes=1 << 20)).data
    for name in ("checkpoint", "head", "tile/"):
        store.plan = lambda operation, name=name: (
            Fault.BEFORE if operation.name.startswith(name) else None
        )
        store.operations.clear()
        with pytest.raises(StorageUnavailable):
            await sequencer.step()
        assert not [o for o in store.operations if o.kind == "replace"]
        assert (await store.inner.get("head", max_bytes=1 << 20)).data == committed
    store.plan = lambda _: None
    await finish(sequencer)
    assert (await check_log(store.inner, SIGNER))[5:] == [b"a", b"b"]


class CountingSigner(Ed25519NoteSigner):
    def __init__(self):
        super().__init__(SIGNER.name, SIGNER._key.private_bytes_raw())
        self.signed = []

    async def sign(self, text):
        self.signed.append(text)
        return await super().sign(text)


async def test_trust_asia_2020_and_venafi_2017_do_not_sign_two_heads_for_one_size():
    """Inconsistent tree heads were signed; the logs had to begin again under a new key."""
    store, other = MemoryStore(), MemoryStore()
    for each, entry in ((store, b"one"), (other, b"two")):
        await new_log(each)
        await put_batch(each, 1, [entry])
        await finish(sequencer_of(each))
    # The head of another history, larger than ours and internally sound.
    await put_batch(other, 2, [b"more"])
    await finish(sequencer_of(other))
    forged = (await other.get("head", max_bytes=1 << 20)).data
    version = (await store.head("head")).version
    await store.replace("head", forged, expected=version)
    await put_batch(store, 2, [b"more"])
    signer = CountingSigner()
    for _ in range(3):
        with pytest.raises(LogInconsistent):
            await sequencer_of(store, signer=signer).step()
    assert signer.signed == []


async def test_yeti_2022_a_bit_that_flips_in_memory_is_found_before_the_commit(monkeypatch):
    """One bit of a stored entry flipped: it no longer hashed to its leaf."""
    store = MemoryStore()
    await new_log(store)
    await put_batch(store, 1, [b"entry"])

    def flipping(entries):
        data = encode_bundle(entries)
        return data[:-1] + bytes([data[-1] ^ 1])

    before = (await store.get("head", max_bytes=1 << 20)).data
    with monkeypatch.context() as patch:
        patch.setattr(commit, "encode_bundle", flipping)
        with pytest.raises(LogInconsistent):
            await sequencer_of(store).step()
    assert (await store.get("head", max_bytes=1 << 20)).data == before
    await finish(sequencer_of(store))
    assert await check_log(store, SIGNER) == [b"entry"]


@pytest.mark.parametrize("name", ["pending", "tile/entries/000.p/5", "tile/0/000.p/5"])
async def test_yeti_2022_a_bit_that_flips_in_the_store_stops_the_log_and_is_not_signed(name):
    store = MemoryStore()
    await grown_log(store, (5,))
    batch = await put_batch(store, 1, [b"entry"])
    name = batch if name == "pending" else name
    stored = await store.get(name, max_bytes=1 << 20)
    flipped = stored.data[:-1] + bytes([stored.data[-1] ^ 1])
    await store.replace(name, flipped, expected=stored.info.version)
    signer = CountingSigner()
    with pytest.raises(LogInconsistent):
        await sequencer_of(store, signer=signer).step()
    assert signer.signed == []


async def test_mammoth_2024_a_full_disk_fails_the_append_before_it_is_acknowledged():
    """The disk was full, and what had been promised could not be logged."""
    store = FaultyStore(MemoryStore())
    log = await new_log(store)
    full = StorageUnavailable(f"pending: {errno.errorcode[errno.ENOSPC]}")
    full.applied = False
    async with log.running():
        await log.append(b"before")
        store.plan = lambda operation: (
            Fault.raising(full) if operation.kind in ("create", "replace") else None
        )
        with pytest.raises(StorageUnavailable) as caught:
            await log.append(b"while")
        assert caught.value.applied is False
        store.plan = lambda _: None
        await log.append(b"after")
    # After a failure the writer goes on as another boot; within a millisecond their order is open.
    assert sorted(await check_log(store.inner, SIGNER)) == [b"after", b"before"]


async def test_mammoth_2024_a_disk_that_fills_while_sequencing_delays_and_loses_nothing():
    store = FaultyStore(MemoryStore())
    log = await new_log(store)
    full = StorageUnavailable("no space left")
    full.applied = False
    told = []
    log._tell = lambda event, _facts: told.append(event)
    async with log.running():
        store.plan = lambda operation: (
            Fault.raising(full)
            if operation.kind == "create" and operation.name.startswith("tile/")
            else None
        )
        for number in range(20):
            await log.append(b"entry %d" % number)
        while "log.unavailable" not in told:
            await log._pause(0.001)
        store.plan = lambda _: None
    assert await check_log(store.inner, SIGNER) == [b"entry %d" % n for n in range(20)]


async def test_nessie_2025_an_acknowledged_entry_is_durable_before_any_sequencing():
    """After an overload of the database, entries that had been promised were missing."""
    store = FaultyStore(MemoryStore())
    log = await new_log(store)
    store.plan = lambda operation: Fault.BEFORE if operation.kind == "replace" else None
    async with log.running():
        logged = await log.append(b"promised")
    assert (await log.published()).size == 0
    survivor = open_log(store.inner)
    async with survivor.running():
        await survivor.flush()
    assert await survivor.index_of(logged) == 0
    assert await check_log(store.inner, SIGNER) == [b"promised"]


async def test_nessie_2025_an_overloaded_log_refuses_and_drops_nothing():
    import anyio

    store = MemoryStore()
    log = await new_log(
        store, options=LogOptions(writer=WriterLimits(waiting_entries=8, batch_entries=4))
    )
    acked, refused = [], []

    async def append(number):
        try:
            await log.append(b"entry %d" % number)
        except Overloaded:
            refused.append(number)
        else:
            acked.append(b"entry %d" % number)

    async with log.running(), anyio.create_task_group() as group:
        for number in range(50):
            group.start_soon(append, number)
    assert refused
    assert len(acked) >= 8
    assert sorted(await check_log(store, SIGNER)) == sorted(acked)


async def test_compact_log_2025_what_was_acknowledged_is_not_only_in_memory():
    """A log that did not flush lost its database on a hard reset: no ack before the create."""
    store = FaultyStore(MemoryStore())
    log = await new_log(store)
    async with log.running():
        await log.append(b"entry")
        created = [o.name for o in store.operations if o.kind == "create"]
    assert created[-1].startswith("pending/") or any(n.startswith("pending/") for n in created)
