"""A file on its way in: nobody can read it before it is given its name."""

import errno
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from secure_cache.storage.beneath import DIRECTORY, Beneath

STAGING: Final = ".tmp"
"""No object name begins with a dot, so drafts can be neither listed nor collided with."""

_MODE = 0o440
_DESCRIPTORS = Path("/proc/self/fd")
_NO_ANONYMOUS_FILES = frozenset(
    {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT, errno.ENOSYS}
)


class Draft:
    """An open file, with a name in the staging folder or with none at all yet."""

    def __init__(self, fd: int, staging: int, name: str | None) -> None:
        self.fd = fd
        self._staging = staging
        self._name = name

    def write(self, pieces: Sequence[bytes | memoryview]) -> None:
        """Append all of it. Raises: OSError, after which the draft can only be discarded."""
        left = [memoryview(piece) for piece in pieces if len(piece)]
        while left:
            written = os.writev(self.fd, left[:1024])
            while left and written >= len(left[0]):
                written -= len(left.pop(0))
            if written:
                left[0] = left[0][written:]

    def stamp(self, modified_ns: int) -> None:
        os.utime(self.fd, ns=(modified_ns, modified_ns))

    def link(self, folder: int, leaf: str) -> None:
        """Give it its name, if nothing has it. Raises: FileExistsError, OSError."""
        if self._name is None:
            os.link(f"{_DESCRIPTORS}/{self.fd}", leaf, dst_dir_fd=folder, follow_symlinks=True)
            return
        os.link(
            self._name,
            leaf,
            src_dir_fd=self._staging,
            dst_dir_fd=folder,
            follow_symlinks=False,
        )
        # The object stands: a draft's name that can not be removed is the sweep's.
        with suppress(OSError):
            os.unlink(self._name, dir_fd=self._staging)
        self._name = None

    def rename(self, folder: int, leaf: str) -> None:
        """Take the place of what has the name. Raises: OSError."""
        if self._name is None:
            raise ValueError("only a draft with a name can replace an object")
        os.rename(self._name, leaf, src_dir_fd=self._staging, dst_dir_fd=folder)
        self._name = None

    def close(self) -> None:
        """Discard what was not published. Never fails: what is left behind, the sweep removes."""
        with suppress(OSError):
            if self._name is not None:
                os.unlink(self._name, dir_fd=self._staging)
        with suppress(OSError):
            os.close(self.fd)
        os.close(self._staging)


class Staging:
    """Makes drafts, in the folder `.tmp` of a store, hence on the file system of its objects.

    Anonymous files (O_TMPFILE, named by linkat through /proc) where the system has them: no
    slower than named ones, a crash leaves nothing, and the object's ctime does not move once it
    is visible, as it does when the second name of a file is removed.
    """

    def __init__(self, beneath: Beneath, *, anonymous: bool = True) -> None:
        self._beneath = beneath
        self.anonymous = anonymous and hasattr(os, "O_TMPFILE") and _DESCRIPTORS.is_dir()

    @contextmanager
    def draft(self, *, named: bool = False) -> Iterator[Draft]:
        draft = self.new(named=named)
        try:
            yield draft
        finally:
            draft.close()

    def new(self, *, named: bool = False) -> Draft:
        """A draft that the caller must close. Raises: OSError."""
        staging = self.open()
        try:
            if self.anonymous and not named:
                with suppress(_Unsupported):
                    return Draft(_open_anonymous(staging), staging, None)
                self.anonymous = False
            name = secrets.token_hex(16)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            return Draft(os.open(name, flags, _MODE, dir_fd=staging), staging, name)
        except BaseException:
            os.close(staging)
            raise

    def open(self) -> int:
        """A descriptor of the staging folder, which is made when it is missing."""
        try:
            return self._beneath.open_directory(STAGING)
        except FileNotFoundError:
            root = self._beneath.open_directory("")
            try:
                with suppress(FileExistsError):
                    os.mkdir(STAGING, 0o700, dir_fd=root)
                return os.open(STAGING, DIRECTORY, dir_fd=root)
            finally:
                os.close(root)

    def sweep(self, *, older_than: float) -> int:
        """Remove the drafts of crashed processes; how many there were. Raises: OSError.

        Args:
            older_than: seconds since 1970. No living upload may be older than this.
        """
        staging = self.open()
        try:
            with os.scandir(staging) as entries:
                return sum(_remove_if_old(staging, entry.name, older_than) for entry in entries)
        finally:
            os.close(staging)


class _Unsupported(Exception):
    """This file system has no anonymous files."""


def _open_anonymous(staging: int) -> int:
    try:
        return os.open(".", os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, _MODE, dir_fd=staging)
    except OSError as error:
        if error.errno in _NO_ANONYMOUS_FILES:
            raise _Unsupported from error
        raise


def _remove_if_old(staging: int, name: str, older_than: float) -> bool:
    with suppress(FileNotFoundError):
        found = os.stat(name, dir_fd=staging, follow_symlinks=False)
        if not stat.S_ISDIR(found.st_mode) and found.st_mtime < older_than:
            os.unlink(name, dir_fd=staging)
            return True
    return False
