"""A remote store: slow or halting where a test says so, and without identities that would let a
proof be remembered."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import anyio
from fakes.faults import FaultyStore

from secure_cache.storage.ports import ObjectInfo, Reading


class RemoteStore(FaultyStore):
    """Counts what is downloaded; `gate` holds every chunk back until it is set.

    Attributes:
        downloaded: bytes that were given out of `open`, by name.
        opened: how often each object was opened.
        pause: seconds before each chunk.
        local: it does give identities, those of the store behind it.
        halted: names of objects that `gate` holds back; without any it holds back all.
    """

    def __init__(self, inner) -> None:
        super().__init__(inner)
        self.downloaded: dict[str, int] = {}
        self.opened: dict[str, int] = {}
        self.pause = 0.0
        self.local = False
        self.halted: set[str] = set()
        self.gate = anyio.Event()
        self.gate.set()

    @asynccontextmanager
    async def open(self, name: str) -> AsyncIterator[Reading]:
        self.opened[name] = self.opened.get(name, 0) + 1
        async with super().open(name) as reading:
            yield _Remote(reading, self)


class _Remote:
    def __init__(self, inner: Reading, store: RemoteStore) -> None:
        self._inner = inner
        self._store = store

    @property
    def info(self) -> ObjectInfo:
        return self._inner.info

    @property
    def stable_identity(self) -> str | None:
        return self._inner.stable_identity if self._store.local else None

    async def chunks(self, *, offset: int = 0, size: int = 262_144) -> AsyncGenerator[bytes]:
        async for chunk in self._inner.chunks(offset=offset, size=size):
            if not self._store.halted or self.info.name in self._store.halted:
                await self._store.gate.wait()
            await anyio.sleep(self._store.pause)
            seen = self._store.downloaded
            seen[self.info.name] = seen.get(self.info.name, 0) + len(chunk)
            yield chunk
