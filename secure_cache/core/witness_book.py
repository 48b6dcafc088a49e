"""Where a witness keeps what it cosigned last, one file for each log.

    <folder>/<hex SHA-256 of the origin>/checkpoint     the signed note with our cosignatures
    <folder>/<hex SHA-256 of the origin>/lock
    <folder>/<hex SHA-256 of the origin>/evidence-...   what contradicted it

Synchronous: for a thread. A lock of the kernel covers reading, deciding and writing, so that of
several processes over one folder no two ever answer from the same state.
"""

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from secure_cache.core.key_files import sync_folder, write_private_file
from secure_cache.model.errors import CorruptObject, Misconfigured, StorageUnavailable
from secure_cache.tlog.note import MAX_NOTE_BYTES

MAX_EVIDENCE = 64
"""Files for each log: a log that goes on contradicting itself must not fill the disk."""

_WAIT_SECONDS = 5.0
_LOOK_SECONDS = 0.005


class Page:
    """The state of one log, while its lock is held."""

    def __init__(self, folder: Path, on_failure: Callable[[str], None]) -> None:
        self._folder = folder
        self._on_failure = on_failure

    def read(self) -> bytes | None:
        """What was cosigned last; None when nothing ever was.

        Raises:
            CorruptObject: too large to be a note.
            StorageUnavailable: the disk did not give it.
        """
        return _read(self._folder / "checkpoint")

    def write(self, note: bytes) -> None:
        """Keep it, durably. The answer may be given out only afterwards.

        Raises:
            StorageUnavailable: it may or may not be kept. Where it is to be seen by now, and its
                folder could not be made durable, the disk may not hold what can be read back:
                `on_failure` is told first; it ends the process. A full disk leaves what was there.
        """
        path = self._folder / "checkpoint"
        before = _identity(path)
        try:
            write_private_file(path, note)
        except OSError as error:
            if before is None or _identity(path) != before:
                self._on_failure(str(error))
            raise StorageUnavailable(f"the witness's state can not be written: {error}") from error

    def keep_evidence(self, name: str, data: bytes) -> Path | None:
        """Keep what contradicts the log, once; None when there is no more room for it.

        Raises:
            StorageUnavailable: the disk did not take it.
        """
        path = self._folder / f"evidence-{name}-{hashlib.sha256(data).hexdigest()[:16]}.json"
        try:
            if path.exists():
                return path
            if len(list(self._folder.glob("evidence-*"))) >= MAX_EVIDENCE:
                return None
            write_private_file(path, data)
        except OSError as error:
            raise StorageUnavailable(f"the evidence can not be written: {error}") from error
        return path


class WitnessBook:
    """The state of all logs of one witness.

    Args:
        folder: made by `secure-cache witness init`. A folder that is missing is never made: a
            witness that forgot what it cosigned would cosign a second history.
        on_failure: told when the disk failed while the state was written.
    """

    def __init__(self, folder: Path, *, on_failure: Callable[[str], None] = lambda _: None) -> None:
        self._folder = folder
        self._on_failure = on_failure

    def check(self) -> None:
        """Raises: Misconfigured."""
        if not self._folder.is_dir():
            raise Misconfigured(
                f"{self._folder} is missing: it holds what this witness has cosigned. Restore it"
                " from where it went; a witness without it must be made anew, with a new key"
            )

    @contextmanager
    def locked(self, origin: str) -> Iterator[Page]:
        """The state of one log, for as long as nobody else may answer for it.

        Raises:
            StorageUnavailable: somebody holds the lock for too long, or the disk failed.
        """
        self.check()
        folder = self._place(origin)
        handle = -1
        try:
            if not (folder / "checkpoint").exists():
                # Also where it is there: whoever made it may not have come to the fsync.
                folder.mkdir(mode=0o700, exist_ok=True)
                sync_folder(self._folder)
            handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageUnavailable(f"the witness's state can not be locked: {error}") from error
        try:
            _lock(handle)
            yield Page(folder, self._on_failure)
        finally:
            os.close(handle)

    def shown(self, digest: str) -> bytes | None:
        """What was cosigned last of the log whose origin has this hex SHA-256.

        Raises: CorruptObject, StorageUnavailable.
        """
        return _read(self._folder / digest / "checkpoint")

    def _place(self, origin: str) -> Path:
        return self._folder / hashlib.sha256(origin.encode()).hexdigest()


def _identity(path: Path) -> tuple[int, ...] | None:
    """Of the file itself, which a write replaces; None when nobody can tell."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return ()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_NOTE_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageUnavailable(f"the witness's state can not be read: {error}") from error
    if len(data) > MAX_NOTE_BYTES:
        raise CorruptObject(f"{path} is too large to be a checkpoint")
    return data


def _lock(handle: int) -> None:
    give_up = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > give_up:
                raise StorageUnavailable("another process holds the witness's lock") from None
            time.sleep(_LOOK_SECONDS)
        else:
            return
