"""What the floors above may ask of the log."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Logged:
    """A durable promise: this leaf will be in the log exactly once.

    Attributes:
        batch: name of the pending batch that holds it.
        position: its place in the batch, from 0.
    """

    batch: str
    position: int


class Log(Protocol):
    """Append-only; what is acknowledged is never lost, dropped or duplicated."""

    async def append(self, leaf: bytes) -> Logged:
        """Return once the leaf is durable and will be sequenced exactly once.

        Raises:
            Overloaded: too many entries are waiting.
            StorageUnavailable: it may or may not come to be logged.
            Malformed: the leaf is empty or above 65 535 bytes.
        """
        ...
