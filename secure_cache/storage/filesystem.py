"""The store in a folder of one machine, shared safely by several processes.

    ROOT/<name>    the objects, each a file that is replaced whole and never written in place
    ROOT/.tmp/     drafts that nobody can read yet
    ROOT/.locks/   lock files for compare-and-swap

Not for network file systems. The write order is documented in `durable`.
"""

import os
from collections.abc import AsyncIterator, Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

from secure_cache.model.clock import Clock, system_clock
from secure_cache.model.errors import CorruptObject
from secure_cache.storage.beneath import Beneath, walk
from secure_cache.storage.draft import Staging
from secure_cache.storage.durable import Durability, DurableFolder
from secure_cache.storage.listing import list_objects
from secure_cache.storage.mounts import MOUNTINFO, require_local_filesystem
from secure_cache.storage.ports import ObjectInfo, StoredObject, check_name
from secure_cache.storage.posix import info_of, version_of
from secure_cache.storage.probe import make_root, prove
from secure_cache.storage.reading import FileReading, open_object, read_at
from secure_cache.storage.upload import FileUpload

_T = TypeVar("_T")

_WRITERS = 32
_READERS = 16
_PAGE = 256
_DRAFT_LIFE_SECONDS = 86_400


def _ignore(_message: str) -> None:
    """The default for `on_fsync_failure`: the store refuses writes, and the process goes on."""


class FilesystemStore:
    """An ObjectStore in a folder.

    Looking up, missing and reading what is small and cached happen on the event loop itself:
    they take 5 to 10 us where a visit to a thread takes 60, and Nx asks for all its tasks at
    once. They wait for the disk only when the folder entry is not in the kernel's cache;
    contents that are not are read in a thread. All writes, fsyncs and listings are done in
    threads, writes and reads under limits of their own so that slow fsyncs starve no reader.
    """

    def __init__(
        self,
        root: Path,
        *,
        insecure_allow_network_filesystem: bool = False,
        on_fsync_failure: Callable[[str], None] = _ignore,
        clock: Clock = system_clock,
        portable: bool = False,
        mountinfo: Path = MOUNTINFO,
    ) -> None:
        """Touch nothing yet; `check` does.

        Args:
            root: made by `check` when it is missing; without `check` it must exist.
            insecure_allow_network_filesystem: accept a file system whose promises are unknown.
            on_fsync_failure: called once in a worker thread, with one line for the operator.
                The process should exit: nothing that it sees of the store may be trusted.
            clock: for the time of modification and the age of files.
            portable: do without openat2 and O_TMPFILE even where the system has them.
            mountinfo: where the system lists its mounts.
        """
        self.root = root
        self._allow_network = insecure_allow_network_filesystem
        self._mountinfo = mountinfo
        self._clock = clock
        self._beneath = Beneath(root, resolve=walk if portable else None)
        self._folder = DurableFolder(
            self._beneath,
            Staging(self._beneath, anonymous=not portable),
            Durability(on_fsync_failure),
            clock,
        )
        self._writers = CapacityLimiter(_WRITERS)
        self._readers = CapacityLimiter(_READERS)

    async def head(self, name: str) -> ObjectInfo:
        fd, found = open_object(self._beneath, name)
        os.close(fd)
        return info_of(name, found)

    async def get(self, name: str, *, max_bytes: int) -> StoredObject:
        fd, found = open_object(self._beneath, name)
        try:
            return await self._read_whole(name, fd, found, max_bytes)
        finally:
            os.close(fd)

    async def get_if_changed(
        self, name: str, *, version: str, max_bytes: int
    ) -> StoredObject | None:
        fd, found = open_object(self._beneath, name)
        try:
            if version_of(found) == version:
                return None
            return await self._read_whole(name, fd, found, max_bytes)
        finally:
            os.close(fd)

    def open(self, name: str) -> FileReading:
        return FileReading(self._beneath, name, clock=self._clock, limiter=self._readers)

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        found = list_objects(self._beneath, prefix, start_after)
        try:
            while page := await to_thread.run_sync(
                lambda: [*islice(found, _PAGE)], limiter=self._readers
            ):
                for info in page:
                    yield info
        finally:
            found.close()

    async def create(self, name: str, data: bytes) -> ObjectInfo:
        check_name(name)
        return await self._write(partial(self._folder.create, name, [data]))

    def begin_upload(self, name: str) -> FileUpload:
        return FileUpload(self._folder, name, limiter=self._writers)

    async def replace(self, name: str, data: bytes, *, expected: str) -> ObjectInfo:
        check_name(name)
        return await self._write(partial(self._folder.replace, name, data, expected=expected))

    async def delete(self, name: str, *, expected: str | None = None) -> bool:
        check_name(name)
        return await self._write(partial(self._folder.delete, name, expected=expected))

    async def check(self) -> None:
        """Make the folder, sweep drafts of crashed processes, and prove that link, rename,
        flock and fsync work there.

        Raises: Misconfigured, StorageForbidden, StorageUnavailable.
        """
        await self._write(self._check)

    async def close(self) -> None:
        self._beneath.close()

    def _check(self) -> None:
        make_root(self.root, self._folder.durability)
        if not self._allow_network:
            require_local_filesystem(self.root, mountinfo=self._mountinfo)
        prove(self.root, self._folder)
        self._folder.staging.sweep(older_than=self._clock() - _DRAFT_LIFE_SECONDS)

    async def _write(self, work: Callable[[], _T]) -> _T:
        """One visit to a thread for a whole operation. Not abandoned when cancelled: a write
        is finished or failed by the time that its caller goes on."""
        return await to_thread.run_sync(work, limiter=self._writers)

    async def _read_whole(
        self, name: str, fd: int, found: os.stat_result, max_bytes: int
    ) -> StoredObject:
        size = found.st_size
        if size > max_bytes:
            raise CorruptObject(f"{name} has {size} bytes, more than {max_bytes}")
        data = await read_at(fd, 0, size, name=name, limiter=self._readers)
        if len(data) != size:
            raise CorruptObject(f"{name}: {len(data)} of {size} bytes could be read")
        return StoredObject(info_of(name, found), data)
