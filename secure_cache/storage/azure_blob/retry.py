"""The one loop that repeats requests. The SDK's own is off.

The SDK waits 18 seconds before its second attempt, ignores `Retry-After` and does not repeat
after 429. Below it, aiohttp repeats a request once by itself when a kept connection was closed.
So every operation that passes through here must bear being applied twice: conditional writes
carry a nonce by which they know their own work again (`store`), blocks have unique ids.
"""

import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import anyio

from secure_cache.model.clock import Clock, system_clock
from secure_cache.storage.azure_blob.errors import RETRIED, AzureFault, fault_of
from secure_cache.storage.azure_blob.options import Effort, Patience
from secure_cache.storage.azure_blob.transport import ended_answers

_T = TypeVar("_T")

OK = "ok"


@dataclass(frozen=True, slots=True)
class StorageCall:
    """One finished operation, for metrics.

    Attributes:
        store: whose.
        operation: head, get, open, range, list, create, replace, delete, block, commit, ...
        outcome: "ok", or a value of `errors.Kind`.
        seconds: with all attempts and pauses.
        attempts: how many.
    """

    store: str
    operation: str
    outcome: str
    seconds: float
    attempts: int


Tell = Callable[[StorageCall], None]


@dataclass(frozen=True, slots=True)
class Timing:
    """How time passes here; a test brings its own.

    Attributes:
        clock: seconds since 1970.
        monotonic: seconds, for durations.
        sleep: pauses.
        jitter: a random number from 0 up to 1.
    """

    clock: Clock = system_clock
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep
    jitter: Callable[[], float] = random.random


@dataclass(frozen=True, slots=True)
class Calls:
    """Makes the requests of one store."""

    store: str
    patience: Patience
    tell: Tell
    timing: Timing

    async def run(self, operation: str, effort: Effort, request: Callable[[], Awaitable[_T]]) -> _T:
        """Ask until there is an answer, or no time.

        Args:
            operation: for metrics.
            effort: how long.
            request: makes the whole SDK call anew, and reads its body.

        Raises: AzureFault.
        """
        started = self.timing.monotonic()
        end = started + effort.seconds
        attempt = 0
        while True:
            attempt += 1
            left = end - self.timing.monotonic()
            try:
                with (
                    anyio.fail_after(max(0.01, min(left, effort.attempt_seconds))),
                    ended_answers(),
                ):
                    result = await request()
            except Exception as error:  # noqa: BLE001 - the SDK raises anything, see `fault_of`
                fault = fault_of(error, self.timing.clock())
                pause = self._pause(fault, attempt)
                late = self.timing.monotonic() + pause >= end
                if fault.kind not in RETRIED or attempt >= effort.attempts or late:
                    self._told(operation, fault.kind, started, attempt)
                    # The SDK's own text may quote what was signed, and URLs with signatures.
                    raise fault from None
                await self.timing.sleep(pause)
            else:
                self._told(operation, OK, started, attempt)
                return result

    def _pause(self, fault: AzureFault, attempt: int) -> float:
        """Full jitter: of many clients that failed together, no two come back together."""
        patience = self.patience
        # The exponent is bounded, or a float would not hold it.
        grown = patience.base_seconds * 2.0 ** min(attempt, 30)
        pause = self.timing.jitter() * min(patience.cap_seconds, grown)
        if fault.retry_after is not None:
            pause = max(pause, min(fault.retry_after, patience.retry_after_cap_seconds))
        return pause

    def _told(self, operation: str, outcome: str, started: float, attempts: int) -> None:
        seconds = self.timing.monotonic() - started
        self.tell(StorageCall(self.store, operation, outcome, seconds, attempts))
