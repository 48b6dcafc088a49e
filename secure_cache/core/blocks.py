"""What is proved of an artifact's bytes, block by block, and remembered.

An entry signs the SHA-256 of each chunk of 4 MiB. Whoever has proved a chunk knows the SHA-256 of
each of its blocks, and from then on a block can be proved by itself: 256 KiB in hand instead of
4 MiB, and whichever file or store it was read from.
"""

import hashlib
from typing import Final

from secure_cache.core.budget import Budget
from secure_cache.core.catalog import Held
from secure_cache.model.entry import CHUNK_BYTES, Entry
from secure_cache.model.errors import CorruptObject

BLOCK_BYTES: Final = 256 * 1024
"""Divides a chunk: a block never lies in two of them."""

_LIST_OVERHEAD_BYTES = 512


class BlockList:
    """The SHA-256 of each block of one artifact, from its start as far as it is proved.

    Attributes:
        size: of the artifact, in bytes.
        file: the identity of a local file that was read whole and is this artifact, or None.
    """

    __slots__ = ("_digests", "file", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.file: str | None = None
        self._digests = bytearray()

    @property
    def upto(self) -> int:
        """The bytes, from the start, whose blocks are known."""
        return min(self.size, len(self._digests) // 32 * BLOCK_BYTES)

    def add(self, offset: int, digests: bytes) -> None:
        """Take in a proved chunk at `offset`. What is known already, or not next, is left."""
        if offset == self.upto and offset < self.size:
            self._digests += digests

    def check(self, offset: int, data: bytes) -> None:
        """Check one whole block. Hashes 256 KiB.

        Raises: CorruptObject, also when nothing is known of it.
        """
        at = offset // BLOCK_BYTES * 32
        wanted = min(BLOCK_BYTES, self.size - offset)
        known = self._digests[at : at + 32]
        if offset % BLOCK_BYTES or len(data) != wanted or hashlib.sha256(data).digest() != known:
            raise CorruptObject(f"the bytes from {offset} on are not those that were proved")


class BlockLists:
    """Those of the artifacts that were served last, within a budget of bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._lists: Budget[tuple[str, bytes], BlockList] = Budget(max_bytes)

    def of(self, entry: Entry) -> BlockList:
        key = (entry.entry_id, entry.digest.raw)
        found = self._lists.get(key)
        if found is None:
            found = BlockList(entry.size)
            cost = _LIST_OVERHEAD_BYTES + -(-entry.size // BLOCK_BYTES) * 32
            self._lists.keep(key, found, cost_bytes=cost)
        return found


def prove_chunk(held: Held, offset: int, data: bytes) -> bytes:
    """Check one whole chunk against the entry, and give the SHA-256 of each of its blocks.

    Hashes the chunk twice: for worker threads.

    Raises:
        CorruptObject: these are not the bytes that the entry states.
    """
    digests = held.chunks or held.entry.digest.raw
    at = offset // CHUNK_BYTES * 32
    wanted = min(CHUNK_BYTES, held.entry.size - offset)
    if (
        offset % CHUNK_BYTES
        or len(data) != wanted
        or hashlib.sha256(data).digest() != digests[at : at + 32]
    ):
        raise CorruptObject(f"the bytes from {offset} on are not those that its entry states")
    view = memoryview(data)
    return b"".join(
        hashlib.sha256(view[start : start + BLOCK_BYTES]).digest()
        for start in range(0, len(data), BLOCK_BYTES)
    )
