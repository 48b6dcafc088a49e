"""What the operating system says, in our words: errors, and what `fstat` tells of an object."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from secure_cache.model.errors import (
    CorruptObject,
    Misconfigured,
    SecureCacheError,
    StorageForbidden,
    StorageUnavailable,
)
from secure_cache.storage.ports import ObjectInfo

_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM})

# A link, a file in a directory's place, a directory in a file's, a socket: we create none of
# them, so somebody else did. Such a tree is refused, never followed and never "missing".
_TAMPERED = frozenset(
    {errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO, errno.ENODEV, errno.EXDEV}
)

# The call that failed so has certainly changed nothing.
_NOT_APPLIED = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EROFS,
        errno.EMFILE,
        errno.ENFILE,
        errno.EMLINK,
        errno.ENOMEM,
        errno.EAGAIN,
    }
)


def unavailable(message: str, *, applied: bool | None) -> StorageUnavailable:
    """A StorageUnavailable that says what is known of the write."""
    error = StorageUnavailable(message)
    error.applied = applied
    return error


def translate(error: OSError, name: str, *, applied: bool | None) -> SecureCacheError:
    """Our error for an error of the operating system, never NotFound.

    Args:
        error: what a system call answered.
        name: the object, or the path, that it was about.
        applied: what is known of the write when the errno alone does not tell.
    """
    message = f"{name}: {error.strerror or error}"
    if error.errno in _FORBIDDEN:
        return StorageForbidden(message)
    if error.errno in _TAMPERED:
        return CorruptObject(f"{message} (not a plain file in plain folders)")
    if error.errno == errno.ENAMETOOLONG:
        return Misconfigured(f"{message}: a part of the name is longer than the file system takes")
    return unavailable(message, applied=False if error.errno in _NOT_APPLIED else applied)


@contextmanager
def translated(name: str, *, applied: bool | None) -> Iterator[None]:
    """Let no OSError out. For writes; the reads, which are hot, call `translate` themselves."""
    try:
        yield
    except OSError as error:
        raise translate(error, name, applied=applied) from error


def stat_file(name: str, fd: int) -> os.stat_result:
    """What an open file is now.

    Raises:
        CorruptObject: it is not a regular file: a folder, a FIFO or a device was planted.
        OSError: the disk failed.
    """
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        raise CorruptObject(f"{name}: not a regular file")
    return found


def version_of(found: os.stat_result) -> str:
    """Changes whenever content may have changed.

    The ctime moves with every change in place and can not be set back by its author; the inode
    and our own strictly growing mtime (see `DurableFolder`) move with every replacement, even
    on kernels whose timestamps stand still for 4 ms while inode numbers are used again.
    """
    return f"{found.st_ino:x}.{found.st_size:x}.{found.st_mtime_ns:x}.{found.st_ctime_ns:x}"


def identity_of(found: os.stat_result) -> str:
    """`version_of`, and the device: names the bytes among all files of this machine."""
    return f"{found.st_dev:x}.{version_of(found)}"


def info_of(name: str, found: os.stat_result) -> ObjectInfo:
    return ObjectInfo(name, found.st_size, version_of(found), found.st_mtime)
