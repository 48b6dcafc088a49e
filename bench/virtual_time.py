"""An event loop on which waiting costs nothing: when nobody can run, time jumps to the next timer.

Real code runs on it unchanged, `anyio.sleep` and every other timer included, and the same seed
gives the same run. What takes no timer takes no time: processors are infinitely fast here.
"""

import asyncio
import selectors
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike


class StalledError(RuntimeError):
    """Nobody can run, and no timer will ever wake anybody: a deadlock of what is simulated."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """Seconds since its start are `time()`."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_Jumping(self))

    def time(self) -> float:
        return self._now

    def jump(self, seconds: float) -> None:
        self._now += seconds


class _Jumping(selectors.BaseSelector):
    """The loop asks its selector to wait until the next timer; this one makes it be then."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._real = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = self._real.select(0)
        if not events:
            if timeout is None:
                raise StalledError
            self._loop.jump(max(timeout, 0.0))
        return events

    def register(
        self, fileobj: "FileDescriptorLike", events: int, data: object = None
    ) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: "FileDescriptorLike") -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def get_map(self) -> Mapping["FileDescriptorLike", selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()
