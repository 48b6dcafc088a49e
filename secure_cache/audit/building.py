"""Building an index: from the entries of a log, proved batch by batch, to rows.

Nothing is written that was not led to a signed checkpoint first: each batch extends the right
edge of what was indexed before, and a consistency proof leads from there to the checkpoint. So
an index is at every moment a proved beginning of the log, and killing the one who builds leaves
exactly what the last batch left.
"""

import fcntl
import os
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, Self, TypeVar

import anyio
import msgspec

from secure_cache.audit.quick import read_leaf
from secure_cache.audit.row import Row
from secure_cache.audit.schema import INSERT_ENTRY, SELECTED, meaning_of, open_file, roll_back
from secure_cache.audit.segment import groups, postings, slices
from secure_cache.audit.state import IndexState, read_size, read_state, write_state
from secure_cache.model.errors import DamagedIndex, LogInconsistent
from secure_cache.tlog.checkpoint import Checkpoint
from secure_cache.tlog.merkle import HASH_BYTES
from secure_cache.tlog.proof import verify_consistency

_Item = TypeVar("_Item")
_Prepared = TypeVar("_Prepared")

BATCH_ENTRIES = 4096
BATCH_BYTES = 8 << 20
"""A batch ends at whichever comes first."""
BATCHES_AHEAD = 4

Progress = Callable[[int, int], None]
"""Called with how many entries are indexed, and how many there are."""


class LogSource(Protocol):
    """Where the entries come from: any `tlog.ports.PublishedLog` is one.

    All methods raise StorageUnavailable, and LogInconsistent for what does not lead to the
    signed root.
    """

    async def published(self) -> Checkpoint:
        """The newest signed checkpoint, verified."""
        ...

    async def checkpoint_note(self) -> bytes:
        """A signed note at least as new."""
        ...

    def entries(self, start: int = 0, end: int | None = None) -> AsyncIterator[tuple[int, bytes]]:
        """Index and bytes of the entries from `start` up to, not including, `end`."""
        ...

    async def consistency_proof(self, old: int, new: int) -> tuple[bytes, ...]: ...


@contextmanager
def building_lock(path: Path) -> Iterator[bool]:
    """True for the one process that may build now; given back by the kernel when it dies.

    Raises: StorageUnavailable, Misconfigured: its file cannot be opened, or not be locked.
    """
    descriptor = open_file(Path(f"{path}.lock"), os.O_RDWR | os.O_CREAT)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = True
        except BlockingIOError:
            ours = False
        except OSError as error:
            raise meaning_of(error, path) from error
        yield ours
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Leaves:
    """Some entries as they stand in the log; `first` is the index of the first."""

    first: int
    leaves: list[bytes]


async def batches(source: LogSource, start: int, end: int) -> AsyncGenerator[Leaves]:
    """The entries in batches of bounded size. Raises: LogInconsistent: one is left out."""
    batch = Leaves(start, [])
    size, expected = 0, start
    async for index, leaf in source.entries(start, end):
        if index != expected:
            raise LogInconsistent(f"the log gave entry {index} in place of {expected}")
        expected += 1
        batch.leaves.append(leaf)
        size += len(leaf)
        if len(batch.leaves) == BATCH_ENTRIES or size >= BATCH_BYTES:
            yield batch
            batch, size = Leaves(expected, []), 0
    if batch.leaves:
        yield batch
    if expected != end:
        raise LogInconsistent(f"the log has {end} entries, and gave {expected} of them")


async def work_on(
    items: AsyncGenerator[_Item],
    prepare: Callable[[_Item], Awaitable[_Prepared]],
    work: Callable[[_Prepared], Awaitable[None]],
) -> None:
    """Do `work` with one after another, in their order, while the next are read and prepared.

    Raises what one of them raises.
    """
    send_item, take_item = anyio.create_memory_object_stream[_Item](0)
    # Filling a segment takes as long as reading some batches: meanwhile those go on.
    send, take = anyio.create_memory_object_stream[_Prepared](BATCHES_AHEAD)

    async def read() -> None:
        async with send_item, aclosing(items):
            async for item in items:
                await send_item.send(item)

    async def make_ready() -> None:
        async with send, take_item:
            async for item in take_item:
                await send.send(await prepare(item))

    try:
        async with anyio.create_task_group() as group, take:
            group.start_soon(read)
            group.start_soon(make_ready)
            async for prepared in take:
                await work(prepared)
    except ExceptionGroup as failed:
        raise _first(failed) from failed


def _first(failed: ExceptionGroup[Exception]) -> Exception:
    error = failed.exceptions[0]
    return _first(error) if isinstance(error, ExceptionGroup) else error


async def require_extension(source: LogSource, indexed: Checkpoint, published: Checkpoint) -> None:
    """Check that the log leads on from what is indexed.

    Raises:
        LogInconsistent: it does not.
    """
    if not indexed.size:
        return
    if indexed.origin != published.origin:
        raise LogInconsistent(
            f"the index is of the log {indexed.origin!r}, not of {published.origin!r}"
        )
    if indexed.size > published.size:
        raise LogInconsistent(
            f"the log has {published.size} entries, and {indexed.size} were indexed before: it was"
            " put back to an older state, or another one was put in its place"
        )
    try:
        verify_consistency(
            old_size=indexed.size,
            new_size=published.size,
            old_root=indexed.root,
            new_root=published.root,
            proof=await source.consistency_proof(indexed.size, published.size),
        )
    except LogInconsistent as error:
        raise LogInconsistent(
            f"the log of {published.size} entries does not lead on from the {indexed.size} that"
            " were indexed: its history was changed, or the index was. Keep both, and compare the"
            " log with a witness or a mirror; an index that is to blame can be made anew"
        ) from error


