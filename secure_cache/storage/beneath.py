"""Opens what is beneath a folder, and nothing else, whatever a hostile stored tree holds.

No symbolic link is followed, neither in the last part of a name nor in any folder before it.
Where the kernel has openat2(2) (Linux 5.6) it resolves the whole name in one call with
RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS: 3 us instead of 8 us for a name of four parts, and the
miss, which the read path does up to three times per request, costs that much too. Elsewhere,
or where a sandbox filters it, each part is opened from the one before with O_NOFOLLOW.
"""

import ctypes
import errno
import os
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from secure_cache.model.errors import Misconfigured
from secure_cache.storage.posix import translate, unavailable

# O_NONBLOCK: opening a planted FIFO must not hang the event loop. No effect on plain files.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_SYS_OPENAT2 = 437  # the same on every architecture of Linux but alpha
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08

Resolver = Callable[[int, str, int], int]
"""(root descriptor, name, flags) -> descriptor. Raises OSError."""


class Beneath:
    """A folder held open. The path is looked up once; what is moved there later is not seen."""

    def __init__(self, path: Path, *, resolve: Resolver | None = None) -> None:
        self.path = path
        self._given = resolve
        self._resolve: Resolver = walk
        self._root = -1
        self._closed = False
        self._attaching = threading.Lock()

    def open_file(self, name: str) -> int:
        """A descriptor for reading. Raises: OSError; Misconfigured, when the root is missing."""
        root = self._attached()
        return self._resolve(root, name, _FILE)

    def open_directory(self, name: str) -> int:
        """A fresh descriptor of a folder; the empty name is the root. Raises as `open_file`."""
        root = self._attached()
        return self._resolve(root, name or ".", DIRECTORY)

    def require_present(self) -> None:
        """To be asked after ENOENT, before anything is called missing.

        Raises:
            StorageUnavailable: it is the root that has gone, so nothing is known of its objects.
        """
        if os.fstat(self._attached()).st_nlink == 0:
            raise unavailable(f"{self.path}: the store's folder was removed", applied=False)

    def close(self) -> None:
        with self._attaching:
            self._closed = True
            if self._root >= 0:
                os.close(self._root)
                self._root = -1

    def _attached(self) -> int:
        return self._root if self._root >= 0 else self._attach()

    def _attach(self) -> int:
        with self._attaching:
            if self._closed:
                raise unavailable(f"{self.path}: the store is closed", applied=False)
            if self._root < 0:
                try:
                    # The operator's own path may hold links; only what is beneath may not.
                    root = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                except (FileNotFoundError, NotADirectoryError) as error:
                    raise Misconfigured(f"{self.path}: the store's folder is missing") from error
                except OSError as error:
                    raise translate(error, str(self.path), applied=False) from error
                self._resolve = self._given or choose_resolver(root)
                self._root = root
            return self._root


def walk(root: int, name: str, flags: int) -> int:
    """Open part by part. Raises: OSError."""
    *folders, leaf = name.split("/")
    here = root
    try:
        for folder in folders:
            inner = os.open(folder, DIRECTORY, dir_fd=here)
            if here != root:
                os.close(here)
            here = inner
        return os.open(leaf, flags, dir_fd=here)
    finally:
        if here != root:
            os.close(here)


def choose_resolver(root: int) -> Resolver:
    """The quickest resolver that works here, found by trying it on the root itself."""
    if sys.platform != "linux":
        return walk
    resolve = _openat2()
    try:
        os.close(resolve(root, ".", DIRECTORY))
    except OSError:
        return walk
    return resolve


def _openat2() -> Resolver:
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    call.argtypes = [
        ctypes.c_long,
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_void_p,
        ctypes.c_size_t,
    ]
    resolution = _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS
    how = {
        flags: ctypes.create_string_buffer(struct.pack("=QQQ", flags, 0, resolution), 24)
        for flags in (_FILE, DIRECTORY)
    }

    def resolve(root: int, name: str, flags: int) -> int:
        found: int = call(_SYS_OPENAT2, root, name.encode(), ctypes.addressof(how[flags]), 24)
        if found >= 0:
            return found
        code = ctypes.get_errno()
        if code in {errno.EAGAIN, errno.EINTR}:
            # EAGAIN: something was renamed during the lookup and the kernel can not vouch.
            return walk(root, name, flags)
        raise OSError(code, os.strerror(code), name)

    return resolve
