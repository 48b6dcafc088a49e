"""What one process refuses: counted, kept, and read back with what the others have kept."""

import secrets

import anyio

from secure_cache.core.denial_reading import DenialReader
from secure_cache.core.denial_records import DenialRecords
from secure_cache.core.denials import DenialCounts
from secure_cache.model.clock import Clock
from secure_cache.storage.ports import ObjectStore

_LAST_SECONDS = 3.0
"""A store that does not answer at the end of a drain is left: counts are no evidence."""


class Denials:
    """The three parts of it."""

    def __init__(self, state: ObjectStore, *, clock: Clock) -> None:
        self.counts = DenialCounts(clock=clock)
        self.records = DenialRecords(state=state, counts=self.counts, process=secrets.token_hex(8))
        self.reader = DenialReader(state, own=self.records)

    async def keep_at_the_end(self) -> None:
        with anyio.move_on_after(_LAST_SECONDS, shield=True):
            await self.records.keep()
