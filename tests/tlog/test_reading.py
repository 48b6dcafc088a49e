"""Whole logs: public ones, ours, and tampered ones."""

import base64
import hashlib
import json

import pytest
from fakes.logs import ORIGIN, SIGNER, grow, grown_log, new_log, open_log
from tools import require_vectors

from secure_cache.model.errors import LogInconsistent, Malformed, NotFound
from secure_cache.storage.memory import MemoryStore
from secure_cache.tlog.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from secure_cache.tlog.commit import grow as grow_tree
from secure_cache.tlog.edge import Edge
from secure_cache.tlog.merkle import leaf_hash
from secure_cache.tlog.note import Ed25519NoteSigner, Ed25519Verifier
from secure_cache.tlog.ports import Logged
from secure_cache.tlog.proof import verify_consistency, verify_inclusion
from secure_cache.tlog.reader import TreeReader
from secure_cache.tlog.tiles import TileId
from secure_cache.tlog.tlog_proof import TlogProof

pytestmark = pytest.mark.anyio

# transparency-dev/tessera, the log under testdata/log (Apache-2.0).
TESSERA = Ed25519Verifier.parse(
    "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx"
)
TESSERA_SEED = base64.b64decode("AeymY/SZAX0jZcJ8enZ5FY1Dz+wTML2yWSkK+9DSF3eg")[1:]
TESSERA_LEAVES = "one two three four five six seven eit nain ten ileven twelf"
TESSERA_LEAVES = [*TESSERA_LEAVES.split(), "threeten", "fourten", "fivten"]


def b64(text):
    return [base64.b64decode(word) for word in text.split()]


@pytest.fixture
def tessera():
    files = json.loads(require_vectors("tessera-testdata-log.json").read_text())
    return {path: base64.b64decode(data) for path, data in files.items()}


def fetch_from(files):
    async def fetch(path):
        if path not in files:
            raise NotFound(path)
        return files[path]

    return fetch


def opened(note):
    return open_checkpoint(note, [TESSERA], origin=TESSERA.name)


async def test_the_tessera_log_verifies_at_every_size(tessera):
    newest = opened(tessera["checkpoint"])
    reader = TreeReader(fetch_from(tessera), newest)
    for size in range(16):
        checkpoint = opened(tessera[f"checkpoint.{size}"])
        assert checkpoint.size == size
        assert await reader.root_at(size) == checkpoint.root
        then = TreeReader(fetch_from(tessera), checkpoint)
        entries = [entry.decode() async for _, entry in then.entries()]
        assert entries == TESSERA_LEAVES[:size]


async def test_our_code_makes_the_tessera_log_byte_for_byte(tessera):
    signer = Ed25519NoteSigner(TESSERA.name, TESSERA_SEED)
    edge, tail = Edge.empty(), b""
    for size, leaf in enumerate(TESSERA_LEAVES, 1):
        growth = grow_tree(edge, tail, [leaf.encode()])
        edge, tail = growth.after, growth.tail
        for name, data in growth.objects:
            assert tessera[name] == data
        note = await sign_checkpoint(Checkpoint(signer.name, size, growth.root), signer)
        assert note == tessera[f"checkpoint.{size}"]


async def test_proofs_of_the_tessera_log_are_those_that_go_verified(tessera):
    reader = TreeReader(fetch_from(tessera), opened(tessera["checkpoint"]))
    assert list(await reader.inclusion_proof(9)) == b64(
        "91HQqaPzWlbBsUDk3JvSpOTK7Bc4ifZGxXZzfABOmuU= UaHiSrgbkmaCsusBntn9ux0S2PsqH1y6DHQAxe6wrPg="
        " Oy+stN8Ie64lJ90ILA9yEeOWSzBgC+6RjoKksiWsR7Y= bC+VwvrJbalNVjfkdI8kUgs7mJoXrqiXCE7bgnD28pY="
    )
    assert list(await reader.consistency_proof(7)) == b64(
        "2Q0P5jSR+TdkwdXWyx+GbBWX0KZbNZkWzCjyTPSozsw= ThcgoV2DYcK+VCxBUDWAlNxmLy2r7dq7dK7+OlgQKWs="
        " ycRkkNklus5eMVRUvkD1pK321vMrA+jjOiZKU8aOcY4= zY1lN35vrXYAPixXSd59LsU29xUJtuW4o2dNNg5Y2Co="
        " 5jLpqTgjsBDSEX6SgZiRnbTMdTuRd8bQ5tSsAOxe0Ks="
    )


