"""The index as an SQLite file: its tables, how it is opened, and what its faults mean.

    state      one row: which log, how far, the tree's right edge there, the newest checkpoint
    entries    one sealed row for each entry of the log (`row`); made for people with SQL, too
    postings   for each full segment, facet and value: the rows that have it (`bits`)
    slices     for each full segment: its times and sizes (`bits.Slices`)
    groups     for each full segment and grouping: values, counts, codes (`segment.Group`)

Write-ahead logging: readers never wait for the one who builds. Nothing is lost with this file but
the time to make it anew, so it is not fsynced at each commit; after a crash of the machine it may
be a little behind, and never half of something.
"""

import errno
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from secure_cache.audit.row import COLUMNS
from secure_cache.model.errors import DamagedIndex, Misconfigured, StorageUnavailable

APPLICATION_ID = 0x73634149
"""`scAI`: what is in this file."""
VERSION = 1

_TYPES = {"number": "INTEGER PRIMARY KEY", "leaf": "BLOB NOT NULL", "event": "TEXT NOT NULL"}
_NUMBERS = ("at", "size", "epoch")
PAGE_BYTES = 8192
_BUSY_SECONDS = 10.0
_STEP_SECONDS = 0.01


def _column(name: str) -> str:
    return f'"{name}" {_TYPES.get(name, "INTEGER" if name in _NUMBERS else "TEXT")}'


TABLES = (
    (
        "CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), origin TEXT NOT NULL,"
        " segment INTEGER NOT NULL, size INTEGER NOT NULL, root BLOB NOT NULL, edge BLOB NOT NULL,"
        " note BLOB NOT NULL)"
    ),
    f"CREATE TABLE entries ({', '.join(map(_column, COLUMNS))}, seal BLOB NOT NULL)",
    (
        "CREATE TABLE postings (segment INTEGER, facet INTEGER, value TEXT, members BLOB NOT NULL,"
        " PRIMARY KEY (segment, facet, value)) WITHOUT ROWID"
    ),
    (
        "CREATE TABLE slices (segment INTEGER, number INTEGER, low INTEGER NOT NULL,"
        " high INTEGER NOT NULL, digits BLOB NOT NULL, PRIMARY KEY (segment, number))"
    ),
    (
        "CREATE TABLE groups (segment INTEGER, grouping INTEGER, summary BLOB NOT NULL,"
        " codes BLOB NOT NULL, PRIMARY KEY (segment, grouping))"
    ),
)


@dataclass(frozen=True, slots=True)
class _Found:
    """What a file is: its marks, and the statements that made all tables, indexes, views and
    triggers."""

    application: int
    version: int
    schema: frozenset[str]

    @property
    def is_new(self) -> bool:
        return (self.application, self.version) == (0, 0) and not self.schema


SELECTED = ", ".join(f'"{name}"' for name in (*COLUMNS, "seal"))
_PLACEHOLDERS = ", ".join("?" for _ in range(len(COLUMNS) + 1))
INSERT_ENTRY = f"INSERT INTO entries ({SELECTED}) VALUES ({_PLACEHOLDERS})"  # noqa: S608 - our names


