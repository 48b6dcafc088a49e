"""Is an index what it should be? Every row, set and count, from its own proof up.

With the log beside it, each row is also compared with its leaf. Without, a row is held to its
seal and its leaf's hash to the tree: what is found then is damage, or a hand that did not know
seals; a forger who makes seals anew is found with the log only.
"""

import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass

from secure_cache.audit.building import LogSource, Progress, batches, require_extension
from secure_cache.audit.quick import read_leaf
from secure_cache.audit.row import Row
from secure_cache.audit.schema import SELECTED
from secure_cache.audit.segment import groups, postings, slices
from secure_cache.audit.state import IndexState, read_state
from secure_cache.model.errors import DamagedIndex
from secure_cache.tlog.checkpoint import Checkpoint
from secure_cache.tlog.edge import Edge

MAX_FINDINGS = 100


@dataclass(frozen=True, slots=True)
class IndexFinding:
    """One difference: `what` differs, and `why` in words."""

    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.what}: {self.why}"


def check_itself(connection: sqlite3.Connection) -> Iterator[IndexFinding]:
    """Everything that can be seen without the log. Reads the whole file.

    Raises: DamagedIndex: so much is wrong that nothing more can be said.
    """
    for (problem,) in connection.execute(f"PRAGMA integrity_check({MAX_FINDINGS})"):
        if problem != "ok":
            yield IndexFinding("the file", str(problem))
    state = read_state(connection)
    edge = Edge.empty()
    for segment in range(state.segments + 1):
        first = segment * state.segment
        rows: list[Row] = []
        expected = min(state.segment, state.size - first)
        for stored in _stored(connection, first, state.segment):
            try:
                rows.append(Row.unseal(stored))
            except DamagedIndex as error:
                yield IndexFinding(f"entry {stored[0]}", str(error))
        if [row.number for row in rows] != list(range(first, first + expected)):
            yield IndexFinding(f"entries {first} to {first + expected - 1}", "not all are there")
            return
        edge, _ = edge.extend([row.leaf for row in rows])
        if segment < state.segments:
            yield from _check_segment(connection, segment, rows)
    if edge != state.edge:
        yield IndexFinding("the leaf hashes", "they do not lead to the root that was verified")
    yield from _check_extent(connection, state)


def _check_segment(
    connection: sqlite3.Connection, segment: int, rows: list[Row]
) -> Iterator[IndexFinding]:
    columns = [(number, it.low, it.high, it.encode()) for number, it in slices(rows)]
    counts = [(number, it.summary, it.codes) for number, it in groups(rows)]
    for table, expected in (
        ("postings", list(postings(rows))),
        ("slices", columns),
        ("groups", counts),
    ):
        stored = connection.execute(
            f"SELECT * FROM {table} WHERE segment = ? ORDER BY 1, 2, 3",  # noqa: S608 - our names
            (segment,),
        )
        if [row[1:] for row in stored] != expected:
            yield IndexFinding(f"{table} of segment {segment}", "they are not what its rows give")


def _check_extent(connection: sqlite3.Connection, state: IndexState) -> Iterator[IndexFinding]:
    """Nothing is there that should not be."""
    for table in ("postings", "slices", "groups"):
        (beyond,) = connection.execute(
            f"SELECT count(*) FROM {table} WHERE segment < 0 OR segment >= ?",  # noqa: S608
            (state.segments,),
        ).fetchone()
        if beyond:
            yield IndexFinding(table, f"{beyond} are of segments that there are not")
    (beyond,) = connection.execute(
        "SELECT count(*) FROM entries WHERE number < 0 OR number >= ?", (state.size,)
    ).fetchone()
    if beyond:
        yield IndexFinding("entries", f"{beyond} are beyond the log")


def _stored(connection: sqlite3.Connection, first: int, count: int) -> Iterator[tuple[object, ...]]:
    return connection.execute(
        f"SELECT {SELECTED} FROM entries WHERE number >= ? AND number < ? ORDER BY number",  # noqa: S608
        (first, first + count),
    )


async def check_against(
    log: LogSource,
    indexed: Checkpoint,
    rows_of: Callable[[int, int], Awaitable[list[Row]]],
    progress: Progress | None = None,
) -> list[IndexFinding]:
    """Compare each row with its leaf.

    Args:
        log: where the leaves are.
        indexed: what is indexed, as a tree.
        rows_of: gives the rows from one number up to, not including, another.
        progress: told now and then.

    Raises:
        LogInconsistent: the log does not lead on from what is indexed.
        StorageUnavailable: nothing is known.
    """
    await require_extension(log, indexed, await log.published())
    found: list[IndexFinding] = []
    async with aclosing(batches(log, 0, indexed.size)) as parts:
        async for part in parts:
            end = part.first + len(part.leaves)
            rows = await rows_of(part.first, end)
            pairs = zip(rows, part.leaves, strict=True)
            for number, (row, leaf) in enumerate(pairs, part.first):
                if row != read_leaf(number, leaf):
                    found.append(
                        IndexFinding(f"entry {number}", "its row is not what its leaf says")
                    )
            if progress is not None:
                progress(end, indexed.size)
            if len(found) >= MAX_FINDINGS:
                break
    return found[:MAX_FINDINGS]
