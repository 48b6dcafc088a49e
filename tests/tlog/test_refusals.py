"""What each part refuses, and the rarer turns that a commit takes."""

import copy
import hashlib
import os

import anyio
import anyio.lowlevel
import pytest
from fakes.faults import Fault, FaultyStore
from fakes.log_world import check_log
from fakes.logs import (
    BOOT,
    ORIGIN,
    SIGNER,
    finish,
    grown_log,
    new_log,
    put_batch,
    sequencer_of,
    stores_of,
)

from secure_cache.model.errors import (
    CorruptObject,
    LogInconsistent,
    Malformed,
    NotFound,
    StorageUnavailable,
)
from secure_cache.storage.memory import MemoryStore
from secure_cache.tlog.checkpoint import Checkpoint
from secure_cache.tlog.commit import grow, verify_growth
from secure_cache.tlog.commits import CommitIndex
from secure_cache.tlog.cosignature import CosignatureVerifier, cosignature_time
from secure_cache.tlog.edge import Edge
from secure_cache.tlog.fsck import MAX_FINDINGS, fsck
from secure_cache.tlog.head import Batch, Head, Mark
from secure_cache.tlog.merkle import EMPTY_ROOT
from secure_cache.tlog.note import Ed25519NoteSigner, Ed25519Verifier, check_key_name, sign_note
from secure_cache.tlog.pending import BatchName, boot_id, decode_batch, encode_batch
from secure_cache.tlog.publication import Publications
from secure_cache.tlog.published import LogReader
from secure_cache.tlog.reader import TileCache, TreeReader, store_fetch
from secure_cache.tlog.sequencer import SequencerLimits
from secure_cache.tlog.tlog_proof import TlogProof
from secure_cache.tlog.writer import WriterLimits

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "make",
    [
        lambda: Ed25519Verifier("name", bytes(31)),
        lambda: Ed25519NoteSigner("name", bytes(33)),
        lambda: Ed25519NoteSigner("two words", bytes(32)),
        lambda: check_key_name("\ud800"),
        lambda: check_key_name(""),
        lambda: CosignatureVerifier("name", bytes(31)),
        lambda: CosignatureVerifier.parse(str(SIGNER.verifier)),
        lambda: CosignatureVerifier.parse("name+00000000+"),
        lambda: TlogProof(-1, (), b"x"),
        lambda: TlogProof(0, (bytes(31),), b"x"),
        lambda: TlogProof(0, (bytes(32),) * 64, b"x"),
        lambda: TlogProof.parse(b"x" * 200_000),
        lambda: TlogProof.parse("c2sp.org/tlog-proof@v1\nindex ٤\n\nx".encode()),
        lambda: Checkpoint("", 0, EMPTY_ROOT),
        lambda: Checkpoint("o", 1, bytes(32), ("",)),
    ],
    ids=map(str, range(15)),
)
def test_values_outside_their_form_are_not_made(make):
    with pytest.raises(Malformed):
        make()


@pytest.mark.parametrize("signature", [b"", bytes(71), bytes(73), b"\xff" * 72])
def test_a_cosignature_of_another_form_is_refused(signature):
    with pytest.raises(LogInconsistent):
        cosignature_time(signature)


@pytest.mark.parametrize(
    "limits",
    [{"batch_entries": 0}, {"batch_entries": 5000}, {"batch_bytes": 0}, {"batch_bytes": 1 << 24}],
)
def test_limits_that_a_batch_cannot_have_are_refused(limits):
    with pytest.raises(ValueError, match="out of range"):
        WriterLimits(**limits)


def test_an_edge_has_the_widths_of_its_size():
    with pytest.raises(LogInconsistent):
        Edge(2, ((bytes(32),),))


def test_a_tail_that_is_not_that_of_the_tree_is_refused():
    growth = grow(Edge.empty(), b"", [b"one"])
    with pytest.raises(LogInconsistent):
        grow(growth.after, b"\x00\x03two", [b"three"])


def test_growth_between_other_sizes_or_roots_is_not_signed():
    growth = grow(grow(Edge.empty(), b"", [b"one"]).after, b"\x00\x03one", [b"two"])
    before = Checkpoint("o", 1, growth.before.root())
    after = Checkpoint("o", 2, growth.root)
    verify_growth(growth, before, after)
    for old, new in (
        (Checkpoint("o", 0, EMPTY_ROOT), after),
        (before, Checkpoint("o", 3, growth.root)),
        (Checkpoint("o", 1, bytes(32)), after),
        (before, Checkpoint("o", 2, bytes(32))),
    ):
        with pytest.raises(LogInconsistent):
            verify_growth(growth, old, new)


