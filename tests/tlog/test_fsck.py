"""fsck finds every difference, says where it is, and calls nothing wrong that is not."""

import copy

import pytest
from fakes.faults import Fault, FaultyStore
from fakes.logs import SIGNER, finish, grown_log, new_log, put_batch, sequencer_of, stores_of

from secure_cache.model.errors import LogInconsistent, StorageUnavailable
from secure_cache.storage.memory import MemoryStore
from secure_cache.tlog.fsck import fsck
from secure_cache.tlog.tiles import FANOUT

pytestmark = pytest.mark.anyio


async def look(store):
    return await fsck(**stores_of(store), verifiers=[SIGNER.verifier], origin=SIGNER.name)


@pytest.fixture(scope="module")
def base():
    import anyio

    async def make():
        store = MemoryStore()
        await grown_log(store, (1, 200, 300, 520, 600))
        return store

    return anyio.run(make)


@pytest.fixture
def store(base):
    return copy.deepcopy(base)


async def test_a_sound_log_is_sound(store):
    report = await look(store)
    report.require_clean()
    assert report.entries == report.checkpoint.size == 600
    assert (report.pending, report.unpublished) == (0, 0)


async def test_an_empty_log_is_sound():
    store = MemoryStore()
    await new_log(store)
    report = await look(store)
    report.require_clean()
    assert report.entries == 0


async def test_pending_batches_and_an_unfinished_commit_are_no_errors(store):
    await put_batch(store, 1, [b"a", b"b"])
    report = await look(store)
    report.require_clean()
    assert report.pending == 2
    faulty = FaultyStore(store, lambda o: Fault.BEFORE if o.name == "checkpoint" else None)
    faulty.plan = lambda o: Fault.BEFORE if (o.kind, o.name) == ("replace", "checkpoint") else None
    with pytest.raises(StorageUnavailable):
        await sequencer_of(faulty).step()
    report = await look(store)
    report.require_clean()
    assert (report.entries, report.unpublished) == (600, 2)
    await finish(sequencer_of(store))
    (await look(store)).require_clean()


def flip(data, at):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


async def names_of(store):
    return [info.name for prefix in ("tile/", "commit/") async for info in store.list(prefix)] + [
        "checkpoint",
        "head",
    ]


async def test_a_flipped_bit_anywhere_is_found(store):
    for name in await names_of(store):
        stored = await store.get(name, max_bytes=1 << 24)
        for at in {0, len(stored.data) // 2, len(stored.data) - 1}:
            broken = copy.deepcopy(store)
            await broken.replace(name, flip(stored.data, at), expected=stored.info.version)
            report = await look(broken)
            assert report.findings, (name, at)
            with pytest.raises(LogInconsistent):
                report.require_clean()


@pytest.mark.parametrize("name", ["tile/entries/000", "tile/entries/001", "tile/entries/002.p/88"])
async def test_a_changed_bundle_is_named_before_all_that_follows_from_it(store, name):
    stored = await store.get(name, max_bytes=1 << 24)
    await store.replace(name, flip(stored.data, 700), expected=stored.info.version)
    first, *others = (await look(store)).findings
    assert (first.path, "were signed" in first.problem) == (name, True)
    assert others


@pytest.mark.parametrize("name", ["tile/0/000", "tile/0/002.p/88"])
async def test_a_changed_tile_blames_no_bundle(store, name):
    stored = await store.get(name, max_bytes=1 << 24)
    await store.replace(name, flip(stored.data, 700), expected=stored.info.version)
    assert name in {finding.path for finding in (await look(store)).findings}
    assert not [f for f in (await look(store)).findings if "were signed" in f.problem]


async def test_a_missing_file_is_found_and_named(store):
    for name in await names_of(store):
        broken = copy.deepcopy(store)
        await broken.delete(name)
        report = await look(broken)
        partial_of_a_larger = ".p/" in name and not name.endswith(("/88", "1/000.p/2"))
        if partial_of_a_larger:
            report.require_clean()
        else:
            assert any(finding.path == name for finding in report.findings), name


async def test_a_truncated_or_longer_file_is_found(store):
    for name in await names_of(store):
        stored = await store.get(name, max_bytes=1 << 24)
        for data in (b"", stored.data[:-1], stored.data + b"\x00\x01x"):
            broken = copy.deepcopy(store)
            await broken.replace(name, data, expected=stored.info.version)
            assert (await look(broken)).findings, (name, len(data))


@pytest.mark.parametrize(
    "name",
    [
        "tile/0/0000",
        "tile/0/003",
        "tile/entries/002.p/100",
        "tile/2/000.p/1",
        "commit/00000000000000000601",
        "commit/601",
        "pending/stray",
    ],
)
async def test_a_file_that_does_not_belong_there_is_found(store, name):
    await store.create(name, bytes(32))
    assert any(finding.path == name for finding in (await look(store)).findings)


async def test_two_exchanged_bundles_are_found(store):
    first, second = "tile/entries/000", "tile/entries/001"
    data = [(await store.get(name, max_bytes=1 << 24)).data for name in (first, second)]
    for name, other in zip((first, second), reversed(data), strict=True):
        await store.replace(name, other, expected=(await store.head(name)).version)
    assert (await look(store)).findings


async def test_a_batch_whose_predecessor_vanished_is_found(store):
    await put_batch(store, 2, [b"second"])
    (finding,) = (await look(store)).findings
    assert "before it is missing" in finding.problem


async def test_a_damaged_pending_batch_is_found(store):
    name = await put_batch(store, 1, [b"entry"])
    stored = await store.get(name, max_bytes=1 << 20)
    await store.replace(name, flip(stored.data, 40), expected=stored.info.version)
    (finding,) = (await look(store)).findings
    assert finding.path == name
    assert finding.remedy


async def test_another_key_is_a_finding(store):
    from secure_cache.tlog.note import Ed25519NoteSigner

    other = Ed25519NoteSigner(SIGNER.name, bytes(32))
    report = await fsck(**stores_of(store), verifiers=[other.verifier], origin=SIGNER.name)
    assert report.checkpoint is None
    assert [finding.path for finding in report.findings] == ["checkpoint"]
    assert report.entries == 600


async def test_a_store_that_does_not_answer_is_not_a_sound_log(store):
    faulty = FaultyStore(
        store, lambda o: Fault.BEFORE if o.name.startswith("tile/entries/001") else None
    )
    with pytest.raises(StorageUnavailable):
        await look(faulty)


async def test_findings_are_bounded_and_each_names_its_file_and_a_remedy(store):
    async for info in store.list("tile/"):
        await store.replace(info.name, bytes(FANOUT), expected=info.version)
    report = await look(store)
    assert 0 < len(report.findings) <= 1000
    for finding in report.findings:
        assert finding.path
        assert finding.remedy
        assert str(finding).startswith(finding.path)
