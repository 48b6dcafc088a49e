"""The folder of the verified local tier: bounded, shared by the processes of one replica.

    ROOT/<name>        what was published
    ROOT/.tmp/<name>   drafts, each locked by the process that writes it
    ROOT/.used/<name>  empty; its time says when a file was last read
    ROOT/.locks/       see `locks`
    ROOT/.room         how many bytes are taken, drafts included

Nothing here is durable and nothing is believed: after a crash the worst is a file that does not
verify. When a file was last used stands beside it and not in its own times, because those are
part of the identity under which a proof is remembered.
"""

import fcntl
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

from secure_cache.model.clock import Clock, system_clock
from secure_cache.model.errors import CorruptObject, Misconfigured
from secure_cache.storage.beneath import Beneath
from secure_cache.storage.locks import StripedLocks
from secure_cache.storage.ports import check_name
from secure_cache.storage.posix import identity_of, stat_file, translate, translated
from secure_cache.storage.reading import SETTLED_SECONDS, read_at
from secure_cache.storage.room import DRAFTS, USED, Room, RoomChange, remove

_T = TypeVar("_T")

_THREADS = 16
_TOUCH_SECONDS = 60.0
_REMEMBERED_TOUCHES = 16_384
_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MARKER = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def _ignore(_change: RoomChange) -> None:
    """The default for `tell`."""


class TierFolder:
    """A LocalFolder. Opening and cached reads happen on the event loop, all else in threads."""

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int,
        tell: Callable[[RoomChange], None] = _ignore,
        clock: Clock = system_clock,
    ) -> None:
        """Touch nothing yet; `prepare` does.

        Args:
            path: made by `prepare`, with mode 0700, when it is missing.
            max_bytes: of all files together, each counted in whole blocks of 4 KiB.
            tell: called in a worker thread whenever room was taken.
            clock: for the age of files and the time of last use.
        """
        self.path = path
        self._clock = clock
        self._tell = tell
        self._beneath = Beneath(path)
        self._locks = StripedLocks(self._beneath)
        self._room = Room(max_bytes)
        self._limiter = CapacityLimiter(_THREADS)
        self._touched: dict[str, float] = {}

    async def prepare(self) -> None:
        await self.in_thread(self._prepare)

    async def find(self, name: str) -> "TierFile | None":
        fd = -1
        try:
            fd = self._beneath.open_file(check_name(name))
            # Shared: whoever evicts wants the lock for itself alone, and does not wait for it.
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            found = stat_file(name, fd)
        except (FileNotFoundError, BlockingIOError):
            _close(fd)
            return None
        except (OSError, CorruptObject) as error:
            _close(fd)
            why = translate(error, name, applied=False) if isinstance(error, OSError) else error
            if not isinstance(why, CorruptObject):
                raise why from error
            # A link, a folder or a pipe in a file's place: not ours, and in the way.
            await self.in_thread(partial(self.remove, name, None))
            return None
        self._touch(name)
        return TierFile(self, fd, name, found.st_size)

    async def begin(self, name: str, size: int) -> "TierDraft | None":
        return await self.in_thread(partial(self._begin, check_name(name), size))

    async def close(self) -> None:
        self._beneath.close()

    def _prepare(self) -> None:
        with translated(str(self.path), applied=False):
            try:
                self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            except FileExistsError:
                raise Misconfigured(f"{self.path} is not a folder") from None
            found = self.path.stat()
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise Misconfigured(
                f"{self.path}: the local tier wants a folder of its own that nobody else can open;"
                f" run: chown {os.geteuid()} {self.path} && chmod 700 {self.path}"
            )
        with self._alone() as root:
            for folder in (DRAFTS, USED):
                with suppress(FileExistsError):
                    os.mkdir(folder, 0o700, dir_fd=root)
            change = self._room.sweep(root)
        self._tell(change)

    def _begin(self, name: str, size: int) -> "TierDraft | None":
        """Order: the room is written down, then the draft made. A crash between leaves room that
        counts as taken, until the next real count; never one that is taken and not counted."""
        leaf = f"{DRAFTS}/{name}.{secrets.token_hex(8)}"
        with self._alone() as root:
            change = self._room.take(root, size)
            if change is None:
                return None
            fd = -1
            try:
                fd = os.open(leaf, _NEW_FILE, 0o600, dir_fd=root)
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _reserve(fd, size)
            except OSError:
                if fd >= 0:
                    os.close(fd)
                    with suppress(OSError):
                        os.unlink(leaf, dir_fd=root)
                self._room.give_back(root, size)
                raise
        self._tell(change)
        return TierDraft(self, fd, name, size, leaf=leaf)

    def publish(self, leaf: str, fd: int, name: str) -> None:
        """Blocks. Raises: StorageUnavailable, StorageForbidden."""
        with self._alone() as root:
            # From now on it is a file that is read, for as long as it stays open.
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if _exists(root, name):
                os.unlink(leaf, dir_fd=root)
                self._room.give_back(root, os.fstat(fd).st_size)
            else:
                os.rename(leaf, name, src_dir_fd=root, dst_dir_fd=root)
        self._touch(name)

    def remove(self, name: str, fd: int | None) -> None:
        """Remove what is under a name, if it is the open file `fd`, or whatever it is with None.

        Blocks. Raises: StorageUnavailable, StorageForbidden.
        """
        with self._alone() as root, suppress(FileNotFoundError):
            found = os.stat(name, dir_fd=root, follow_symlinks=False)
            if fd is not None and not os.path.samestat(found, os.fstat(fd)):
                return
            remove(root, name, found)
            if stat.S_ISREG(found.st_mode):
                self._room.give_back(root, found.st_size)

    async def in_thread(self, work: Callable[[], _T]) -> _T:
        return await to_thread.run_sync(work, limiter=self._limiter)

    async def read_at(self, fd: int, offset: int, size: int, *, name: str) -> bytes:
        return await read_at(fd, offset, size, name=name, limiter=self._limiter)

    def identity(self, fd: int, name: str) -> str | None:
        try:
            found = os.fstat(fd)
        except OSError as error:
            raise translate(error, name, applied=False) from error
        return None if self._clock() - found.st_ctime < SETTLED_SECONDS else identity_of(found)

    def _touch(self, name: str) -> None:
        """Note that it was used. Seldom: a minute more or less decides nothing."""
        now = self._clock()
        if now - self._touched.get(name, -_TOUCH_SECONDS) < _TOUCH_SECONDS:
            return
        self._touched[name] = now
        if len(self._touched) > _REMEMBERED_TOUCHES:
            del self._touched[next(iter(self._touched))]
        with suppress(OSError):
            folder = self._beneath.open_directory(USED)
            try:
                fd = os.open(name, _MARKER, 0o600, dir_fd=folder)
                try:
                    os.utime(fd, (now, now))
                finally:
                    os.close(fd)
            finally:
                os.close(folder)

    @contextmanager
    def _alone(self) -> Iterator[int]:
        """A descriptor of the folder, while no other process takes or gives room."""
        with translated(str(self.path), applied=False), self._locks.held("room"):
            root = self._beneath.open_directory("")
            try:
                yield root
            finally:
                os.close(root)