def head_of(**changes):
    name = str(BatchName(BOOT, 1))
    fields = {
        "origin": "o",
        "size": 1,
        "root": bytes(32),
        "prev_size": 0,
        "prev_root": EMPTY_ROOT,
        "batches": (Batch(name, 1),),
        "consumed": {BOOT: Mark(1, 0)},
        "commit": "0" * 32,
        "at": 0,
    }
    return Head(**(fields | changes)).encode()


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 2},
        {"batches": (Batch(str(BatchName(BOOT, 1)), 0),), "size": 0, "root": EMPTY_ROOT},
        {"batches": (Batch(str(BatchName(BOOT, 1)), 1),) * 2, "size": 2},
        {"batches": (Batch(str(BatchName(BOOT, 2)), 1),)},
        {"consumed": {}},
        {"batches": (), "prev_size": 1, "prev_root": bytes(32)},
        {"root": bytes(31)},
        {"prev_root": bytes(32)},
    ],
)
def test_a_head_that_does_not_add_up_is_refused(changes):
    Head.decode(head_of(), origin="o")
    with pytest.raises(LogInconsistent):
        Head.decode(head_of(**changes), origin="o")


def test_a_batch_of_no_or_too_many_entries_is_refused():
    for leaves in ([], [b"x"] * 4097):
        with pytest.raises(LogInconsistent):
            decode_batch(encode_batch(leaves))


def test_a_boot_tells_when_it_was_named():
    name = BatchName(boot_id(1_700_000_000.123, os.urandom), 1)
    assert name.boot_time == pytest.approx(1_700_000_000.123)
    assert BatchName.parse(str(name)) == name


async def test_a_checkpoint_that_is_no_checkpoint_is_an_inconsistent_log():
    store = MemoryStore()
    await new_log(store)
    info = await store.head("checkpoint")
    note = await sign_note("not a checkpoint\n", SIGNER)
    for data in (b"garbage", note):
        await store.replace("checkpoint", data, expected=info.version)
        info = await store.head("checkpoint")
        with pytest.raises(LogInconsistent):
            await Publications(store, [SIGNER.verifier], origin=ORIGIN).read()


async def test_the_newest_checkpoint_ever_seen_is_kept_whatever_order_reads_end_in():
    store = MemoryStore()
    await grown_log(store, (3,))
    publications = Publications(store, [SIGNER.verifier], origin=ORIGIN)
    older = await publications.read()
    newer = copy.deepcopy(store)
    await put_batch(newer, 1, [b"x"])
    await finish(sequencer_of(newer))
    publications._store = newer
    newest = await publications.read()
    publications._remember(older)
    assert publications.newest == newest


async def test_names_under_pending_that_are_no_batches_are_left_alone():
    store = MemoryStore()
    await new_log(store)
    await store.create("pending/stray", b"x")
    await put_batch(store, 1, [b"entry"])
    await finish(sequencer_of(store))
    assert [info.name async for info in store.list("pending/")] == ["pending/stray"]


async def test_a_committed_batch_with_other_bytes_is_not_signed():
    store = FaultyStore(MemoryStore())
    await new_log(store)
    name = await put_batch(store, 1, [b"one"])
    store.plan = lambda o: Fault.BEFORE if o.name.startswith("tile/") else None
    with pytest.raises(StorageUnavailable):
        await sequencer_of(store).step()
    store.plan = lambda _: None
    forged = encode_batch([b"two"])
    await store.replace(name, forged, expected=(await store.head(name)).version)
    with pytest.raises(LogInconsistent, match="do not lead to its root"):
        await finish(sequencer_of(store))
    assert (await Publications(store, [SIGNER.verifier], origin=ORIGIN).read()).checkpoint.size == 0


async def test_a_batch_whose_digest_fits_but_whose_form_does_not_stops_the_log():
    store = MemoryStore()
    await new_log(store)
    body = b"\x00\x09short"
    whole = encode_batch([b"x"])[:16] + hashlib.sha256(body).digest() + body
    await store.create(str(BatchName(BOOT, 1)), whole)
    with pytest.raises(LogInconsistent, match="not well formed"):
        await sequencer_of(store).step()


