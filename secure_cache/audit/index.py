"""The audit index: a file of SQLite that is derived from the log, and can be made anew from it.

Several processes may share one file: one of them builds at a time, the others read meanwhile.
Reading calls block for some milliseconds; an event loop calls them in a thread.
"""

import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Self

import anyio
import anyio.to_thread

from secure_cache.audit.building import (
    Leaves,
    LogSource,
    Progress,
    ReadBatch,
    batches,
    building_lock,
    require_extension,
    rows_between,
    work_on,
)
from secure_cache.audit.checking import MAX_FINDINGS, IndexFinding, check_against, check_itself
from secure_cache.audit.filters import Filter
from secure_cache.audit.hands import Hands, in_process, in_thread
from secure_cache.audit.queries import MAX_PAGE, Counts, Page, PageRequest, Query
from secure_cache.audit.row import Row
from secure_cache.audit.schema import connect, faults_of, meaning_of, open_file, rebuild_hint
from secure_cache.audit.segment import GROUPS
from secure_cache.audit.state import SEGMENT_ROWS, IndexState, read_state
from secure_cache.audit.timeline import Bucket, Timeline, choose_bucket, timeline
from secure_cache.model.errors import (
    DamagedIndex,
    NotFound,
    Overloaded,
    StorageUnavailable,
    WrongFilter,
)

EVERYTHING = Filter()
FIRST_PAGE = PageRequest()

MAX_GROUPS = 1000
_IDLE_READERS = 4
_NOWHERE = (0, 0)


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """How a call of `AuditIndex.catch_up` ended.

    Attributes:
        size: how many entries are indexed.
        published: how many the log had.
        ours: False when another process is building; then nothing was done.
    """

    size: int
    published: int
    ours: bool


class AuditIndex:
    """See the module. `open` it.

    All methods raise DamagedIndex (the file is not what was written: its text says how to make it
    anew), and StorageUnavailable (the disk is full, or does not answer).
    """

    def __init__(self, path: Path, *, segment: int) -> None:
        self._path = path.absolute()
        self._segment = segment
        self._lock = threading.Lock()
        self._readers: list[tuple[sqlite3.Connection, tuple[int, int]]] = []

    @classmethod
    def open(cls, path: Path, *, segment: int = SEGMENT_ROWS) -> Self:
        """Open an index, or begin one where there is none.

        Args:
            path: of the file; others are beside it, with endings of their own.
            segment: rows of a full segment in a new index; smaller only for tests.

        Raises:
            Misconfigured: the folder is not there, cannot be written, or `path` is another file.
        """
        with suppress(FileExistsError):
            # Who queries what is nobody else's business either.
            os.close(open_file(path, os.O_RDWR | os.O_CREAT | os.O_EXCL))
        connect(path, writing=True).close()
        index = cls(path, segment=segment)
        index.state()
        return index

    @property
    def path(self) -> Path:
        return self._path

    @property
    def rebuild_hint(self) -> str:
        """What to do when it is damaged, in words."""
        return rebuild_hint(self._path)

    def close(self) -> None:
        with self._lock:
            while self._readers:
                self._readers.pop()[0].close()

    # asking

    def state(self) -> IndexState:
        """How far it has come."""
        with self._reading() as (_, state):
            return state

    def query(self, wanted: Filter = EVERYTHING, page: PageRequest = FIRST_PAGE) -> Page:
        """A page of the entries that match."""
        if not 1 <= page.limit <= MAX_PAGE:
            raise WrongFilter(f"limit: a page has 1 to {MAX_PAGE} entries")
        with self._reading() as (connection, state):
            return Query(connection, state, wanted).page(page)

    def count(self, wanted: Filter = EVERYTHING) -> int:
        """How many entries match."""
        with self._reading() as (connection, state):
            return Query(connection, state, wanted).count()

    def count_by(
        self, group: str, wanted: Filter = EVERYTHING, *, limit: int = MAX_GROUPS
    ) -> Counts:
        """How many entries match, by one of `GROUPS`. Raises: WrongFilter: by something else."""
        if group not in GROUPS:
            raise WrongFilter(f"group: one of {', '.join(GROUPS)}")
        with self._reading() as (connection, state):
            return Query(connection, state, wanted).counts(group, limit=limit)

    def timeline(self, wanted: Filter = EVERYTHING, bucket: Bucket | None = None) -> Timeline:
        """How many entries match, by time, tier and event; by hours for at most a week.

        Raises: WrongFilter: hours of a longer time.
        """
        chosen = choose_bucket(wanted, bucket)
        with self._reading() as (connection, state):
            return timeline(Query(connection, state, wanted), chosen)

    def entry(self, index: int) -> Row:
        """One row. Raises: NotFound."""
        with self._reading() as (connection, state):
            if not 0 <= index < state.size:
                raise NotFound(f"{state.size} entries are indexed, and no entry {index}")
            return rows_between(connection, index, index + 1)[0]

    # checking

    def check(self) -> tuple[IndexFinding, ...]:
        """Everything that can be seen without the log; reads the whole file. Empty is good."""
        found: list[IndexFinding] = []
        try:
            with self._reading() as (connection, _):
                found += islice(check_itself(connection), MAX_FINDINGS)
        except DamagedIndex as error:
            # So much is wrong that nothing more can be said.
            found.append(IndexFinding("the file", str(error)))
        return tuple(found)

    async def check_against(
        self, source: LogSource, *, progress: Progress | None = None
    ) -> tuple[IndexFinding, ...]:
        """Each row, held to its leaf in the log. Reads the whole log. Empty is good.

        Raises:
            LogInconsistent: the log does not lead on from what is indexed.
        """
        state = await anyio.to_thread.run_sync(self.state)

        async def rows_of(start: int, end: int) -> list[Row]:
            return await anyio.to_thread.run_sync(self._rows, start, end)

        return tuple(await check_against(source, state.checkpoint, rows_of, progress))

    def _rows(self, start: int, end: int) -> list[Row]:
        with self._reading() as (connection, _):
            return rows_between(connection, start, end)

    # building

    async def catch_up(
        self, source: LogSource, *, progress: Progress | None = None, apart: bool = False
    ) -> CaughtUp:
        """Index what the log has published since. As `building`, once.

        Args:
            source: the log.
            progress: told after each batch.
            apart: let a process of its own do the work: for many entries.
        """
        async with self.building(apart=apart) as building:
            if building is None:
                published = await source.published()
                return CaughtUp(self.state().size, published.size, ours=False)
            return await building.catch_up(source, progress=progress)

    @asynccontextmanager
    async def building(
        self, *, apart: bool = False, niceness: int = 0
    ) -> AsyncIterator["Building | None"]:
        """The right to build, until the context ends; None while another process has it.

        Args:
            apart: let a process of its own do the work.
            niceness: of that process; 19 is the lowest priority.
        """
        with building_lock(self._path) as ours:
            if not ours:
                yield None
                return
            if apart:
                hands = in_process(self._path, segment=self._segment, niceness=niceness)
            else:
                hands = in_thread(self._path, segment=self._segment)
            async with hands as its_hands:
                yield Building(its_hands)

    @contextmanager
    def _reading(self) -> Iterator[tuple[sqlite3.Connection, IndexState]]:
        """A connection that sees one state of the index."""
        connection, identity = self._take()
        try:
            with faults_of(self._path):
                connection.execute("BEGIN")
                yield connection, read_state(connection)
                connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        with self._lock:
            if len(self._readers) < _IDLE_READERS:
                self._readers.append((connection, identity))
                return
        connection.close()

    def _take(self) -> tuple[sqlite3.Connection, tuple[int, int]]:
        identity = self._identity()
        with self._lock:
            while self._readers:
                connection, made_for = self._readers.pop()
                if made_for == identity:
                    return connection, identity
                # The file was made anew in its place.
                connection.close()
        if identity == _NOWHERE:
            raise StorageUnavailable(
                f"{self._path} is not there: it was deleted, and is being made anew"
            )
        return connect(self._path, writing=False), identity

    def _identity(self) -> tuple[int, int]:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return _NOWHERE
        except OSError as error:
            raise meaning_of(error, self._path) from error
        return status.st_dev, status.st_ino