@dataclass(frozen=True, slots=True)
class ReadBatch:
    """What was read from some leaves: packed, so that it can go from one process to another.

    Attributes:
        hashes: their leaf hashes, one after another.
        rows: their sealed rows.
    """

    hashes: bytes
    rows: bytes

    @classmethod
    def of(cls, first: int, leaves: Sequence[bytes]) -> Self:
        """Read leaves; `first` is the index of the first of them."""
        rows = [read_leaf(index, leaf) for index, leaf in enumerate(leaves, first)]
        return cls(
            b"".join(row.leaf for row in rows),
            msgspec.msgpack.encode([row.sealed() for row in rows]),
        )

    def unpack(self) -> tuple[list[bytes], list[tuple[object, ...]]]:
        """The leaf hashes and the sealed rows."""
        hashes = self.hashes
        return (
            [hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES)],
            _ROWS.decode(self.rows),
        )


_ROWS = msgspec.msgpack.Decoder(list[tuple[object, ...]])


class Builder:
    """Adds proved batches to an index, on the one connection that may write. Methods block.

    Raises (from all): DamagedIndex, and StorageUnavailable when another process wrote meanwhile.
    """

    def __init__(self, connection: sqlite3.Connection, *, segment: int) -> None:
        self._connection = connection
        self._new_segment = segment
        self._prepared: tuple[IndexState, list[tuple[object, ...]]] | None = None
        self._load()

    def _load(self) -> None:
        self.state = read_state(self._connection)
        # The rows after the last full segment, with which the next begins; None: still to be read.
        self._tail: list[Row] | None = None

    def begin(self) -> Checkpoint:
        """What is indexed, as a tree. Forgets what was prepared."""
        self._prepared = None
        if read_size(self._connection) != self.state.size:
            self._load()
        return self.state.checkpoint

    def prepare(self, origin: str, batch: ReadBatch) -> Checkpoint:
        """Take the next entries; gives what the tree is after them. Nothing is written."""
        before = self.state
        if not before.size:
            before = replace(before, origin=origin, segment=self._new_segment)
        hashes, rows = batch.unpack()
        after = before.grown(hashes)
        self._prepared = after, rows
        return after.checkpoint

    def commit(self) -> None:
        """Write what was prepared: rows, the segments that they fill, and how far the index has
        come, in one transaction."""
        if self._prepared is None:
            raise DamagedIndex("nothing was prepared")
        (after, rows), self._prepared = self._prepared, None
        tail = self._tail_with(rows, fills=self.state.segments < after.segments)
        with transaction(self._connection):
            write_state(self._connection, self.state, after)
            self._connection.executemany(INSERT_ENTRY, rows)
            for segment in range(self.state.segments, after.segments):
                _write_segment(self._connection, segment, tail[: after.segment])
                tail = tail[after.segment :]
        self.state = after
        # Who follows a log batch by batch need not hold a segment in memory for hours.
        self._tail = tail if len(rows) >= BATCH_ENTRIES // 2 else None

    def _tail_with(self, rows: list[tuple[object, ...]], *, fills: bool) -> list[Row]:
        if self._tail is None:
            if not fills and len(rows) < BATCH_ENTRIES // 2:
                return []
            first = self.state.segments * self.state.segment
            self._tail = rows_between(self._connection, first, self.state.size)
        return self._tail + [Row._make(row[:-1]) for row in rows]

    def keep_note(self, note: bytes) -> None:
        """Keep the newest signed checkpoint, as evidence."""
        if note == self.state.note or not self.state.size:
            return
        after = replace(self.state, note=note)
        with transaction(self._connection):
            write_state(self._connection, self.state, after)
        self.state = after


def rows_between(connection: sqlite3.Connection, start: int, end: int) -> list[Row]:
    """Raises: DamagedIndex: one is missing or was changed."""
    found = connection.execute(
        f"SELECT {SELECTED} FROM entries WHERE number >= ? AND number < ? ORDER BY number",  # noqa: S608
        (start, end),
    )
    rows = [Row.unseal(row) for row in found]
    for number in range(start, end):
        if number - start >= len(rows) or rows[number - start].number != number:
            raise DamagedIndex(f"the row of entry {number} is missing")
    return rows


def _write_segment(connection: sqlite3.Connection, segment: int, rows: Sequence[Row]) -> None:
    connection.executemany(
        "INSERT INTO postings VALUES (?, ?, ?, ?)",
        ((segment, facet, value, members) for facet, value, members in postings(rows)),
    )
    connection.executemany(
        "INSERT INTO slices VALUES (?, ?, ?, ?, ?)",
        ((segment, number, it.low, it.high, it.encode()) for number, it in slices(rows)),
    )
    connection.executemany(
        "INSERT INTO groups VALUES (?, ?, ?, ?)",
        ((segment, number, it.summary, it.codes) for number, it in groups(rows)),
    )


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        roll_back(connection)
        raise
