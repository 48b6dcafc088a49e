"""What the verified local tier asks of a local folder: small Protocols.

The folder promises nothing about bytes. Whoever reads from it proves what it read, so the worst
that a lost, cut or planted file can do is a download.
"""

from typing import Protocol


class LocalFile(Protocol):
    """An open file of the tier. It is not evicted while it is open."""

    @property
    def size(self) -> int: ...

    def identity(self) -> str | None:
        """Names the bytes as they are now, or None while a change could go unseen.

        As `Reading.stable_identity`, asked anew each time. Raises: StorageUnavailable,
        StorageForbidden.
        """
        ...

    async def read(self, offset: int, size: int) -> bytes:
        """Fewer bytes only at the end. Raises: StorageUnavailable, StorageForbidden."""
        ...

    async def discard(self) -> None:
        """Take it out of the tier, if this is still what stands under its name.

        Raises: StorageUnavailable, StorageForbidden.
        """
        ...

    def close(self) -> None: ...


class LocalDraft(LocalFile, Protocol):
    """A file on its way into the tier, whose room is taken already. Nobody else finds it, and
    until `publish` its `discard` gives the room back."""

    async def write(self, offset: int, data: bytes) -> None:
        """Raises: StorageUnavailable, StorageForbidden."""
        ...

    async def publish(self) -> None:
        """Let everybody find it. It stays open.

        What another process published meanwhile stays, and this one goes. Not durable: after a
        crash of the machine it may have other bytes, which shows when it is proved.

        Raises: StorageUnavailable, StorageForbidden.
        """
        ...


class LocalFolder(Protocol):
    """A bounded folder that several processes may share."""

    async def prepare(self) -> None:
        """Make it, and sweep what crashed processes left.

        Raises: Misconfigured (others may get at it), StorageUnavailable, StorageForbidden.
        """
        ...

    async def find(self, name: str) -> LocalFile | None:
        """Open what was published. Raises: StorageUnavailable, StorageForbidden."""
        ...

    async def begin(self, name: str, size: int) -> LocalDraft | None:
        """Take room, by evicting what was not used for longest; None when there is not enough.

        Raises: StorageUnavailable, StorageForbidden.
        """
        ...

    async def close(self) -> None: ...
