"""Inclusion and consistency proofs: RFC 6962 construction, RFC 9162 verification. Pure.

Verification is stricter than the RFC where the public vectors are: every hash has 32 bytes, and
there is no consistency proof from the empty tree (whoever starts from nothing must say so).
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from secure_cache.model.errors import LogInconsistent
from secure_cache.tlog.merkle import HASH_BYTES, node_hash

Range: TypeAlias = tuple[int, int]
"""Entries from the first number up to, not including, the second."""

Node: TypeAlias = tuple[int, int]
"""A complete subtree: (level, index) covers entries index * 2**level and the 2**level from it."""

HashSource: TypeAlias = Callable[[Node], bytes]

MAX_PROOF_HASHES = 63


def inclusion_ranges(index: int, size: int) -> tuple[Range, ...]:
    """The subtrees whose hashes prove entry `index` of `size`, the leaf's sibling first.

    Raises:
        LogInconsistent: the tree has no such entry.
    """
    if not 0 <= index < size:
        raise LogInconsistent(f"a tree of {size} entries has no entry {index}")
    path: list[Range] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append((middle, end))
            end = middle
        else:
            path.append((start, middle))
            start = middle
    return tuple(reversed(path))


def consistency_ranges(old: int, new: int) -> tuple[Range, ...]:
    """The subtrees whose hashes prove that a tree of `new` entries extends that of `old`.

    Raises:
        LogInconsistent: not 0 < old <= new.
    """
    if not 0 < old <= new:
        raise LogInconsistent(f"no consistency proof from {old} to {new} entries")
    path: list[Range] = []
    start, end, known = 0, new, True
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            path.append((middle, end))
            end = middle
        else:
            path.append((start, middle))
            start, known = middle, False
    if not known:
        path.append((start, end))
    return tuple(reversed(path))


def nodes_of(span: Range) -> tuple[Node, ...]:
    """The complete subtrees that make up a range of `*_ranges`, from the left."""
    start, end = span
    nodes: list[Node] = []
    while start < end:
        level = (end - start).bit_length() - 1
        nodes.append((level, start >> level))
        start += 1 << level
    return tuple(nodes)


def build(ranges: Sequence[Range], source: HashSource) -> tuple[bytes, ...]:
    """The proof's hashes, each folded from the complete subtrees that `source` knows."""
    proof: list[bytes] = []
    for span in ranges:
        *left, acc = [source(node) for node in nodes_of(span)]
        for hash_ in reversed(left):
            acc = node_hash(hash_, acc)
        proof.append(acc)
    return tuple(proof)


def verify_inclusion(
    *, index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes
) -> None:
    """RFC 9162, 2.1.3.2: `leaf` is the hash of entry `index` of the tree with this root.

    Raises:
        LogInconsistent: the proof does not show that.
    """
    _check_hashes(leaf, root, *proof)
    if not 0 <= index < size:
        raise LogInconsistent(f"a tree of {size} entries has no entry {index}")
    first, last = index, size - 1
    acc = leaf
    for hash_ in proof:
        if last == 0:
            raise LogInconsistent("the inclusion proof is too long")
        if first & 1 or first == last:
            acc = node_hash(hash_, acc)
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            acc = node_hash(acc, hash_)
        first, last = first >> 1, last >> 1
    if last != 0:
        raise LogInconsistent("the inclusion proof is too short")
    if acc != root:
        raise LogInconsistent("the inclusion proof does not lead to the root")


def verify_consistency(
    *, old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """RFC 9162, 2.1.4.2: the new tree is the old one with entries appended.

    Raises:
        LogInconsistent: the proof does not show that, or `old_size` is 0.
    """
    _check_hashes(old_root, new_root, *proof)
    if not 0 < old_size <= new_size:
        raise LogInconsistent(f"no consistency proof from {old_size} to {new_size} entries")
    if old_size == new_size:
        if proof or old_root != new_root:
            raise LogInconsistent("two roots for one size")
        return
    path = list(proof)
    if old_size & (old_size - 1) == 0:
        path.insert(0, old_root)
    if not path:
        raise LogInconsistent("the consistency proof is too short")
    first, last = old_size - 1, new_size - 1
    while first & 1:
        first, last = first >> 1, last >> 1
    old, new, last = _climb(path, first, last)
    if last != 0:
        raise LogInconsistent("the consistency proof is too short")
    if old != old_root or new != new_root:
        raise LogInconsistent("the consistency proof does not lead to both roots")


def _climb(path: Sequence[bytes], first: int, last: int) -> tuple[bytes, bytes, int]:
    old = new = path[0]
    for hash_ in path[1:]:
        if last == 0:
            raise LogInconsistent("the consistency proof is too long")
        if first & 1 or first == last:
            old, new = node_hash(hash_, old), node_hash(hash_, new)
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            new = node_hash(new, hash_)
        first, last = first >> 1, last >> 1
    return old, new, last


def _split(size: int) -> int:
    """The largest power of two below `size`."""
    return 1 << ((size - 1).bit_length() - 1)


def _check_hashes(*hashes: bytes) -> None:
    if any(len(hash_) != HASH_BYTES for hash_ in hashes):
        raise LogInconsistent("a hash in a proof has 32 bytes")
