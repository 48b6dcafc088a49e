"""How far an index has come: the one row that says which log it is of, and proves where it ends."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from secure_cache.audit.bits import MAX_ROWS
from secure_cache.model.errors import DamagedIndex, LogInconsistent, Malformed, StorageUnavailable
from secure_cache.tlog.checkpoint import Checkpoint
from secure_cache.tlog.edge import Edge, edge_widths
from secure_cache.tlog.merkle import HASH_BYTES

SEGMENT_ROWS = 16_384


@dataclass(frozen=True, slots=True)
class IndexState:
    """See the module.

    Attributes:
        origin: the log's; empty before the first entry.
        segment: rows of a full segment.
        edge: the tree's right edge after the last indexed entry; all that is indexed leads to it.
        note: the newest signed checkpoint that the index was led to; empty before.
    """

    origin: str
    segment: int
    edge: Edge
    note: bytes

    @property
    def size(self) -> int:
        """How many entries are indexed."""
        return self.edge.size

    @property
    def checkpoint(self) -> Checkpoint:
        """What is indexed, as a tree."""
        return Checkpoint(self.origin or "?", self.size, self.edge.root())

    @property
    def segments(self) -> int:
        """How many segments are full."""
        return self.size // self.segment

    def grown(self, hashes: Sequence[bytes]) -> Self:
        """After entries with these leaf hashes."""
        edge, _ = self.edge.extend(hashes)
        return replace(self, edge=edge)


def read_state(connection: sqlite3.Connection) -> IndexState:
    """Raises: DamagedIndex: it contradicts itself, or the rows."""
    row = connection.execute("SELECT * FROM state").fetchone()
    last = connection.execute("SELECT max(number) FROM entries").fetchone()[0]
    if row is None:
        if last is not None:
            raise DamagedIndex("it has rows, and does not say how far it has come")
        return IndexState("", SEGMENT_ROWS, Edge.empty(), b"")
    _, origin, segment, size, root, edge, note = row
    try:
        state = IndexState(origin, segment, _decode_edge(size, edge), note)
        if state.edge.root() != root or not 0 < segment <= MAX_ROWS or not origin:
            raise DamagedIndex("how far it has come does not fit its proof")
    except (TypeError, ValueError, LogInconsistent, Malformed) as error:
        raise DamagedIndex("how far it has come is not well formed") from error
    if (-1 if last is None else last) != size - 1:
        raise DamagedIndex(f"its rows do not end at entry {size - 1}")
    return state


def write_state(connection: sqlite3.Connection, before: IndexState, after: IndexState) -> None:
    """Within a transaction. Raises: StorageUnavailable: somebody else wrote meanwhile."""
    if read_size(connection) != before.size:
        # Of a builder that was killed, its helper may have finished one more batch.
        raise StorageUnavailable("another process has built further meanwhile")
    connection.execute("DELETE FROM state")
    connection.execute(
        "INSERT INTO state VALUES (1, ?, ?, ?, ?, ?, ?)",
        (
            after.origin,
            after.segment,
            after.size,
            after.edge.root(),
            b"".join(hash_ for level in after.edge.levels for hash_ in level),
            after.note,
        ),
    )


def read_size(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT size FROM state").fetchone()
    return 0 if row is None else int(row[0])


def _decode_edge(size: int, data: bytes) -> Edge:
    hashes = [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]
    levels: list[tuple[bytes, ...]] = []
    for width in edge_widths(size):
        levels.append(tuple(hashes[:width]))
        del hashes[:width]
    if hashes or any(len(hash_) != HASH_BYTES for level in levels for hash_ in level):
        raise DamagedIndex("the tree's right edge is not well formed")
    return Edge(size, tuple(levels))
