"""The store in memory: for tests, the simulation and trying things out. Keeps nothing.

It judges its user: told that its objects are immutable, it fails the test that changes one.
"""

import hashlib
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

from secure_cache.model.clock import Clock, system_clock
from secure_cache.model.digest import Digest
from secure_cache.model.errors import (
    AlreadyExists,
    CorruptObject,
    DigestMismatch,
    NotFound,
    VersionMismatch,
)
from secure_cache.storage.ports import (
    Committed,
    ObjectInfo,
    Reading,
    StoredObject,
    Upload,
    check_name,
    check_prefix,
)


class ImmutableObjectTouched(AssertionError):
    """An object that must never change was replaced or deleted: a bug of the caller."""


class MemoryStore:
    """An ObjectStore in a dict. With `immutable`, replacing or deleting what exists is a bug.

    Deleting an absent object is harmless either way.
    """

    def __init__(self, *, immutable: bool = False, clock: Clock = system_clock) -> None:
        self._objects: dict[str, StoredObject] = {}
        self._immutable = immutable
        self._clock = clock
        self._versions = itertools.count(1)

    async def head(self, name: str) -> ObjectInfo:
        return self._find(name).info

    async def get(self, name: str, *, max_bytes: int) -> StoredObject:
        found = self._find(name)
        if found.info.size > max_bytes:
            raise CorruptObject(f"{name} has {found.info.size} bytes, more than {max_bytes}")
        return found

    async def get_if_changed(
        self, name: str, *, version: str, max_bytes: int
    ) -> StoredObject | None:
        if self._find(name).info.version == version:
            return None
        return await self.get(name, max_bytes=max_bytes)

    @asynccontextmanager
    async def open(self, name: str) -> AsyncIterator[Reading]:
        found = self._find(name)

        def is_current() -> bool:
            now = self._objects.get(name)
            return now is not None and now.info.version == found.info.version

        yield _MemoryReading(found, is_current)

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        check_prefix(prefix)
        for name in sorted(self._objects):
            if name.startswith(prefix) and name > start_after and name in self._objects:
                yield self._objects[name].info

    async def create(self, name: str, data: bytes) -> ObjectInfo:
        if check_name(name) in self._objects:
            raise AlreadyExists(name)
        return self._keep(name, data)

    @asynccontextmanager
    async def begin_upload(self, name: str) -> AsyncIterator[Upload]:
        yield _MemoryUpload(check_name(name), partial(self.create, name))

    async def replace(self, name: str, data: bytes, *, expected: str) -> ObjectInfo:
        found = self._objects.get(check_name(name))
        if found is None or found.info.version != expected:
            raise VersionMismatch(name)
        self._judge(name)
        return self._keep(name, data)

    async def delete(self, name: str, *, expected: str | None = None) -> bool:
        found = self._objects.get(check_name(name))
        if found is None:
            return False
        if expected is not None and found.info.version != expected:
            raise VersionMismatch(name)
        self._judge(name)
        del self._objects[name]
        return True

    async def check(self) -> None:
        """Memory can always do what it must."""

    async def close(self) -> None:
        """Nothing to give back."""

    def _find(self, name: str) -> StoredObject:
        found = self._objects.get(check_name(name))
        if found is None:
            raise NotFound(name)
        return found

    def _keep(self, name: str, data: bytes) -> ObjectInfo:
        # Never reused, so that a deleted and re-created object is not taken for the old one.
        version = f"m{next(self._versions)}"
        info = ObjectInfo(name, len(data), version, self._clock())
        self._objects[name] = StoredObject(info, bytes(data))
        return info

    def _judge(self, name: str) -> None:
        if self._immutable:
            raise ImmutableObjectTouched(f"{name} is immutable and was replaced or deleted")


class _MemoryReading:
    def __init__(self, found: StoredObject, is_current: Callable[[], bool]) -> None:
        self._found = found
        self._is_current = is_current

    @property
    def info(self) -> ObjectInfo:
        return self._found.info

    @property
    def stable_identity(self) -> str | None:
        return self._found.info.version

    async def chunks(self, *, offset: int = 0, size: int = 262_144) -> AsyncGenerator[bytes]:
        if offset < 0 or size < 1:
            raise ValueError("offset is at least 0, size at least 1")
        for start in range(offset, self.info.size, size):
            if not self._is_current():
                raise VersionMismatch(self.info.name)
            yield self._found.data[start : start + size]


class _MemoryUpload:
    def __init__(self, name: str, create: Callable[[bytes], Awaitable[ObjectInfo]]) -> None:
        self._name = name
        self._create = create
        self._data = bytearray()

    async def write(self, data: bytes) -> None:
        self._data += data

    async def commit(self, *, size: int, digest: Digest | None = None) -> Committed:
        written = Digest(hashlib.sha256(self._data).digest())
        if len(self._data) != size or (digest is not None and digest != written):
            raise DigestMismatch(f"{self._name}: {len(self._data)} bytes, sha256 {written}")
        return Committed(await self._create(bytes(self._data)), written)


class AlwaysTurn:
    """The Turn of a process that is alone."""

    async def try_take(self) -> bool:
        return True

    async def keep(self) -> bool:
        return True

    async def give_back(self) -> None:
        """Nothing was held."""
