"""Keeping, now and then, the newest checkpoint that this process has seen."""

import anyio
import structlog

from secure_cache.core.log_memory import LogMemory
from secure_cache.model.errors import SecureCacheError
from secure_cache.settings import Storage

_log = structlog.get_logger(__name__)

_SECONDS = 2.0
_SECONDS_OF_MANY = 10.0


class Remembering:
    """One per process."""

    def __init__(self, memory: LogMemory, storage: Storage) -> None:
        self._memory = memory
        # There replicas may be many, and each request to the storage costs money.
        self._seconds = _SECONDS_OF_MANY if storage.kind == "azure" else _SECONDS

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await anyio.sleep(self._seconds)
            await self.once()

    async def once(self) -> None:
        try:
            await self._memory.remember()
        except SecureCacheError as error:
            _log.exception("log.not_remembered", code=error.code)
