"""The six stores that the settings name."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from secure_cache.model.errors import Misconfigured
from secure_cache.settings import Storage
from secure_cache.storage.filesystem import FilesystemStore
from secure_cache.storage.locks import FlockTurn
from secure_cache.storage.memory import AlwaysTurn, MemoryStore
from secure_cache.storage.ports import ObjectStore, Turn

LOG = "log"
FOLDERS = ("artifacts", "records", LOG, "state")

_TURN = ".turn"


@dataclass(frozen=True, slots=True)
class Stores:
    """See `storage.layout` for what is in each. Some of them may be one and the same.

    `turn` says which of several processes on this machine should sequence the log.
    """

    artifacts: ObjectStore
    records: ObjectStore
    tiles: ObjectStore
    head: ObjectStore
    pending: ObjectStore
    state: ObjectStore
    turn: Turn

    def distinct(self) -> dict[str, ObjectStore]:
        """Each once; the log's three are `log` where they are one."""
        log = {"tiles": self.tiles, "head": self.head, "pending": self.pending}
        if self.tiles is self.head is self.pending:
            log = {LOG: self.tiles}
        return {
            "artifacts": self.artifacts,
            "records": self.records,
            **log,
            "state": self.state,
        }

    async def check(self) -> None:
        """Make what is missing, and prove that each store can do what it must.

        Raises: Misconfigured, StorageForbidden, StorageUnavailable.
        """
        for store in self.distinct().values():
            await store.check()

    async def close(self) -> None:
        for store in self.distinct().values():
            await store.close()


def open_stores(
    storage: Storage, *, on_fsync_failure: Callable[[str], None] = lambda _: None
) -> Stores:
    """Touches nothing yet.

    Args:
        storage: the settings.
        on_fsync_failure: see `FilesystemStore`.

    Raises:
        Misconfigured: a kind that this version does not have.
    """
    if storage.kind == "memory":
        return Stores(
            artifacts=MemoryStore(),
            records=MemoryStore(),
            tiles=MemoryStore(immutable=True),
            head=MemoryStore(),
            pending=MemoryStore(),
            state=MemoryStore(),
            turn=AlwaysTurn(),
        )
    if storage.kind != "filesystem" or storage.path is None:
        raise Misconfigured(
            f"storage.kind = {storage.kind!r} is not in this version: set it to 'filesystem',"
            " with storage.path"
        )
    artifacts, records, tiles, state = (
        FilesystemStore(
            storage.path / name,
            insecure_allow_network_filesystem=storage.insecure_allow_network_filesystem,
            on_fsync_failure=on_fsync_failure,
        )
        for name in FOLDERS
    )
    turn = FlockTurn(storage.path / LOG / _TURN)
    return Stores(artifacts, records, tiles, tiles, tiles, state, turn)


@asynccontextmanager
async def opened(stores: Stores) -> AsyncIterator[Stores]:
    """Closes them at the end."""
    try:
        yield stores
    finally:
        await stores.close()