class TierFile:
    """A LocalFile. Its shared lock is dropped by the kernel when it is closed."""

    def __init__(self, folder: TierFolder, fd: int, name: str, size: int) -> None:
        self._folder = folder
        self._fd = fd
        self._name = name
        self._size = size

    @property
    def size(self) -> int:
        return self._size

    def identity(self) -> str | None:
        return self._folder.identity(self._fd, self._name)

    async def read(self, offset: int, size: int) -> bytes:
        return await self._folder.read_at(self._fd, offset, size, name=self._name)

    async def discard(self) -> None:
        await self._folder.in_thread(partial(self._folder.remove, self._name, self._fd))

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        _close(fd)


class TierDraft(TierFile):
    """A LocalDraft. Its lock is its own alone until it is published."""

    def __init__(self, folder: TierFolder, fd: int, name: str, size: int, *, leaf: str) -> None:
        super().__init__(folder, fd, name, size)
        self._leaf = leaf

    async def write(self, offset: int, data: bytes) -> None:
        await self._folder.in_thread(partial(self._write, offset, data))

    async def publish(self) -> None:
        work = partial(self._folder.publish, self._leaf, self._fd, self._name)
        await self._folder.in_thread(work)
        self._leaf = self._name

    async def discard(self) -> None:
        await self._folder.in_thread(partial(self._folder.remove, self._leaf, self._fd))

    def _write(self, offset: int, data: bytes) -> None:
        with translated(self._name, applied=False):
            left = memoryview(data)
            while left:
                written = os.pwrite(self._fd, left, offset)
                left, offset = left[written:], offset + written


def _reserve(fd: int, size: int) -> None:
    """A disk that has no room for it says so here, not in the middle of a transfer; where the
    system can tell (macOS cannot)."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, size)
    else:
        os.ftruncate(fd, size)


def _exists(root: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=root, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _close(fd: int) -> None:
    if fd >= 0:
        os.close(fd)
