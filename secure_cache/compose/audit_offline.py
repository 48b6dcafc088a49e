"""An audit index over the stores of an installation, without its server.

It may run beside one: the log and the stores are only read, and the index file is shared or one's
own.
"""

import hashlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread

from secure_cache.audit.auditor import Auditor
from secure_cache.audit.building import Progress
from secure_cache.audit.index import AuditIndex, CaughtUp
from secure_cache.audit.policy_history import PolicyHistory
from secure_cache.compose.auditing import (
    AuditParts,
    StandingRecords,
    cases_of,
    index_path,
    open_desk,
    open_index,
)
from secure_cache.compose.log_source import DAMAGED_STORE
from secure_cache.compose.offline import open_offline
from secure_cache.compose.stores import Stores, open_stores, opened
from secure_cache.compose.witnessing import log_reader
from secure_cache.core.catalog import Catalog
from secure_cache.core.keystore import Keystore
from secure_cache.core.telemetry import Silent
from secure_cache.model.clock import Clock
from secure_cache.observability.logging import configure_logging
from secure_cache.provenance.keys import KeyRing
from secure_cache.settings import Settings
from secure_cache.tlog.fetched import advised
from secure_cache.tlog.ports import VerifiedLog

_MANY = 20_000
"""From so many entries on, two helping processes pay."""


@dataclass(frozen=True, slots=True)
class OfflineAudit:
    """An index, the log behind it, and who answers from both, and from the texts of policies."""

    index: AuditIndex
    log: VerifiedLog
    auditor: Auditor
    history: PolicyHistory

    async def catch_up(self, progress: Progress | None = None) -> CaughtUp:
        """Raises: LogInconsistent, DamagedIndex, StorageUnavailable."""
        published = await self.log.published()
        state = await anyio.to_thread.run_sync(self.index.state)
        many = published.size - state.size > _MANY
        return await self.index.catch_up(self.log, progress=progress, apart=many)


def _can_write(folder: Path) -> bool:
    """Also where it is still to be made."""
    return os.access(folder if folder.exists() else folder.parent, os.W_OK)


def offline_index_path(
    settings: Settings,
    given: Path | None,
    environ: Mapping[str, str] = os.environ,
    *,
    can_write: Callable[[Path], bool] = _can_write,
) -> Path:
    """Where the index is: as given, the server's own, or in the user's cache folder.

    The last also where the server's cannot be written, as on a backup that is mounted read-only:
    to ask an index is to bring it up to date.
    """
    if given is not None:
        return given
    own = index_path(settings)
    if own is not None and can_write(own.parent):
        return own
    cache = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "secure-cache"
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = hashlib.sha256(os.fsencode(settings.keys)).hexdigest()[:16]
    return cache / f"audit-{name}.sqlite"


@asynccontextmanager
async def offline_audit(
    settings: Settings, path: Path, *, clock: Clock
) -> AsyncIterator[OfflineAudit]:
    """Open the index of an installation, or begin one.

    Raises:
        Misconfigured: policy, keys or a store cannot be used.
        DamagedIndex: the index. LogInconsistent: the log in the stores; says which tool tells more.
    """
    configure_logging(style="console", level="error", stream=sys.stderr)
    offline = open_offline(settings, clock)
    index = await anyio.to_thread.run_sync(partial(open_index, path))
    try:
        async with opened(open_stores(settings.storage)) as stores:
            log = log_reader(stores, offline.keystore.log)
            parts = AuditParts(
                log=log,
                records=_records(stores, offline.keystore, clock),
                policy=lambda: offline.policy,
                ring=lambda: offline.keystore.ring,
                state=stores.state,
                cases=cases_of(settings.policy_tests),
                clock=clock,
            )
            desk = open_desk(index, parts)
            with advised(DAMAGED_STORE):
                yield OfflineAudit(index, log, desk.auditor, desk.history)
    finally:
        index.close()


def _records(stores: Stores, keystore: Keystore, clock: Clock) -> StandingRecords:
    async def reload() -> KeyRing:
        return keystore.ring

    catalog = Catalog(
        records=stores.records,
        state=stores.state,
        ring=lambda: keystore.ring,
        reload_ring=reload,
        clock=clock,
        telemetry=Silent(),
        remembered=0,
        artifact_bytes=0,
    )
    return StandingRecords(catalog, stores.artifacts)
