"""The timers of one connection, by name."""

import asyncio
from collections.abc import Callable


class Timers:
    """At most one of a name is armed; it is gone once it has fired."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._armed: dict[str, asyncio.TimerHandle] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._armed

    def arm(self, name: str, seconds: float, then: Callable[[], None]) -> None:
        """Call `then` after so many seconds, instead of what was armed under this name."""
        self.disarm(name)

        def fire() -> None:
            self._armed.pop(name, None)
            then()

        self._armed[name] = self._loop.call_later(seconds, fire)

    def disarm(self, name: str) -> None:
        """Does nothing when it is not armed."""
        timer = self._armed.pop(name, None)
        if timer is not None:
            timer.cancel()

    def disarm_all(self) -> None:
        for name in tuple(self._armed):
            self.disarm(name)