class Building:
    """Catches up, as often as it is asked to."""

    def __init__(self, hands: Hands) -> None:
        self._hands = hands

    async def catch_up(self, source: LogSource, *, progress: Progress | None = None) -> CaughtUp:
        """Index what the log has published since.

        1. what is indexed leads on to the newest signed checkpoint, or nothing is done
        2. a batch of entries is read; with them, too, the tree leads on to that checkpoint
        3. their rows, and how far the index has come, are written in one transaction
        A crash leaves the last batch that was written, and the next call goes on from there.

        Raises:
            LogInconsistent: the log does not lead on from what is indexed; nothing was written.
            DamagedIndex, StorageUnavailable, Misconfigured: as `AuditIndex`.
        """
        hands, published = self._hands, await source.published()
        indexed = await hands.begin()
        await require_extension(source, indexed, published)
        size = indexed.size

        async def read(part: Leaves) -> ReadBatch:
            return await hands.read(part.first, part.leaves)

        async def add(batch: ReadBatch) -> None:
            nonlocal size
            after = await hands.prepare(published.origin, batch)
            await require_extension(source, after, published)
            await hands.commit()
            size = after.size
            if progress is not None:
                progress(size, published.size)

        await work_on(batches(source, size, published.size), read, add)
        await hands.keep_note(await source.checkpoint_note())
        return CaughtUp(size, published.size, ours=True)


def remove_index(path: Path) -> None:
    """Delete an index, so that the next `open` begins anew. The log is not touched.

    Raises:
        Overloaded: a process is building it now.
    """
    with building_lock(path) as ours:
        if not ours:
            raise Overloaded(f"another process is building {path} now")
        # The file itself last: beside a log of changes that was left by a crash here, SQLite would
        # bring those into the next file of that name.
        for ending in ("-wal", "-shm", ""):
            Path(f"{path}{ending}").unlink(missing_ok=True)