@contextmanager
def faults_of(path: Path) -> Iterator[None]:
    """What SQLite's errors mean: the file is damaged, or the disk does not answer now.

    Raises:
        DamagedIndex, StorageUnavailable, Misconfigured.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise _meaning(error, path) from error
    except DamagedIndex as error:
        raise DamagedIndex(f"{path}: {error}; {rebuild_hint(path)}") from error


def rebuild_hint(path: Path) -> str:
    """What to do about a damaged index."""
    return (
        "the log itself is not touched: `secure-cache audit index rebuild`, or delete"
        f" {path.name}, {path.name}-wal and {path.name}-shm, and it is made anew from the log"
    )


_FOR_NOW = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
_WAIT = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
_REFUSED = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM}


def _meaning(error: sqlite3.Error, path: Path) -> Exception:
    extended = getattr(error, "sqlite_errorcode", None)
    code = None if extended is None else extended & 0xFF
    if extended != sqlite3.SQLITE_IOERR_SHORT_READ and code in _WAIT:
        return StorageUnavailable(f"{path}: {error}")
    if code in _REFUSED:
        return Misconfigured(f"{path}: {error}: the folder must be there and be writable")
    return DamagedIndex(f"{path}: {error}; {rebuild_hint(path)}")


def open_file(path: Path, flags: int) -> int:
    """A descriptor of a file of the index, for its owner alone.

    Raises: StorageUnavailable (no room, no descriptors), Misconfigured (it cannot be there);
        FileExistsError, where the flags ask for it.
    """
    try:
        return os.open(path, flags | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise
    except OSError as error:
        raise meaning_of(error, path) from error


def meaning_of(error: OSError, path: Path) -> StorageUnavailable | Misconfigured:
    """Our error for what the operating system says of a file of the index."""
    if error.errno in _FOR_NOW:
        return StorageUnavailable(f"{path}: {error.strerror}")
    return Misconfigured(f"{path}: {error.strerror}: the folder must be there and be writable")


def connect(path: Path, *, writing: bool) -> sqlite3.Connection:
    """A connection without implicit transactions. Raises as `faults_of`; also when the file is
    another program's database."""
    with faults_of(path):
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={'rwc' if writing else 'ro'}",
            uri=True,
            timeout=_BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            # What the file's schema says is not believed before it was compared.
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA cell_size_check = ON")
            if writing:
                _begin(connection, path)
            else:
                connection.execute("PRAGMA query_only = ON")
                connection.execute(f"PRAGMA mmap_size = {256 << 20}")
            _check_schema(connection, path)
        except BaseException:
            connection.close()
            raise
        return connection


def _begin(connection: sqlite3.Connection, path: Path) -> None:
    """Make the tables in a new file; any number of processes may do so at once."""
    found = _look(connection)
    if found.is_new:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        found = _make_tables(connection)
    _require_ours(found, path)
    _write_ahead(connection)
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA cache_size = {-(16 << 10)}")


def _make_tables(connection: sqlite3.Connection) -> _Found:
    connection.execute("BEGIN IMMEDIATE")
    try:
        found = _read_schema(connection)
        if found.is_new:
            for table in TABLES:
                connection.execute(table)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
            found = _read_schema(connection)
        connection.execute("COMMIT")
    except BaseException:
        roll_back(connection)
        raise
    return found


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Change a new file's journal. SQLite waits for nobody here: who else has just made the same
    file is waited for in small steps."""
    end = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(_STEP_SECONDS)
        else:
            return


def roll_back(connection: sqlite3.Connection) -> None:
    """After an error: of some, such as a full disk, SQLite has done so by itself, and would say
    of a second time that something else is wrong."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _check_schema(connection: sqlite3.Connection, path: Path) -> None:
    found = _look(connection)
    if found.is_new:
        raise StorageUnavailable(f"{path} has no tables yet: it is being made")
    _require_ours(found, path)
    if found.version != VERSION:
        raise DamagedIndex(f"{path} was made by another version of secure-cache")
    if found.schema != set(TABLES):
        raise DamagedIndex("its tables were changed")


def _require_ours(found: _Found, path: Path) -> None:
    if found.application != APPLICATION_ID:
        raise Misconfigured(f"{path} is not an audit index: name a file that is not there yet")


def _look(connection: sqlite3.Connection) -> _Found:
    """All of one moment: another process may be making the tables just now."""
    connection.execute("BEGIN")
    try:
        return _read_schema(connection)
    finally:
        roll_back(connection)


def _read_schema(connection: sqlite3.Connection) -> _Found:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    rows = connection.execute("SELECT sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'")
    return _Found(application, version, frozenset(str(sql) for (sql,) in rows))
