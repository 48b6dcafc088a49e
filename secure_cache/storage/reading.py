"""An object of the filesystem store, open for reading and pinned to what it was at the start."""

import os
from collections.abc import AsyncGenerator
from functools import partial
from types import TracebackType
from typing import Self

from anyio import CapacityLimiter, to_thread

from secure_cache.model.clock import Clock
from secure_cache.model.errors import CorruptObject, NotFound, VersionMismatch
from secure_cache.storage.beneath import Beneath
from secure_cache.storage.ports import ObjectInfo, check_name
from secure_cache.storage.posix import identity_of, info_of, stat_file, translate

SETTLED_SECONDS = 2.0

# Cached chunks up to this size are copied on the event loop, which holds it for 15 to 50 us; a
# visit to a thread costs about 60 us and more CPU than the copy. Measured on two cores, MB/s
# inline against thread: 1 MiB objects 4900 : 3300, 100 MiB 16000 : 3000, and 16 of them in
# parallel 17500 : 3300. What is not in the page cache is read in a thread.
_INLINE_BYTES = 262_144
_INLINE_UNKNOWN_BYTES = 65_536


def open_object(beneath: Beneath, name: str) -> tuple[int, os.stat_result]:
    """Open a stored file and look at it.

    Raises: NotFound, CorruptObject, StorageForbidden, StorageUnavailable, Misconfigured.
    """
    fd = -1
    try:
        fd = beneath.open_file(check_name(name))
        return fd, stat_file(name, fd)
    except FileNotFoundError:
        beneath.require_present()
        raise NotFound(name) from None
    except OSError as error:
        _close(fd)
        raise translate(error, name, applied=False) from error
    except CorruptObject:
        _close(fd)
        raise


async def read_at(fd: int, offset: int, size: int, *, name: str, limiter: CapacityLimiter) -> bytes:
    """Read, in a thread if it may wait for the disk. Fewer bytes only at the end of the file.

    Raises: StorageUnavailable, StorageForbidden, CorruptObject.
    """
    try:
        if _is_quick(fd, offset, size):
            return os.pread(fd, size, offset)
        return await to_thread.run_sync(partial(os.pread, fd, size, offset), limiter=limiter)
    except OSError as error:
        raise translate(error, name, applied=False) from error


def _is_quick(fd: int, offset: int, size: int) -> bool:
    """Whether it is all in the page cache, judged by its last byte: what is read in order is
    cached in order. A wrong guess costs a wait and nothing else."""
    if not 0 < size <= _INLINE_BYTES:
        return size == 0
    try:
        return os.preadv(fd, [bytearray(1)], offset + size - 1, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False
    except (AttributeError, OSError):
        # Not every system and file system can tell (macOS, ZFS).
        return size <= _INLINE_UNKNOWN_BYTES


class FileReading:
    """A Reading, and the context manager that opens it."""

    __slots__ = ("_beneath", "_clock", "_fd", "_limiter", "_name", "_stat", "info")

    info: ObjectInfo

    def __init__(
        self, beneath: Beneath, name: str, *, clock: Clock, limiter: CapacityLimiter
    ) -> None:
        self._beneath = beneath
        self._name = name
        self._clock = clock
        self._limiter = limiter
        self._fd = -1

    async def __aenter__(self) -> Self:
        self._fd, self._stat = open_object(self._beneath, self._name)
        self.info = info_of(self._name, self._stat)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        fd, self._fd = self._fd, -1
        _close(fd)

    @property
    def stable_identity(self) -> str | None:
        """Device and version; None while a second change could still get the same ctime.

        As in git's index: kernel timestamps advance in steps, so a file that was changed in
        this very moment may be changed again without showing it.
        """
        if self._clock() - self._stat.st_ctime < SETTLED_SECONDS:
            return None
        return identity_of(self._stat)

    async def chunks(self, *, offset: int = 0, size: int = 262_144) -> AsyncGenerator[bytes]:
        if offset < 0 or size < 1:
            raise ValueError("offset is at least 0, size at least 1")
        end = self.info.size
        while offset < end:
            wanted = min(size, end - offset)
            data = await read_at(self._fd, offset, wanted, name=self._name, limiter=self._limiter)
            # After the read and before the bytes go out: what was read before a change is
            # whole, what was read during one shows here.
            self._require_unchanged()
            if len(data) != wanted:
                raise CorruptObject(f"{self._name}: {len(data)} of {wanted} bytes at {offset}")
            yield data
            offset += wanted

    def _require_unchanged(self) -> None:
        now = os.fstat(self._fd)
        before = self._stat
        if (now.st_ctime_ns, now.st_mtime_ns, now.st_size, now.st_ino, now.st_dev) != (
            before.st_ctime_ns,
            before.st_mtime_ns,
            before.st_size,
            before.st_ino,
            before.st_dev,
        ):
            raise VersionMismatch(f"{self._name}: changed while it was read")


def _close(fd: int) -> None:
    if fd >= 0:
        os.close(fd)
