"""RFC 6962 trees and RFC 9162 proofs: public vectors, an oracle, and every one-bit flip."""

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tools import require_vectors

from secure_cache.model.errors import LogInconsistent
from secure_cache.tlog.edge import Edge
from secure_cache.tlog.merkle import EMPTY_ROOT, leaf_hash, node_hash, tree_hash
from secure_cache.tlog.proof import (
    build,
    consistency_ranges,
    inclusion_ranges,
    verify_consistency,
    verify_inclusion,
)

# The reference leaves of transparency-dev/merkle (Apache-2.0).
LEAVES = [
    bytes.fromhex(leaf)
    for leaf in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def oracle(hashes):
    """RFC 6962, 2.1, word for word."""
    if len(hashes) < 2:
        return hashes[0] if hashes else EMPTY_ROOT
    k = 1
    while 2 * k < len(hashes):
        k *= 2
    return node_hash(oracle(hashes[:k]), oracle(hashes[k:]))


def source_of(hashes):
    return lambda node: oracle(hashes[node[1] << node[0] : (node[1] + 1) << node[0]])


def leaves_of(count):
    return [leaf_hash(b"%d" % i) for i in range(count)]


@pytest.mark.parametrize("size", range(1, 9))
def test_reference_leaves_give_the_reference_roots(size):
    hashes = [leaf_hash(leaf) for leaf in LEAVES[:size]]
    assert tree_hash(hashes).hex() == ROOTS[size - 1]
    assert Edge.empty().extend(hashes)[0].root().hex() == ROOTS[size - 1]


def test_the_empty_tree_is_the_hash_of_nothing():
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert Edge.empty().root() == tree_hash(()) == EMPTY_ROOT


def test_reference_proofs_are_built_and_verify():
    hashes = [leaf_hash(leaf) for leaf in LEAVES]
    inclusion = build(inclusion_ranges(5, 8), source_of(hashes))
    assert [h.hex() for h in inclusion] == [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]
    consistency = build(consistency_ranges(6, 8), source_of(hashes))
    assert [h.hex() for h in consistency] == [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]


def public_cases(kind):
    document = json.loads(require_vectors("merkle-proofs.json").read_text())
    return document[kind].items()


def raw(text):
    return base64.b64decode(text or "")


def refuses(verify):
    try:
        verify()
    except LogInconsistent:
        return True
    return False


def test_public_inclusion_vectors():
    cases = public_cases("inclusion")
    assert len(cases) == 98
    for name, case in cases:

        def verify(case=case):
            verify_inclusion(
                index=case["leafIdx"],
                size=case["treeSize"],
                leaf=raw(case["leafHash"]),
                proof=[raw(hash_) for hash_ in case["proof"] or ()],
                root=raw(case["root"]),
            )

        assert refuses(verify) == case["wantErr"], name


# Its roots are two placeholders of 12 bytes; ours refuses what is not a hash before it compares.
NOT_HASHES = "additional/sizes-are-equal-one-and-proof-is-empty"


def test_public_consistency_vectors():
    cases = public_cases("consistency")
    assert len(cases) == 98
    for name, case in cases:

        def verify(case=case):
            verify_consistency(
                old_size=case["size1"],
                new_size=case["size2"],
                old_root=raw(case["root1"]),
                new_root=raw(case["root2"]),
                proof=[raw(hash_) for hash_ in case["proof"] or ()],
            )

        assert refuses(verify) == (case["wantErr"] or name == NOT_HASHES), name


@given(st.integers(1, 600), st.data())
@settings(max_examples=60, deadline=None)
def test_every_inclusion_proof_verifies_and_no_bit_may_flip(size, data):
    hashes = leaves_of(size)
    index = data.draw(st.integers(0, size - 1))
    proof = build(inclusion_ranges(index, size), source_of(hashes))
    root = oracle(hashes)
    claim = {"index": index, "size": size, "leaf": hashes[index], "root": root}
    verify_inclusion(proof=proof, **claim)
    for flipped in one_bit_flips(proof, data):
        with pytest.raises(LogInconsistent):
            verify_inclusion(proof=flipped, **claim)
    for wrong in (proof[:-1], (*proof, root)):
        if wrong != proof:
            with pytest.raises(LogInconsistent):
                verify_inclusion(proof=wrong, **claim)
    with pytest.raises(LogInconsistent):
        verify_inclusion(proof=proof, **{**claim, "leaf": flip(hashes[index], 3)})


@given(st.integers(1, 600), st.data())
@settings(max_examples=60, deadline=None)
def test_every_consistency_proof_verifies_and_no_bit_may_flip(new, data):
    hashes = leaves_of(new)
    old = data.draw(st.integers(1, new))
    proof = build(consistency_ranges(old, new), source_of(hashes))
    claim = {
        "old_size": old,
        "new_size": new,
        "old_root": oracle(hashes[:old]),
        "new_root": oracle(hashes),
    }
    verify_consistency(proof=proof, **claim)
    for flipped in one_bit_flips(proof, data):
        with pytest.raises(LogInconsistent):
            verify_consistency(proof=flipped, **claim)
    for wrong in (proof[:-1], (*proof, hashes[0])):
        if wrong != proof:
            with pytest.raises(LogInconsistent):
                verify_consistency(proof=wrong, **claim)
    for root in ("old_root", "new_root"):
        with pytest.raises(LogInconsistent):
            verify_consistency(proof=proof, **{**claim, root: flip(claim[root], 9)})


def flip(hash_, bit):
    return bytes(b ^ (1 << bit % 8 if i == bit // 8 else 0) for i, b in enumerate(hash_))


def one_bit_flips(proof, data):
    """In every hash of the proof one bit, anywhere."""
    for at, hash_ in enumerate(proof):
        bit = data.draw(st.integers(0, 255))
        yield (*proof[:at], flip(hash_, bit), *proof[at + 1 :])


def test_every_single_bit_of_one_proof_matters():
    hashes = leaves_of(7)
    proof = build(inclusion_ranges(3, 7), source_of(hashes))
    for at in range(len(proof)):
        for bit in range(256):
            wrong = (*proof[:at], flip(proof[at], bit), *proof[at + 1 :])
            with pytest.raises(LogInconsistent):
                verify_inclusion(index=3, size=7, leaf=hashes[3], proof=wrong, root=oracle(hashes))


@pytest.mark.parametrize("old", [0, -1, 9])
def test_there_is_no_consistency_proof_from_nothing_or_from_the_future(old):
    with pytest.raises(LogInconsistent):
        consistency_ranges(old, 8)


@pytest.mark.parametrize("index", [-1, 8])
def test_there_is_no_inclusion_proof_outside_the_tree(index):
    with pytest.raises(LogInconsistent):
        inclusion_ranges(index, 8)


@given(st.lists(st.integers(0, 40), max_size=12), st.sampled_from([2, 4, 16]))
@settings(max_examples=60, deadline=None)
def test_growing_in_steps_gives_the_same_tree_as_growing_at_once(steps, fanout):
    hashes = leaves_of(sum(steps))
    edge = Edge.empty(fanout=fanout)
    tiles = {}
    for step in steps:
        edge, made = edge.extend(hashes[edge.size : edge.size + step])
        for tile in made:
            assert tiles.setdefault(tile.name, tile) == tile
        assert edge.root() == oracle(hashes[: edge.size])
    for tile in tiles.values():
        span = fanout**tile.level
        for at, hash_ in enumerate(tile.hashes):
            first = (tile.index * fanout + at) * span
            assert hash_ == oracle(hashes[first : first + span])


@pytest.mark.parametrize("size", [255, 256, 257, 65_535, 65_536, 65_537])
def test_the_right_edge_at_the_borders_of_tiles(size):
    hashes = leaves_of(size)
    edge, tiles = Edge.empty().extend(hashes)
    assert edge.root() == tree_hash(hashes)
    names = {tile.name for tile in tiles}
    if size >= 256:
        assert "tile/0/000" in names
        assert ("tile/1/000" in names) == (size >= 65_536)
    if size == 65_537:
        assert {"tile/0/256.p/1", "tile/2/000.p/1"} <= names
        assert "tile/1/001.p/1" not in names
