"""What the floors above may ask of the log."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from secure_cache.tlog.checkpoint import Checkpoint
from secure_cache.tlog.tlog_proof import TlogProof

ProofFrom: TypeAlias = Callable[[int], Awaitable[tuple[bytes, ...]]]
"""The consistency proof from a smaller size, above 0, to the checkpoint in question. Raises:
NotFound, LogInconsistent, StorageUnavailable."""


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
            LogInconsistent: the log failed its self-check; nothing is accepted until it passes.
        """
        ...


class VerifiedLog(Protocol):
    """A log wherever it is read: up to the newest signed checkpoint, every byte verified.

    All methods raise StorageUnavailable, and LogInconsistent when what is stored does not lead
    to the signed root.
    """

    async def published(self) -> Checkpoint:
        """The newest signed checkpoint; never goes back within a process."""
        ...

    async def checkpoint_note(self) -> bytes:
        """Its signed note, as C2SP clients read it."""
        ...

    async def entry(self, index: int) -> bytes:
        """Raises: NotFound (not in the published log)."""
        ...

    def entries(self, start: int = 0, end: int | None = None) -> AsyncIterator[tuple[int, bytes]]:
        """Index and bytes of the entries from `start` up to, not including, `end`."""
        ...

    async def proof(self, index: int) -> TlogProof:
        """Inclusion in the newest checkpoint; `bytes` of it is a `.tlog-proof` file.

        Raises: NotFound.
        """
        ...

    async def inclusion_proof(self, index: int, size: int) -> tuple[bytes, ...]:
        """RFC 6962 audit path of entry `index` in the tree of `size`. Raises: NotFound."""
        ...

    async def consistency_proof(self, old: int, new: int) -> tuple[bytes, ...]:
        """RFC 6962 consistency proof between two published sizes. Raises: NotFound."""
        ...


class PublishedLog(VerifiedLog, Protocol):
    """The log as its own server shows it to everybody."""

    async def index_of(self, logged: Logged) -> int | None:
        """The entry's index, or None while it is not in the published log."""
        ...

    async def tile(self, path: str) -> bytes:
        """A tile or entry bundle under its C2SP path, as stored, for those who verify themselves.

        Raises: Malformed (not a tile's path), NotFound.
        """
        ...


class Witnessed(Protocol):
    """Third parties who see each checkpoint, and remember."""

    async def check(self) -> None:
        """Raises: LogInconsistent: one of them holds proof against this log."""
        ...

    async def before_publishing(
        self, checkpoint: Checkpoint, note: bytes, proof_from: ProofFrom
    ) -> bytes:
        """The note as it may be published now, perhaps with cosignatures.

        Args:
            checkpoint: what is committed, and signed in `note`.
            note: the log's own signature.
            proof_from: that it extends what a witness saw before.

        Raises:
            NoQuorum: it may not be published yet.
            LogInconsistent: as `check`.
        """
        ...


class Unwitnessed:
    """No witness is asked."""

    async def check(self) -> None:
        return

    async def before_publishing(
        self,
        checkpoint: Checkpoint,  # noqa: ARG002 - the port's
        note: bytes,
        proof_from: ProofFrom,  # noqa: ARG002 - the port's
    ) -> bytes:
        return note
