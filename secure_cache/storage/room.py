"""How much of the local tier's folder is taken, and who has to go when more is needed.

Everything here blocks, and its caller has the folder's lock: no other process takes or gives
room meanwhile. The number in the file is never less than what is really taken (each step is
ordered so that a crash leaves it too high), and a real count corrects it before anything is
evicted or refused.
"""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from secure_cache.storage.locks import try_flock

DRAFTS: Final = ".tmp"
USED: Final = ".used"
_TAKEN: Final = ".room"

_BLOCK_BYTES = 4096
_SLACK = 20  # a twentieth of the whole is freed beyond what is asked, so that counts are rare
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DIGITS = re.compile(rb"[0-9]{1,19}")
# Only what is named like ours is ever removed: a folder with something else in it may have been
# configured by mistake.
_OURS = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}")
_OUR_DRAFT = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}\.[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class RoomChange:
    """What taking room did.

    Attributes:
        evicted: files that had to go.
        evicted_bytes: the room that they had.
        taken: bytes that are taken now.
    """

    evicted: int
    evicted_bytes: int
    taken: int


@dataclass(frozen=True, slots=True, order=True)
class _Published:
    used: float
    name: str
    room: int


class Room:
    """The bookkeeping. `root` is always a descriptor of the folder."""

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes

    def take(self, root: int, size: int) -> RoomChange | None:
        """Take room for a file; None when there is not enough even so. Raises: OSError."""
        needed = _rounded(size)
        if needed > self._max:
            return None
        taken, evicted, evicted_bytes = _read_taken(root), 0, 0
        if taken is None or taken + needed > self._max:
            published, taken = _count(root)
            goal = self._max - self._max // _SLACK
            for file in sorted(published) if taken + needed > self._max else ():
                if taken + needed <= goal:
                    break
                if _evict(root, file.name):
                    taken -= file.room
                    evicted += 1
                    evicted_bytes += file.room
        enough = taken + needed <= self._max
        _write_taken(root, taken + needed if enough else taken)
        return RoomChange(evicted, evicted_bytes, taken + needed) if enough else None

    def give_back(self, root: int, size: int) -> None:
        """To be called after the file has gone. Raises: OSError."""
        taken = _read_taken(root)
        if taken is not None:
            _write_taken(root, max(0, taken - _rounded(size)))

    def sweep(self, root: int) -> RoomChange:
        """Remove what crashed processes left, and count. Raises: OSError."""
        published, taken = _count(root)
        known = {file.name for file in published}
        for name in _names(root, USED):
            if name not in known and _OURS.fullmatch(name) is not None:
                with suppress(FileNotFoundError):
                    os.unlink(f"{USED}/{name}", dir_fd=root)
        _write_taken(root, taken)
        return RoomChange(0, 0, taken)


def _rounded(size: int) -> int:
    return -(-size // _BLOCK_BYTES) * _BLOCK_BYTES


def _count(root: int) -> tuple[list[_Published], int]:
    published = list(_published(root))
    return published, sum(file.room for file in published) + _living_drafts(root)


def _published(root: int) -> Iterator[_Published]:
    for name in _names(root, "."):
        if _OURS.fullmatch(name) is None:
            continue
        with suppress(FileNotFoundError):
            found = os.stat(name, dir_fd=root, follow_symlinks=False)
            if not stat.S_ISREG(found.st_mode):
                remove(root, name, found)
                continue
            used = found.st_mtime
            with suppress(FileNotFoundError):
                used = os.stat(f"{USED}/{name}", dir_fd=root, follow_symlinks=False).st_mtime
            yield _Published(used, name, _rounded(found.st_size))


def _living_drafts(root: int) -> int:
    """Their room. Those of the dead, whose lock the kernel has dropped, are removed."""
    room = 0
    for name in _names(root, DRAFTS):
        if _OUR_DRAFT.fullmatch(name) is None:
            continue
        leaf = f"{DRAFTS}/{name}"
        with suppress(FileNotFoundError):
            fd = os.open(leaf, _OPEN, dir_fd=root)
            try:
                if try_flock(fd):
                    os.unlink(leaf, dir_fd=root)
                else:
                    room += _rounded(os.fstat(fd).st_size)
            finally:
                os.close(fd)
    return room


def _evict(root: int, name: str) -> bool:
    """Remove a file, unless somebody reads it: its bytes would stay taken and not be counted."""
    try:
        fd = os.open(name, _OPEN, dir_fd=root)
    except FileNotFoundError:
        return True
    try:
        if not try_flock(fd):
            return False
        os.unlink(name, dir_fd=root)
    finally:
        os.close(fd)
    with suppress(FileNotFoundError):
        os.unlink(f"{USED}/{name}", dir_fd=root)
    return True


def remove(root: int, name: str, found: os.stat_result) -> None:
    """Remove what somebody planted under a name of ours. Raises: OSError."""
    if stat.S_ISDIR(found.st_mode):
        with suppress(OSError):
            # One with something in it is left alone. It can never be served.
            os.rmdir(name, dir_fd=root)
    else:
        os.unlink(name, dir_fd=root)


def _names(root: int, folder: str) -> list[str]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)
    try:
        with os.scandir(fd) as entries:
            return [entry.name for entry in entries]
    finally:
        os.close(fd)


def _read_taken(root: int) -> int | None:
    try:
        fd = os.open(_TAKEN, _OPEN, dir_fd=root)
    except OSError:
        return None
    try:
        text = os.read(fd, 32).strip()
    finally:
        os.close(fd)
    return int(text) if _DIGITS.fullmatch(text) is not None else None


def _write_taken(root: int, taken: int) -> None:
    # Always of one length, and written at once: no crash leaves half a number.
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(_TAKEN, flags, 0o600, dir_fd=root)
    try:
        os.ftruncate(fd, os.pwrite(fd, b"%019d\n" % taken, 0))
    finally:
        os.close(fd)
