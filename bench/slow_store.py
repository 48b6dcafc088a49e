"""An Azure-like account in memory: every request takes time, and some are refused.

It counts what an operator pays for and what Azure limits: requests in all, and requests on each
object that is asked for again and again.
"""

import math
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TypeVar

import anyio

from secure_cache.model.errors import StorageUnavailable, VersionMismatch
from secure_cache.storage.memory import MemoryStore
from secure_cache.storage.ports import ObjectInfo, Reading, StoredObject, Upload

T = TypeVar("T")

PAGE = 1000
"""Objects that one request of a listing gives, as the Azure adapter asks for them."""

_RETRIES = 4
_RETRY_BASE = 0.05
_RETRY_CAP = 2.0
_SLOW_ONE_IN = 200
_SLOW_FACTOR = 5


@dataclass
class Account:
    """What all replicas share.

    Attributes:
        latency: median seconds of a request. It has a floor of 0.8 of it and an exponential
            tail (99 of 100 are below 2.2 of it), and one in 200 takes five times as long.
        limit: requests a second that the account serves; what is above it gets 503 after the
            time of a request. 0: no limit.
        random: everything that is random.
    """

    latency: float
    limit: int
    random: random.Random
    requests: Counter[str] = field(default_factory=Counter)
    conflicts: Counter[str] = field(default_factory=Counter)
    throttled: int = 0
    seconds: Counter[tuple[str, int]] = field(default_factory=Counter)
    on_replaced: Callable[[str, bytes], None] = lambda _name, _data: None

    def count(self, operation: str, hot: str) -> None:
        second = int(anyio.current_time())
        self.requests[operation] += 1
        self.seconds["account", second] += 1
        if hot:
            self.seconds[hot, second] += 1

    def takes(self) -> float:
        """Seconds of one request."""
        seconds = self.latency * 0.8
        seconds += self.random.expovariate(math.log(2) / (self.latency * 0.2))
        return seconds * (_SLOW_FACTOR if self.random.randrange(_SLOW_ONE_IN) == 0 else 1)

    def is_over(self) -> bool:
        return bool(self.limit) and (
            self.seconds["account", int(anyio.current_time())] > self.limit
        )

    def busiest(self, before: float) -> dict[str, int]:
        """For each object that is asked for again and again, its busiest second."""
        result: dict[str, int] = {}
        for (name, second), count in self.seconds.items():
            if second < before:
                result[name] = max(result.get(name, 0), count)
        return result


class SlowStore:
    """One container as one replica sees it. Implements `ObjectStore`.

    A replica that was killed gets no answer any more, not even in its last breath; what it had
    sent may have taken effect or not.
    """

    def __init__(self, account: Account, memory: MemoryStore, is_dead: Callable[[], bool]) -> None:
        self._account = account
        self._memory = memory
        self._is_dead = is_dead

    async def _perform(
        self, operation: str, effect: Callable[[], Awaitable[T]], hot: str = ""
    ) -> T:
        account = self._account
        for attempt in range(_RETRIES + 1):
            if self._is_dead():
                break
            account.count(operation, hot)
            seconds, there = account.takes(), account.random.random()
            await anyio.sleep(seconds * there)
            if not account.is_over():
                try:
                    return await effect()
                finally:
                    await anyio.sleep(seconds * (1 - there))
            account.throttled += 1
            await anyio.sleep(seconds * (1 - there))
            await anyio.sleep(account.random.random() * min(_RETRY_CAP, _RETRY_BASE * 2**attempt))
        error = StorageUnavailable("503, simulated")
        error.applied = False
        raise error

    async def head(self, name: str) -> ObjectInfo:
        return await self._perform("head", lambda: self._memory.head(name))

    async def get(self, name: str, *, max_bytes: int) -> StoredObject:
        return await self._perform(
            "get", lambda: self._memory.get(name, max_bytes=max_bytes), _hot(name)
        )

    async def get_if_changed(
        self, name: str, *, version: str, max_bytes: int
    ) -> StoredObject | None:
        return await self._perform(
            "get",
            lambda: self._memory.get_if_changed(name, version=version, max_bytes=max_bytes),
            _hot(name),
        )

    def open(self, name: str) -> AbstractAsyncContextManager[Reading]:
        return self._memory.open(name)

    def begin_upload(self, name: str) -> AbstractAsyncContextManager[Upload]:
        return self._memory.begin_upload(name)

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        async def page() -> list[ObjectInfo]:
            found: list[ObjectInfo] = []
            async for info in self._memory.list(prefix, start_after=start_after):
                found.append(info)
                if len(found) == PAGE:
                    break
            return found

        while True:
            infos = await self._perform("list", page, f"list {prefix.split('/', 1)[0]}")
            for info in infos:
                yield info
            if len(infos) < PAGE:
                return
            start_after = infos[-1].name

    async def create(self, name: str, data: bytes) -> ObjectInfo:
        return await self._perform("create", lambda: self._memory.create(name, data), _hot(name))

    async def replace(self, name: str, data: bytes, *, expected: str) -> ObjectInfo:
        async def effect() -> ObjectInfo:
            try:
                info = await self._memory.replace(name, data, expected=expected)
            except VersionMismatch:
                self._account.conflicts[name] += 1
                raise
            self._account.on_replaced(name, data)
            return info

        return await self._perform("replace", effect, _hot(name))

    async def delete(self, name: str, *, expected: str | None = None) -> bool:
        return await self._perform(
            "delete", lambda: self._memory.delete(name, expected=expected), _hot(name)
        )

    async def check(self) -> None:
        """Not judged here."""

    async def close(self) -> None:
        """Nothing to give back."""


def _hot(name: str) -> str:
    """The few objects that are asked for again and again all stand at the top."""
    return "" if "/" in name else name