async def test_every_flipped_byte_of_the_tessera_log_is_found(tessera):
    checkpoint = opened(tessera["checkpoint"])
    for path in ("tile/0/000.p/15", "tile/entries/000.p/15"):
        for at in range(0, len(tessera[path]), 7):
            files = dict(tessera)
            files[path] = bytes(b ^ (i == at) for i, b in enumerate(files[path]))
            reader = TreeReader(fetch_from(files), checkpoint)
            with pytest.raises(LogInconsistent):
                [entry async for entry in reader.entries()]


def test_the_mirror_of_sunlight_has_our_tiles():
    # FiloSottile/sunlight, cmd/skylight/testdata: leaves `record 0` to `record 299`.
    growth = grow_tree(Edge.empty(), b"", [b"record %d" % i for i in range(300)])
    assert base64.b64encode(growth.root) == b"gw31yQrqZZCcEOPrzX+bpy3nJ6QgngTKn8G1m0i62uU="
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in growth.objects}
    assert digests["tile/0/000"] == (
        "66a1d43136a854a5776d5bce14bf101c925fc7d4b32f1be23b658f636ebfcddb"
    )
    assert digests["tile/0/001.p/44"] == (
        "699f078d937f13343d71ad39321757de3ecf391e8d7a1b2015ad38bd36f5d60a"
    )
    assert digests["tile/1/000.p/1"] == (
        "dcef9e571841bfe2defd16306f8a7d69f5054092fb8b7f983970c646f7f5fd85"
    )


SIZES = (1, 2, 255, 256, 257, 511, 512, 600)


async def test_every_entry_and_every_size_of_our_log_has_its_proofs():
    log = await grown_log(MemoryStore(), SIZES)
    newest = await log.published()
    roots = {}
    async for index, entry in log.entries():
        assert entry == b"record %d" % index
    for size in SIZES:
        roots[size] = await TreeReader(log.tile, newest).root_at(size)
    for index in (0, 1, 254, 255, 256, 511, 512, 599):
        proof = await log.proof(index)
        assert TlogProof.parse(bytes(proof)) == proof
        got = proof.verify(b"record %d" % index, [SIGNER.verifier], origin=ORIGIN)
        assert got == newest
        for size in SIZES:
            if index < size:
                verify_inclusion(
                    index=index,
                    size=size,
                    leaf=leaf_hash(b"record %d" % index),
                    proof=await log.inclusion_proof(index, size),
                    root=roots[size],
                )
    for old in SIZES:
        for new in SIZES:
            if old <= new:
                verify_consistency(
                    old_size=old,
                    new_size=new,
                    old_root=roots[old],
                    new_root=roots[new],
                    proof=await log.consistency_proof(old, new),
                )


