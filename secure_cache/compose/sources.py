"""Where a look-up gets the bytes of an artifact from: the local tier, and the store behind it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from secure_cache.core.blocks import BlockLists
from secure_cache.core.get import Source
from secure_cache.core.local_tier import LocalTier
from secure_cache.core.straight import Straight
from secure_cache.core.telemetry import Telemetry
from secure_cache.model.clock import Clock
from secure_cache.settings import LocalTier as TierSettings
from secure_cache.storage.ports import ObjectReader
from secure_cache.storage.room import RoomChange
from secure_cache.storage.tier_folder import TierFolder
from secure_cache.storage.tier_ports import LocalFolder

_BLOCK_LISTS_BYTES = 16 << 20
"""Of what was proved: enough for 64 GiB of large artifacts, or 30 000 small ones."""


class Sources:
    """The sources of one worker."""

    def __init__(
        self,
        settings: TierSettings,
        *,
        artifacts: ObjectReader,
        telemetry: Telemetry,
        clock: Clock,
    ) -> None:
        lists = BlockLists(_BLOCK_LISTS_BYTES)
        self._tier: LocalTier | None = None
        self.all: list[Source] = [Straight(artifacts, lists)]
        if settings.path is None:
            return

        def tell(change: RoomChange) -> None:
            telemetry.tier_evicted(
                files=change.evicted,
                size_bytes=change.evicted_bytes,
                taken_bytes=change.taken,
            )

        folder: LocalFolder = TierFolder(
            settings.path, max_bytes=settings.max_bytes, tell=tell, clock=clock
        )
        self._tier = LocalTier(folder=folder, artifacts=artifacts, lists=lists, telemetry=telemetry)
        self.all.insert(0, self._tier)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Raises: Misconfigured, StorageForbidden: the folder of the tier."""
        if self._tier is None:
            yield
            return
        async with self._tier.running():
            yield
