"""The six stores that the settings name."""

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from secure_cache.compose.azure import Place, connect, name_of, open_azure, places_of
from secure_cache.model.errors import Misconfigured
from secure_cache.settings import Storage
from secure_cache.storage.filesystem import FilesystemStore
from secure_cache.storage.locks import FlockTurn
from secure_cache.storage.memory import AlwaysTurn, MemoryStore
from secure_cache.storage.ports import ObjectStore, Turn
from secure_cache.tlog.turn import StoreTurn

if TYPE_CHECKING:
    from secure_cache.storage.azure_blob import StorageCall

LOG = "log"
FOLDERS = ("artifacts", "records", LOG, "state")

_TURN = ".turn"


@dataclass(frozen=True, slots=True)
class Stores:
    """See `storage.layout` for what is in each. Some of them may be one and the same.

    `turn` says which of several processes on this machine should sequence the log; `where` names
    the place of a store, for messages.
    """

    artifacts: ObjectStore
    records: ObjectStore
    tiles: ObjectStore
    head: ObjectStore
    pending: ObjectStore
    state: ObjectStore
    turn: Turn
    where: Mapping[str, Place] = field(default_factory=dict)

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

    async def close(self) -> None:
        for store in self.distinct().values():
            await store.close()


def open_stores(
    storage: Storage,
    *,
    environ: Mapping[str, str] = os.environ,
    on_fsync_failure: Callable[[str], None] = lambda _: None,
    tell: Callable[["StorageCall"], None] = lambda _: None,
) -> Stores:
    """Touches nothing yet.

    Args:
        storage: the settings.
        environ: where an identity in Azure finds what it needs.
        on_fsync_failure: see `FilesystemStore`.
        tell: told of each finished request to Azure.

    Raises:
        Misconfigured: the settings do not suffice, or a library is not installed.
    """
    match storage.kind:
        case "azure":
            return _azure(storage, environ, tell)
        case "memory":
            return _memory()
    if storage.path is None:
        raise Misconfigured("storage.path is missing: kind filesystem needs it")
    artifacts, records, log, state = (
        FilesystemStore(
            storage.path / name,
            insecure_allow_network_filesystem=storage.insecure_allow_network_filesystem,
            on_fsync_failure=on_fsync_failure,
        )
        for name in FOLDERS
    )
    turn = FlockTurn(storage.path / LOG / _TURN)
    return Stores(artifacts, records, log, log, log, state, turn)


def place_of_the_log(storage: Storage) -> str:
    """For messages."""
    match storage.kind:
        case "azure":
            places = places_of(storage)
            return ", ".join(
                dict.fromkeys(str(places[name]) for name in ("head", "pending", "tiles"))
            )
        case "memory":
            return "memory"
    return str(storage.path)


def _azure(
    storage: Storage, environ: Mapping[str, str], tell: Callable[["StorageCall"], None]
) -> Stores:
    account = connect(storage, environ=environ, tell=tell)
    where = places_of(storage, host=account.endpoint.host, account=name_of(account, storage))
    stores = open_azure(account, storage)
    turn = StoreTurn(stores["head"], random_bytes=os.urandom)
    return Stores(**stores, turn=turn, where=where)


def _memory() -> Stores:
    return Stores(
        artifacts=MemoryStore(),
        records=MemoryStore(),
        tiles=MemoryStore(immutable=True),
        head=MemoryStore(),
        pending=MemoryStore(),
        state=MemoryStore(),
        turn=AlwaysTurn(),
    )


@asynccontextmanager
async def opened(stores: Stores) -> AsyncIterator[Stores]:
    """Closes them at the end."""
    try:
        yield stores
    finally:
        await stores.close()