async def test_a_log_that_moved_on_between_our_two_reads_is_no_error():
    """We read the checkpoint, others published and committed again, then we read the head."""
    store = FaultyStore(MemoryStore())
    await new_log(store)
    sequencer = sequencer_of(store)
    await sequencer.check()
    get = store.inner.get

    async def late(name, *, max_bytes):
        store.inner.get = get
        other = FaultyStore(store.inner)
        await put_batch(store.inner, 1, [b"one"])
        await finish(sequencer_of(other))
        await put_batch(store.inner, 2, [b"two"])
        other.plan = lambda o: Fault.BEFORE if o.name.startswith("tile/") else None
        stopped = sequencer_of(store.inner)
        stopped._tiles = stopped._pending = other
        stopped._is_checked = True
        with pytest.raises(StorageUnavailable):
            await stopped.step()
        return await get(name, max_bytes=max_bytes)

    store.inner.get = late
    assert await sequencer.step()
    await finish(sequencer)
    assert await check_log(store.inner, SIGNER) == [b"one", b"two"]


async def test_a_head_with_another_root_at_the_signed_size_is_refused():
    store, other = MemoryStore(), MemoryStore()
    await grown_log(store, (5,))
    await grown_log(other, (5,), entry=lambda i: b"other %d" % i)
    data = (await other.get("head", max_bytes=1 << 20)).data
    await store.replace("head", data, expected=(await store.head("head")).version)
    with pytest.raises(LogInconsistent, match="differ"):
        await sequencer_of(store).step()


async def test_a_lost_race_is_no_error_and_both_batches_come_in():
    store = FaultyStore(MemoryStore())
    await new_log(store)
    await put_batch(store, 1, [b"ours"])
    replace = store.inner.replace

    async def beaten(name, data, *, expected):
        store.inner.replace = replace
        await finish(sequencer_of(store.inner))
        return await replace(name, data, expected=expected)

    store.inner.replace = beaten
    sequencer = sequencer_of(store)
    assert await sequencer.step()
    await finish(sequencer)
    assert await check_log(store.inner, SIGNER) == [b"ours"]


async def test_batches_that_another_replica_finished_under_our_eyes_are_no_error():
    for name in ("pending/" + BOOT, "pending/"):
        store = FaultyStore(MemoryStore())
        await new_log(store)
        await put_batch(store, 1, [b"ours"])
        if name == "pending/":
            store.plan = lambda o: Fault.BEFORE if o.name.startswith("tile/") else None
            with pytest.raises(StorageUnavailable):
                await sequencer_of(store).step()
            store.plan = lambda _: None
        get = store.inner.get

        async def late(name, *, max_bytes, store=store, get=get):
            if name.startswith("pending/"):
                store.inner.get = get
                await finish(sequencer_of(store.inner))
            return await get(name, max_bytes=max_bytes)

        sequencer = sequencer_of(store)
        await sequencer.check()
        store.inner.get = late
        assert await sequencer.step()
        assert await check_log(store.inner, SIGNER) == [b"ours"]


async def test_a_batch_that_vanished_without_a_commit_stops_the_log():
    store = FaultyStore(MemoryStore())
    await new_log(store)
    await put_batch(store, 1, [b"acknowledged"])
    store.plan = lambda o: (
        Fault.raising(NotFound(o.name)) if (o.kind, o.name[:8]) == ("get", "pending/") else None
    )
    with pytest.raises(LogInconsistent, match="acknowledged batch is missing"):
        await sequencer_of(store).step()


async def test_a_helper_writes_the_head_again_where_equal_bytes_prove_nothing():
    store = FaultyStore(MemoryStore())
    await new_log(store)
    await put_batch(store, 1, [b"one"])
    store.plan = lambda o: Fault.BEFORE if o.name.startswith("tile/") else None
    with pytest.raises(StorageUnavailable):
        await sequencer_of(store).step()
    store.plan = lambda _: None
    before = (await store.head("head")).version
    lost = [Fault.LOST_BEFORE]
    store.plan = lambda o: lost.pop() if lost and o.kind == "replace" else None
    sequencer = sequencer_of(store, rewrite_equal=True)
    with pytest.raises(StorageUnavailable):
        await sequencer.step()
    assert (await store.head("head")).version == before
    await finish(sequencer)
    assert (await store.head("head")).version != before
    assert await check_log(store.inner, SIGNER) == [b"one"]


async def test_tiles_that_are_too_large_or_missing_are_an_inconsistent_log():
    store = MemoryStore()
    await grown_log(store, (300,))
    checkpoint = (await Publications(store, [SIGNER.verifier], origin=ORIGIN).read()).checkpoint
    fetch = store_fetch(store, store)
    for error in (NotFound("x"), CorruptObject("x")):

        async def broken(path, error=error):
            if path == "tile/0/000":
                raise error
            return await fetch(path)

        with pytest.raises(LogInconsistent):
            await TreeReader(broken, checkpoint).entry(0)
    with pytest.raises(LogInconsistent):
        await TreeReader(fetch, checkpoint).bundle(2)

    async def damaged(path):
        return b"\xff" if path.startswith("tile/entries") else await fetch(path)

    with pytest.raises(LogInconsistent, match="damaged"):
        await TreeReader(damaged, checkpoint).entry(0)


