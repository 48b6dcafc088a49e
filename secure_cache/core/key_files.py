"""Files that hold secrets: written whole or not at all, and never readable by others.

One loan is accepted: what root owns and lets our group read, and nobody write. So a Kubernetes
Secret with an `fsGroup` arrives in a pod (files 0440), and so does a folder that an administrator
hands to a service. The same rule as PostgreSQL's for its TLS key.

Synchronous: keys are read at start and written by the operator's commands.
"""

import errno
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from secure_cache.model.errors import Misconfigured


def write_private_file(path: Path, data: bytes) -> None:
    """Create or replace `path`, mode 0600, atomically and durably.

    1. the bytes go into a file beside it      crash: an unnamed temporary file, never read
    2. fsync of the file
    3. rename                                  crash: the old file or the new, each whole
    4. fsync of the folder
    """
    # mkstemp gives mode 0600, whatever the umask.
    handle, temporary = tempfile.mkstemp(prefix=".new-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def read_private_file(path: Path, *, max_bytes: int) -> bytes:
    """Read a file that nobody but its owner may read, or that root lends to our group.

    Raises:
        Misconfigured: missing, not a regular file, too large, or readable by others.
    """
    try:
        # Modes are taken from the opened file, so that it cannot be exchanged in between.
        # Without waiting, so that a pipe in the place of a key does not hang the start.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise Misconfigured(f"{path} is not a file")
            if _open_to(status, 0o077) and (_open_to(status, 0o037) or not _lent(status)):
                raise Misconfigured(f"{path} can be read by others: run `chmod 600 {path}`")
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise Misconfigured(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > max_bytes:
        raise Misconfigured(f"{path} is larger than {max_bytes} bytes")
    return data


def check_private_folder(folder: Path) -> None:
    """Check that nobody but its owner may enter a folder, or that root lends it to us: then others
    may enter, since each file in it has a mode of its own, and nobody here may write it.

    Raises:
        Misconfigured: missing, not a folder, or open to others.
    """
    try:
        status = folder.stat()
        # The root of a mounted Secret has mode 1777; that the mount is read-only protects it.
        read_only = bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    except OSError as error:
        raise Misconfigured(f"the key folder {folder} cannot be read: {error.strerror}") from error
    if not stat.S_ISDIR(status.st_mode):
        raise Misconfigured(f"the key folder {folder} is not a folder")
    writable = _open_to(status, 0o022) and not read_only
    if _open_to(status, 0o077) and (writable or not _lent(status)):
        raise Misconfigured(f"{folder} is open to others: run `chmod 700 {folder}`")


@contextmanager
def new_private_folder(folder: Path) -> Iterator[Path]:
    """A folder, mode 0700, that appears under its name whole or not at all.

    Raises:
        Misconfigured: there is one already that is not empty, or it cannot be made.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise Misconfigured(f"{folder} cannot be made: {error.strerror}") from error
    try:
        yield draft
        sync_folder(draft)
        # rename(2) takes the place of an empty folder, and of nothing else.
        draft.rename(folder)
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
            raise Misconfigured(f"{folder} is there already and is never overwritten") from error
        raise Misconfigured(f"{folder} cannot be written: {error.strerror}") from error
    finally:
        _discard(draft)
    sync_folder(folder.parent)


@contextmanager
def locked(folder: Path, *, to_change: bool) -> Iterator[None]:
    """Hold off others that change the folder's files, and, to change them, those that read.

    Raises:
        Misconfigured: as `check_private_folder`, or it cannot be locked.
    """
    check_private_folder(folder)
    handle = _locked_folder(folder, fcntl.LOCK_EX if to_change else fcntl.LOCK_SH)
    try:
        yield
    finally:
        os.close(handle)


def _locked_folder(folder: Path, how: int) -> int:
    handle = -1
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(handle, how)
    except OSError as error:
        if handle >= 0:
            os.close(handle)
        raise Misconfigured(f"the key folder {folder} cannot be locked: {error}") from error
    return handle


def sync_folder(folder: Path) -> None:
    """Make names durable, not only the bytes behind them."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _open_to(status: os.stat_result, others: int) -> bool:
    return bool(stat.S_IMODE(status.st_mode) & others)


def _lent(status: os.stat_result) -> bool:
    """Root's, while we are not root: who else may read it was decided above us. For a server that
    runs as root the files are its own, and private like any."""
    return status.st_uid == 0 and os.geteuid() != 0


def _discard(draft: Path) -> None:
    if draft.is_dir():
        for file in draft.iterdir():
            file.unlink()
        draft.rmdir()
