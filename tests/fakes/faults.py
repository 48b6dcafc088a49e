"""A store whose operations fail where a plan says so.

    def plan(operation: Operation) -> Fault | None:
        if operation.kind == "replace" and operation.name == "head":
            return Fault.LOST_AFTER
        return None

    store = FaultyStore(MemoryStore(), plan)

Every mutation can fail before taking effect, knowingly or not, and after it. A plan may also
raise by itself, which then happens before the operation, or return a `Fault.raising(error,
after=...)` to do anything else, a simulated crash for instance.
"""

import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import ClassVar, Self, TypeVar

from secure_cache.model.digest import Digest
from secure_cache.model.errors import StorageUnavailable
from secure_cache.storage.ports import (
    Committed,
    ObjectInfo,
    ObjectStore,
    Reading,
    StoredObject,
    Upload,
)

_T = TypeVar("_T")

MUTATIONS = frozenset({"create", "commit", "replace", "delete"})
READS = frozenset({"head", "get", "get_if_changed", "open", "chunk", "list"})


@dataclass(frozen=True, slots=True)
class Operation:
    """One call to the store, about to happen.

    Attributes:
        kind: one of MUTATIONS or READS; "commit" is that of an upload, "chunk" one piece read.
        name: the object, or the prefix of a listing.
        number: counts the calls of this store, from 1.
        data: what a create or replace would write.
    """

    kind: str
    name: str
    number: int
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong: which error, and whether the operation takes effect first."""

    after: bool
    error: BaseException | None = None
    applied: bool | None = None

    BEFORE: ClassVar["Fault"]
    LOST_BEFORE: ClassVar["Fault"]
    LOST_AFTER: ClassVar["Fault"]

    @classmethod
    def raising(cls, error: BaseException, *, after: bool = False) -> Self:
        return cls(after=after, error=error)

    def happen(self, operation: Operation) -> None:
        if self.error is not None:
            raise self.error
        when = "after" if self.after else "before"
        error = StorageUnavailable(f"planned: {operation.kind} {operation.name} failed {when}")
        error.applied = self.applied
        raise error


Fault.BEFORE = Fault(after=False, applied=False)
Fault.LOST_BEFORE = Fault(after=False, applied=None)
Fault.LOST_AFTER = Fault(after=True, applied=None)
MUTATION_FAULTS = (Fault.BEFORE, Fault.LOST_BEFORE, Fault.LOST_AFTER)

Plan = Callable[[Operation], Fault | None]


def no_faults(_operation: Operation) -> Fault | None:
    return None


@dataclass
class FailOnce:
    """Fails the nth (from 1) operation that matches, and no other. `happened` tells whether."""

    fault: Fault
    kind: str
    prefix: str = ""
    nth: int = 1
    happened: bool = field(default=False, init=False)

    def __call__(self, operation: Operation) -> Fault | None:
        if operation.kind != self.kind or not operation.name.startswith(self.prefix):
            return None
        self.nth -= 1
        if self.nth != 0:
            return None
        self.happened = True
        return self.fault


def seeded(seed: int, rate: float) -> Plan:
    """Faults of all kinds, the same ones for the same seed and the same calls."""
    source = random.Random(seed)

    def plan(operation: Operation) -> Fault | None:
        if source.random() >= rate:
            return None
        return source.choice(MUTATION_FAULTS) if operation.kind in MUTATIONS else Fault.BEFORE

    return plan


class FaultyStore:
    """An ObjectStore around another one. `plan` may be exchanged at any time; `operations`
    holds what was asked so far."""

    def __init__(self, inner: ObjectStore, plan: Plan = no_faults) -> None:
        self.inner = inner
        self.plan = plan
        self.operations: list[Operation] = []

    async def head(self, name: str) -> ObjectInfo:
        self._before("head", name)
        return await self.inner.head(name)

    async def get(self, name: str, *, max_bytes: int) -> StoredObject:
        self._before("get", name)
        return await self.inner.get(name, max_bytes=max_bytes)

    async def get_if_changed(
        self, name: str, *, version: str, max_bytes: int
    ) -> StoredObject | None:
        self._before("get_if_changed", name)
        return await self.inner.get_if_changed(name, version=version, max_bytes=max_bytes)

    @asynccontextmanager
    async def open(self, name: str) -> AsyncIterator[Reading]:
        self._before("open", name)
        async with self.inner.open(name) as reading:
            yield _FaultyReading(reading, self)

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        self._before("list", prefix)
        async for info in self.inner.list(prefix, start_after=start_after):
            yield info

    async def create(self, name: str, data: bytes) -> ObjectInfo:
        after = self._before("create", name, data)
        return after(await self.inner.create(name, data))

    @asynccontextmanager
    async def begin_upload(self, name: str) -> AsyncIterator[Upload]:
        async with self.inner.begin_upload(name) as upload:
            yield _FaultyUpload(upload, name, self)

    async def replace(self, name: str, data: bytes, *, expected: str) -> ObjectInfo:
        after = self._before("replace", name, data)
        return after(await self.inner.replace(name, data, expected=expected))

    async def delete(self, name: str, *, expected: str | None = None) -> bool:
        after = self._before("delete", name)
        return after(await self.inner.delete(name, expected=expected))

    async def check(self) -> None:
        await self.inner.check()

    async def close(self) -> None:
        await self.inner.close()

    def _before(self, kind: str, name: str, data: bytes | None = None) -> Callable[[_T], _T]:
        operation = Operation(kind, name, len(self.operations) + 1, data)
        self.operations.append(operation)
        fault = self.plan(operation)
        if fault is not None and not fault.after:
            fault.happen(operation)

        def after(result: _T) -> _T:
            if fault is not None:
                fault.happen(operation)
            return result

        return after


class _FaultyReading:
    def __init__(self, inner: Reading, store: FaultyStore) -> None:
        self._inner = inner
        self._store = store

    @property
    def info(self) -> ObjectInfo:
        return self._inner.info

    @property
    def stable_identity(self) -> str | None:
        return self._inner.stable_identity

    async def chunks(self, *, offset: int = 0, size: int = 262_144) -> AsyncGenerator[bytes]:
        async for chunk in self._inner.chunks(offset=offset, size=size):
            self._store._before("chunk", self._inner.info.name)
            yield chunk


class _FaultyUpload:
    def __init__(self, inner: Upload, name: str, store: FaultyStore) -> None:
        self._inner = inner
        self._name = name
        self._store = store

    async def write(self, data: bytes) -> None:
        await self._inner.write(data)

    async def commit(self, *, size: int, digest: Digest | None = None) -> Committed:
        after = self._store._before("commit", self._name)
        return after(await self._inner.commit(size=size, digest=digest))