def test_the_cache_of_tiles_is_bounded():
    cache = TileCache(max_tiles=2)
    for index in range(3):
        cache.put(0, index, b"x")
    assert [cache.get(0, index) for index in range(3)] == [None, b"x", b"x"]


async def test_a_reader_without_a_private_key_answers_like_the_service():
    store = MemoryStore()
    log = await grown_log(store, (300,))
    reader = LogReader(**stores_of(store), verifiers=[SIGNER.verifier], origin=ORIGIN)
    assert await reader.published() == await log.published()
    assert await reader.checkpoint_note() == await log.checkpoint_note()
    assert await reader.proof(299) == await log.proof(299)
    assert await reader.consistency_proof(5, 300) == await log.consistency_proof(5, 300)


async def commits(store, count):
    sequencer = sequencer_of(store, limits=SequencerLimits(batches=1))
    for number in range(1, count + 1):
        await put_batch(store, number, [b"%d" % number])
    await finish(sequencer)


async def test_what_is_known_of_batches_is_bounded_and_found_again():
    store = MemoryStore()
    await new_log(store)
    await commits(store, 80)
    index = CommitIndex(store, origin=ORIGIN, max_batches=4)
    for number in (80, 1, 40, 1, 79):
        assert await index.first_index(str(BatchName(BOOT, number)), published=80) == number - 1
    assert await index.first_index(str(BatchName(BOOT, 81)), published=80) is None
    assert await index.first_index(str(BatchName(BOOT, 80)), published=79) is None
    with pytest.raises(Malformed):
        await index.first_index("pending/x", published=80)


class SlowlyListing:
    """The store, but each name of a listing comes after others had a turn."""

    def __init__(self, store):
        self.store = store
        self.get = store.get

    async def list(self, prefix, *, start_after=""):
        async for info in self.store.list(prefix, start_after=start_after):
            await anyio.lowlevel.checkpoint()
            yield info


async def test_two_who_look_for_their_batches_at_the_same_time_list_the_commits_once():
    store = MemoryStore()
    await new_log(store)
    await commits(store, 80)
    index = CommitIndex(SlowlyListing(store), origin=ORIGIN)
    found = []

    async def look(number):
        found.append(await index.first_index(str(BatchName(BOOT, number)), published=80))

    async with anyio.create_task_group() as group:
        for number in (1, 2, 3):
            group.start_soon(look, number)
    assert sorted(found) == [0, 1, 2]
    assert index._sizes == list(range(1, 81))


async def test_a_missing_or_misnamed_copy_of_a_commit_is_an_inconsistent_log():
    store = MemoryStore()
    await new_log(store)
    await commits(store, 60)
    broken = copy.deepcopy(store)
    await broken.delete("commit/00000000000000000050")
    with pytest.raises(LogInconsistent, match="missing"):
        await CommitIndex(broken, origin=ORIGIN).first_index(str(BatchName(BOOT, 1)), published=60)
    await store.create("commit/7", b"x")
    with pytest.raises(LogInconsistent, match="not the name"):
        await CommitIndex(store, origin=ORIGIN).first_index(str(BatchName(BOOT, 1)), published=60)


async def test_a_batch_that_a_forgotten_boot_never_wrote_is_not_found():
    store = MemoryStore()
    await new_log(store)
    await commits(store, 60)
    name = BatchName(boot_id(1e9 - 48 * 3600, os.urandom), 1)
    assert await CommitIndex(store, origin=ORIGIN).first_index(str(name), published=60) is None


async def test_fsck_stops_listing_at_its_bound():
    store = MemoryStore()
    await new_log(store)
    for number in range(MAX_FINDINGS + 5):
        await store.create(f"tile/0/stray{number}", b"x")
    report = await fsck(**stores_of(store), verifiers=[SIGNER.verifier], origin=ORIGIN)
    assert len(report.findings) == MAX_FINDINGS


async def test_fsck_names_an_object_that_is_too_large():
    store = MemoryStore()
    await grown_log(store, (3,))
    info = await store.head("tile/entries/000.p/3")
    await store.replace(info.name, bytes(20_000_000), expected=info.version)
    report = await fsck(**stores_of(store), verifiers=[SIGNER.verifier], origin=ORIGIN)
    assert any(finding.path == info.name for finding in report.findings)
