"""Locks between the processes of one machine: flock(2), never fcntl locks.

Closing any descriptor of a file drops all of a process's fcntl locks on it; a flock belongs to
its descriptor, and the kernel drops it when the process dies.
"""

import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from secure_cache.storage.beneath import DIRECTORY, Beneath
from secure_cache.storage.posix import translated, unavailable

LOCKS: Final = ".locks"
_STRIPES = 256
_LONGEST_WAIT_SECONDS = 20.0
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class StripedLocks:
    """One lock for each object name, from a fixed set of files that are never removed.

    Two names may share a file, which costs waiting and nothing else. Nobody holds two.
    """

    def __init__(self, beneath: Beneath, *, longest_wait: float = _LONGEST_WAIT_SECONDS) -> None:
        self._beneath = beneath
        self._longest_wait = longest_wait
        # First among our own threads, fairly and without polling; only one of them meets the
        # other processes.
        self._threads = [threading.Lock() for _ in range(_STRIPES)]

    @contextmanager
    def held(self, name: str) -> Iterator[None]:
        """Hold the lock of an object. For threads: it waits.

        Raises:
            StorageUnavailable: another process holds it and does not let go (it may be stopped).
            OSError: the lock file can not be used.
        """
        stripe = hashlib.sha256(name.encode()).digest()[0]
        deadline = time.monotonic() + self._longest_wait
        if not self._threads[stripe].acquire(timeout=self._longest_wait):
            raise _too_long(name)
        try:
            fd = self._take(f"{stripe:02x}", name, deadline)
            try:
                yield
            finally:
                os.close(fd)
        finally:
            self._threads[stripe].release()

    def _take(self, stripe: str, name: str, deadline: float) -> int:
        pause = 0.000_5
        while True:
            folder = self._open_folder()
            try:
                fd = os.open(stripe, _FLAGS, 0o600, dir_fd=folder)
                taken = False
                try:
                    taken = try_flock(fd) and _still_names(fd, stripe, folder)
                finally:
                    # Left open, it would keep the lock from everybody, for ever.
                    if not taken:
                        os.close(fd)
                if taken:
                    return fd
            finally:
                os.close(folder)
            if time.monotonic() > deadline:
                raise _too_long(name)
            time.sleep(pause)
            pause = min(pause * 2, 0.01)

    def _open_folder(self) -> int:
        try:
            return self._beneath.open_directory(LOCKS)
        except FileNotFoundError:
            root = self._beneath.open_directory("")
            try:
                with suppress(FileExistsError):
                    os.mkdir(LOCKS, 0o700, dir_fd=root)
                return os.open(LOCKS, DIRECTORY, dir_fd=root)
            finally:
                os.close(root)


class FlockTurn:
    """The Turn port for the processes of one machine. The kernel ends a dead process's turn.

    The file at `path` is made when it is missing, its folder is not; it is never removed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    async def try_take(self) -> bool:
        """False also while another task of this very object has the turn."""
        if self._fd >= 0:
            return False
        with translated(str(self._path), applied=False):
            fd = os.open(self._path, _FLAGS, 0o600)
            try:
                taken = try_flock(fd)
            except BaseException:
                os.close(fd)
                raise
        if taken:
            self._fd = fd
        else:
            os.close(fd)
        return taken

    async def keep(self) -> bool:
        """The kernel keeps it as long as this process lives."""
        return self._fd >= 0

    async def give_back(self) -> None:
        """Does nothing when the turn is not ours."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


def try_flock(fd: int) -> bool:
    """Lock an open file, exclusively, if nobody else has. Raises: OSError."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _still_names(fd: int, leaf: str, folder: int) -> bool:
    """Whether the locked file is still the one that others will lock: somebody may have
    removed it between our open and our flock."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(leaf, dir_fd=folder, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _too_long(name: str) -> Exception:
    return unavailable(f"{name}: another process holds its lock", applied=False)
