"""Where the monitor's alerts go, and what is told of a log that is not as it should be."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import anyio
import anyio.to_thread
import msgspec

from secure_cache.audit.watch_alert import Alert, Severity
from secure_cache.client.abandoned import call_or_abandon
from secure_cache.client.monitor_state import StateFile
from secure_cache.model.clock import Clock
from secure_cache.model.errors import CorruptObject, HistoryChanged, Unavailable

_AGAIN_SECONDS = 3600
_Documents = list[dict[str, Any]]


class Outlet(Protocol):
    """Gives alerts out."""

    def show(self, alerts: _Documents) -> None:
        """To whoever has started the monitor."""
        ...

    def post(self, alerts: _Documents) -> None:
        """To the webhook, if there is one. Raises: Unavailable: it may not have all of them."""
        ...

    def leave(self, alerts: _Documents) -> None:
        """Say that the monitor was told to stop before the webhook took these."""
        ...


@dataclass(frozen=True, slots=True)
class Desk:
    """Tells alerts.

    Attributes:
        outlet: gives them out.
        file: remembers which stand.
        clock: for how long.
    """

    outlet: Outlet
    file: StateFile
    clock: Clock

    async def tell(self, alerts: list[Alert], origin: str) -> None:
        """Alerts about entries of the log called `origin`. Raises: Unavailable."""
        if alerts:
            documents = [alert.document(origin) for alert in alerts]
            await anyio.to_thread.run_sync(self.outlet.show, documents)
            await self._post(documents)

    async def stand(self, alerts: list[Alert]) -> None:
        """Tell what is wrong with the log as a whole; nothing, when nothing is.

        Each look shows it, and the webhook gets it when it begins and once an hour. Without a state
        that can be read it gets it each time.

        Raises:
            Unavailable: it may not have it. The next look tells it again.
        """
        state, now = None, int(self.clock())
        with suppress(CorruptObject):
            state = await anyio.to_thread.run_sync(self.file.read)
        was = {} if state is None else state.standing
        documents = [alert.document("" if state is None else state.origin) for alert in alerts]
        await anyio.to_thread.run_sync(self.outlet.show, documents)
        due = [
            item
            for item in documents
            # Also when it was told in the future, by a clock that was wrong.
            if not 0 <= now - was.get(item["id"], 0) < _AGAIN_SECONDS
        ]
        if due:
            await self._post(due)
        told = {item["id"]: was.get(item["id"], 0) for item in documents}
        told |= {item["id"]: now for item in due}
        if state is not None and told != was:
            state = msgspec.structs.replace(state, standing=told)
            await anyio.to_thread.run_sync(self.file.write, state)

    async def _post(self, documents: _Documents) -> None:
        # A webhook that hangs must not hold up whoever stops the monitor. What it may not have
        # taken is told again by the next run, as after a crash.
        try:
            await call_or_abandon(self.outlet.post, documents)
        except anyio.get_cancelled_exc_class():
            self.outlet.leave(documents)
            raise

    async def history_changed(self, error: HistoryChanged) -> Alert:
        """The alert for it, after both checkpoints were kept."""
        kept = await self.keep(error.older, error.newer, error.proof)
        # A log that was put back grows: it is one alert as long as it contradicts one checkpoint.
        about = f"{error.older!r} {error.proof is not None}"
        return Alert("history-changed", Severity.ALARM, f"{error}. {kept}", about=about)

    async def keep(self, older: bytes, newer: bytes, proof: bytes | None) -> str:
        """Keep two signed checkpoints; a sentence that says where."""
        try:
            folder = await anyio.to_thread.run_sync(self.file.keep_evidence, older, newer, proof)
        except Unavailable as error:
            # A disk that is full must not make an outage of an alarm.
            return f"The signed checkpoints could not be kept: {error}."
        return f"Both signed checkpoints are in {folder}."
