"""Room in memory for chunks that are being proved or sent, shared fairly with slow clients."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

_PATIENCE_SECONDS = 0.25


class Place:
    """Room for one chunk.

    Attributes:
        chunk: what is in it; None before it came, and after the place was taken away.
    """

    __slots__ = ("chunk", "idle_since")

    def __init__(self) -> None:
        self.chunk: bytes | None = None
        self.idle_since: float | None = None


class Places:
    """So many and no more.

    A client that takes its bytes slowly must not keep a place from others, and nobody may hold
    memory for long by reading slowly. So who waits takes the place of whoever has been waiting
    for its client the longest, once that was a quarter of a second. That one reads its block
    again, which by then can be proved by itself.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._taken: set[Place] = set()
        self._changed = anyio.Event()

    @asynccontextmanager
    async def one(self) -> AsyncIterator[Place]:
        """Wait for a place. Others who wait for clients do not prolong it by more than 0.25 s."""
        place = Place()
        while len(self._taken) >= self._total:
            idle = [taken for taken in self._taken if taken.idle_since is not None]
            victim = min(idle, key=lambda taken: taken.idle_since or 0.0, default=None)
            pause = _PATIENCE_SECONDS
            if victim is not None and victim.idle_since is not None:
                pause = victim.idle_since + _PATIENCE_SECONDS - anyio.current_time()
                if pause <= 0:
                    self._take_away(victim)
                    break
            with anyio.move_on_after(pause):
                await self._changed.wait()
        self._taken.add(place)
        try:
            yield place
        finally:
            self._take_away(place)

    def _take_away(self, place: Place) -> None:
        place.chunk = None
        self._taken.discard(place)
        self._changed.set()
        self._changed = anyio.Event()
