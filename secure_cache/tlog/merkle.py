"""RFC 6962 hashing: leaves, nodes, the Merkle tree hash. Pure."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()
"""The Merkle tree hash of no entries."""


def leaf_hash(entry: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def tree_hash(hashes: Sequence[bytes]) -> bytes:
    """MTH over leaf hashes; over none, `EMPTY_ROOT`.

    Combining neighbours and carrying an odd last one up is the same as RFC 6962's split at the
    largest power of two. Every hash may itself stand for a complete subtree of one common
    size, and the last for an incomplete one.
    """
    if not hashes:
        return EMPTY_ROOT
    sha256 = hashlib.sha256
    row = list(hashes)
    while len(row) > 1:
        pairs = [sha256(b"\x01" + row[i] + row[i + 1]).digest() for i in range(0, len(row) - 1, 2)]
        if len(row) % 2:
            pairs.append(row[-1])
        row = pairs
    return row[0]


@dataclass(slots=True)
class Peaks:
    """Complete subtrees from the left, largest first: gives the root at any size passed."""

    peaks: list[tuple[int, bytes]] = field(default_factory=list)

    def push(self, leaf: bytes) -> None:
        level = 0
        while self.peaks and self.peaks[-1][0] == level:
            leaf = node_hash(self.peaks.pop()[1], leaf)
            level += 1
        self.peaks.append((level, leaf))

    def root(self) -> bytes:
        if not self.peaks:
            return tree_hash(())
        root = self.peaks[-1][1]
        for _, peak in reversed(self.peaks[:-1]):
            root = node_hash(peak, root)
        return root
