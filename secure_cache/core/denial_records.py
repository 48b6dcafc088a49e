"""Counts of refusals, kept in the `state` store, where all processes' counts come together.

Each process has one object for each hour, and replaces it about once a minute while it changes: no
two processes ever write the same one.
"""

from collections.abc import Mapping

import anyio
import structlog

from secure_cache.core.denial_form import encode_counts
from secure_cache.core.denials import Denial, DenialCounts, Hour
from secure_cache.model.errors import AlreadyExists, SecureCacheError, VersionMismatch
from secure_cache.storage import layout
from secure_cache.storage.ports import ObjectStore

_log = structlog.get_logger(__name__)

KEEP_SECONDS = 60.0


class DenialRecords:
    """Keeps what this process counts.

    Args:
        state: the store.
        counts: of this process.
        process: 16 hex digits, never used before.
    """

    def __init__(self, *, state: ObjectStore, counts: DenialCounts, process: str) -> None:
        self._state = state
        self._counts = counts
        self._process = process
        self._failing = False

    async def run(self) -> None:
        """Keep what is counted, until cancelled."""
        while True:
            await anyio.sleep(KEEP_SECONDS)
            await self.keep()

    async def keep(self) -> None:
        """Keep what has changed. A store that fails is told once, and asked again the next
        time."""
        try:
            for number, hour in sorted(self._counts.hours.items()):
                if hour.changed:
                    await self._keep(number, hour)
                if not hour.changed:
                    self._counts.forget(number)
        except SecureCacheError as error:
            if not self._failing:
                _log.warning("denials.not_kept", why=str(error), code=error.code)
            self._failing = True
            return
        self._failing = False
        if self._counts.lost:
            _log.warning("denials.lost", count=self._counts.lost)
            self._counts.lost = 0

    def live(self) -> Mapping[str, tuple[int, Mapping[Denial, int]]]:
        """What this process holds: hour and counts by the name of their object."""
        return {
            layout.denials(number, self._process): (number, dict(hour.counts))
            for number, hour in self._counts.hours.items()
        }

    async def _keep(self, number: int, hour: Hour) -> None:
        """Raises: as the store."""
        data, name = encode_counts(number, hour.counts), layout.denials(number, self._process)
        # Whatever is counted from here on is a change again.
        hour.changed = False
        try:
            hour.version = await self._write(name, data, hour.version)
        except BaseException:
            hour.changed = True
            raise

    async def _write(self, name: str, data: bytes, version: str | None) -> str:
        if version is None:
            try:
                return (await self._state.create(name, data)).version
            except AlreadyExists:
                # Ours: the answer to an earlier attempt was lost.
                version = (await self._state.head(name)).version
        try:
            return (await self._state.replace(name, data, expected=version)).version
        except VersionMismatch:
            version = (await self._state.head(name)).version
            return (await self._state.replace(name, data, expected=version)).version