async def test_a_proof_is_refused_for_another_entry_another_log_and_another_key():
    log = await grown_log(MemoryStore(), (5,))
    proof = await log.proof(2)
    for entry, verifier, origin in (
        (b"record 3", SIGNER.verifier, ORIGIN),
        (b"record 2", SIGNER.verifier, ORIGIN + "x"),
        (b"record 2", Ed25519NoteSigner(ORIGIN, bytes(32)).verifier, ORIGIN),
    ):
        with pytest.raises(LogInconsistent):
            proof.verify(entry, [verifier], origin=origin)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("c2sp.org/tlog-proof@v1\n", "c2sp.org/tlog-proof@v2\n"),
        ("c2sp.org/tlog-proof@v1\n", ""),
        ("index 2\n", ""),
        ("index 2\n", "index +2\n"),
        ("index 2\n", "index 02\n"),
        ("index 2\n", "index 2 \n"),
        ("index 2\n", "index 2\nindex 2\n"),
        ("index 2\n", "index 2\nextra AA==\n"),
        ("index 2\n", "extra\nindex 2\n"),
        ("index 2\n", "extra AA\nindex 2\n"),
        ("index 2\n", "extra AB==\nindex 2\n"),
        ("index 2\n", "index 2\nAA==\n"),
        ("=\n\n", "=\n"),
        ("index 2\n", "index 2\n\n"),
        ("index 2\n", "index 2\r\n"),
        ("index 2\n", "index 2\n" + "A" * 43 + "=" + "\n" * 1 + ("A" * 43 + "=\n") * 63),
        ("index 2\n", "index 9223372036854775808\n"),
    ],
)
async def test_a_proof_in_any_other_form_is_refused(old, new):
    proof = bytes(await (await grown_log(MemoryStore(), (5,))).proof(2)).decode()
    assert old in proof
    with pytest.raises((Malformed, LogInconsistent)):
        parse_and_verify(proof.replace(old, new, 1).encode())


def parse_and_verify(data):
    TlogProof.parse(data).verify(b"record 2", [SIGNER.verifier], origin=ORIGIN)


async def test_extra_data_of_a_proof_is_kept_apart_and_proves_nothing():
    proof = bytes(await (await grown_log(MemoryStore(), (5,))).proof(2))
    with_extra = proof.replace(b"index", b"extra aGVsbG8=\nindex", 1)
    parsed = TlogProof.parse(with_extra)
    assert parsed.unverified_extra == b"hello"
    assert bytes(parsed) == with_extra


async def test_what_is_not_published_is_not_found():
    log = await grown_log(MemoryStore(), (5,))
    for ask in (
        log.entry(5),
        log.entry(-1),
        log.proof(5),
        log.inclusion_proof(3, 6),
        log.inclusion_proof(3, 3),
        log.consistency_proof(0, 5),
        log.consistency_proof(4, 6),
        log.consistency_proof(5, 4),
        log.tile("tile/0/001"),
    ):
        with pytest.raises(NotFound):
            await ask
    for path in ("tile/0/000.p/05", "head", "checkpoint", "../keys", "tile/0/000/"):
        with pytest.raises(Malformed):
            await log.tile(path)


async def test_an_appended_entry_is_found_under_its_index():
    store = MemoryStore()
    log = await new_log(store)
    async with log.running():
        where = [await log.append(b"entry %d" % number) for number in range(40)]
    for reader in (log, open_log(store)):
        for number, logged in enumerate(where):
            index = await reader.index_of(logged)
            assert await reader.entry(index) == b"entry %d" % number
        assert await reader.index_of(Logged("pending/" + "f" * 32 + "/000000000001", 0)) is None


async def test_old_entries_are_found_by_bisecting_the_commits():
    store = MemoryStore()
    log = await new_log(store)
    where = []
    async with log.running():
        for number in range(100):
            where.append(await log.append(b"entry %d" % number))
            await log.flush()
    late = open_log(store)
    for number in (0, 50, 3, 99):
        assert await late.index_of(where[number]) == number


async def test_partial_tiles_are_swept_and_readers_fall_back_to_the_full_one():
    store = MemoryStore()
    log = await grown_log(store, (100, 200))
    early = await log.published()
    names = [info.name async for info in store.list("tile/")]
    assert "tile/entries/000.p/200" in names
    await grow(log, (300,))
    names = [info.name async for info in store.list("tile/")]
    assert not any(name.startswith(("tile/0/000.p", "tile/entries/000.p")) for name in names)
    reader = TreeReader(log.tile, early)
    assert [entry async for _, entry in reader.entries()] == [b"record %d" % i for i in range(200)]


async def test_a_tile_path_that_is_served_is_the_stored_one():
    log = await grown_log(MemoryStore(), (300,))
    assert len(await log.tile("tile/0/000")) == 8192
    assert TileId.parse("tile/1/000.p/1").width == 1
    assert len(await log.tile("tile/1/000.p/1")) == 32
