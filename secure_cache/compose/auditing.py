"""The audit index of a server: where it is, who follows the log with it, and what stands now.

Every worker answers from the same file; the one that takes the building lock follows the log. An
index that cannot be used never keeps a server from serving: the API says what is wrong with it,
and it is tried again.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import structlog

from secure_cache.audit.auditor import Auditor
from secure_cache.audit.index import AuditIndex
from secure_cache.audit.overviews import Overviews
from secure_cache.audit.policy_history import PolicyHistory
from secure_cache.audit.policy_texts import StoredPolicyTexts
from secure_cache.audit.presence import Standing
from secure_cache.core.catalog import Catalog
from secure_cache.core.policy_file import read_policy
from secure_cache.core.telemetry import Telemetry
from secure_cache.identity.presets import load_presets
from secure_cache.model.clock import Clock
from secure_cache.model.errors import (
    CorruptObject,
    DamagedIndex,
    Misconfigured,
    NoAuditIndex,
    NotFound,
    SecureCacheError,
    Unavailable,
)
from secure_cache.model.names import Key, Namespace
from secure_cache.policy.cases import Case, load_cases
from secure_cache.policy.compile import CompiledPolicy
from secure_cache.provenance.keys import KeyRing
from secure_cache.settings import Settings
from secure_cache.storage import layout
from secure_cache.storage.ports import ObjectReader
from secure_cache.tlog.ports import PublishedLog

_log = structlog.get_logger(__name__)

_MANY = 512
"""So many entries behind, other processes do the work: they cost no request anything."""
_FIRST_RETRY_SECONDS = 1.0
_RETRY_SECONDS = 30.0
"""After a fault the index is looked at again after the first, then twice as late each time, up to
this."""
_MOMENT_SECONDS = 0.5
_NICENESS = 19
_QUIET_ROUNDS = 15
"""So often there must be little to do before those processes end."""


def index_path(settings: Settings) -> Path | None:
    """Where the index is; None when there is none.

    On a filesystem it is beside the data unless the settings say where. Elsewhere only the
    settings can say: each replica keeps one of its own, on a local disk.
    """
    audit, storage = settings.audit, settings.storage
    if not audit.enabled:
        return None
    if audit.index is not None:
        return audit.index
    if storage.kind == "filesystem" and storage.path is not None:
        return storage.path / "audit" / "index.sqlite"
    return None


def open_index(path: Path) -> AuditIndex:
    """Raises: DamagedIndex, Misconfigured, StorageUnavailable."""
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise Misconfigured(
            f"{path.parent}: {error.strerror}: audit.index must be in a folder that can be written"
        ) from error
    return AuditIndex.open(path)


class StandingRecords:
    """What stands under a key, as the server itself sees it."""

    def __init__(self, catalog: Catalog, artifacts: ObjectReader) -> None:
        self._catalog = catalog
        self._artifacts = artifacts

    async def standing(self, namespace: Namespace, key: Key) -> Standing | None:
        try:
            held = await self._catalog.find(namespace, key)
        except NotFound:
            return None
        except CorruptObject:
            return Standing(None, quarantined=False, artifact_is_there=False)
        entry = held.entry
        try:
            if not held.inline:
                await self._artifacts.head(layout.artifact(entry.entry_id, entry.stored_at))
        except NotFound:
            return Standing(entry.entry_id, quarantined=held.quarantined, artifact_is_there=False)
        return Standing(entry.entry_id, quarantined=held.quarantined, artifact_is_there=True)


@dataclass(frozen=True, slots=True)
class AuditParts:
    """What the index is asked and built with."""

    log: PublishedLog
    records: StandingRecords
    policy: Callable[[], CompiledPolicy]
    ring: Callable[[], KeyRing]
    state: ObjectReader
    cases: Callable[[], tuple[Case, ...]]
    clock: Clock


@dataclass(frozen=True, slots=True)
class Desk:
    """Who answers from an index, and from what is derived with it."""

    auditor: Auditor
    history: PolicyHistory
    overviews: Overviews


def open_desk(index: AuditIndex, parts: AuditParts) -> Desk:
    auditor = Auditor(
        index=index,
        log=parts.log,
        policy=parts.policy,
        clock=parts.clock,
        records=parts.records,
        ring=parts.ring,
    )
    history = PolicyHistory(
        known=auditor,
        texts=StoredPolicyTexts(parts.state),
        presets=load_presets(),
        cases=parts.cases,
    )
    overviews = Overviews(auditor=auditor, history=history, policy=parts.policy, clock=parts.clock)
    return Desk(auditor, history, overviews)


def cases_of(tests: Path | None) -> Callable[[], tuple[Case, ...]]:
    """The cases of the tests in force; none where they cannot be read: nobody's page breaks."""

    def read() -> tuple[Case, ...]:
        if tests is None:
            return ()
        try:
            return load_cases(read_policy(tests), name=tests.name)
        except Misconfigured as error:
            _log.warning("audit.tests_unreadable", why=str(error))
            return ()

    return read


class Auditing:
    """Implements `http.services.Audits`, and follows the log."""

    def __init__(self, settings: Settings, parts: AuditParts, telemetry: Telemetry) -> None:
        self._path = index_path(settings)
        self._seconds = settings.audit.follow_seconds
        self._parts = parts
        self._telemetry = telemetry
        self._size = 0
        self._index: AuditIndex | None = None
        self._desk: Desk | None = None
        self._fault: SecureCacheError | None = None

    @property
    def trouble(self) -> str | None:
        """What an operator should look at."""
        return None if self._fault is None else str(self._fault)

    def auditor(self) -> Auditor:
        """Raises: NoAuditIndex; or what keeps the index from being opened."""
        return self._open_desk().auditor

    def history(self) -> PolicyHistory:
        """Raises: as `auditor`."""
        return self._open_desk().history

    def overviews(self) -> Overviews:
        """Raises: as `auditor`."""
        return self._open_desk().overviews

    @property
    def is_on(self) -> bool:
        """Whether there is an index at all."""
        return self._path is not None

    @property
    def fault(self) -> SecureCacheError | None:
        """What keeps the index from going on."""
        return self._fault

    def _open_desk(self) -> Desk:
        if self._path is None:
            raise NoAuditIndex("audit.index is not set, or audit.enabled is false")
        if self._desk is None:
            raise self._fault or Unavailable("the audit index is being opened")
        return self._desk

    async def status(self) -> dict[str, Any]:
        """For auditors: how far the index has come, or why there is none."""
        if self._path is None:
            return {"on": False, "fault": None}
        fault = None
        if self._fault is not None:
            fault = {"code": self._fault.code, "title": self._fault.title}
        if self._desk is None:
            return {"on": True, "fault": fault}
        return {"on": True, "fault": fault, **await self._desk.auditor.status()}

    async def follow(self) -> None:
        """Open the index and keep it up to date, until cancelled."""
        if self._path is None:
            return
        opened_again, wait = False, _FIRST_RETRY_SECONDS
        while True:
            try:
                await self._follow_once(self._path)
            except SecureCacheError as error:
                if await self._is_gone(self._path, error):
                    self._index = None
                    if not opened_again:
                        # `audit index rebuild` beside us: it is there again in a moment, and
                        # nothing is wrong. The desk reads what is there.
                        opened_again = True
                        await anyio.sleep(_MOMENT_SECONDS)
                        continue
                    self._desk = None
                if self._fault is None or str(self._fault) != str(error):
                    _log.exception("audit.index_failed", code=error.code, why=str(error))
                self._fault = error
                await self._tell_lag()
                await anyio.sleep(wait)
                wait = min(2 * wait, _RETRY_SECONDS)
            else:
                opened_again, wait = False, _FIRST_RETRY_SECONDS
                if self._fault is not None:
                    _log.info("audit.index_recovered")
                self._fault = None
                await self._tell_lag()
                await anyio.sleep(self._seconds)

    @staticmethod
    async def _is_gone(path: Path, error: SecureCacheError) -> bool:
        """The index must be opened anew: it is no index, or it may be another one."""
        return (
            isinstance(error, DamagedIndex | Misconfigured)
            # Not Path.exists, which raises what a failing disk says.
            or not await anyio.to_thread.run_sync(os.path.exists, path)
        )

    async def _tell_lag(self) -> None:
        """How far the index is behind what is published, also while it does not go on."""
        if self._index is None:
            self._size = 0
        try:
            published = (await self._parts.log.published()).size
            if self._index is not None:
                self._size = (await anyio.to_thread.run_sync(self._index.state)).size
        except SecureCacheError:
            # Told by whoever failed; what was told last is at least not more than it is.
            return
        self._telemetry.index_behind(entries=max(published - self._size, 0))

    def _tell_progress(self, done: int, total: int) -> None:
        self._telemetry.index_behind(entries=total - done)

    async def _follow_once(self, path: Path) -> None:
        index = self._index
        if index is None:
            index = await anyio.to_thread.run_sync(partial(open_index, path))
            self._index = index
            self._desk = open_desk(index, self._parts)
        published = await self._parts.log.published()
        state = await anyio.to_thread.run_sync(index.state)
        if state.checkpoint != published:
            await self._catch_up(index, many=published.size - state.size > _MANY)

    async def _catch_up(self, index: AuditIndex, *, many: bool) -> None:
        log = self._parts.log
        async with index.building(apart=many, niceness=_NICENESS) as building:
            if building is None:
                # Another worker follows.
                return
            done = await building.catch_up(log, progress=self._tell_progress)
            quiet = 0
            while many and quiet < _QUIET_ROUNDS:
                await anyio.sleep(self._seconds)
                behind = (await log.published()).size - done.size
                quiet = 0 if behind > _MANY else quiet + 1
                done = await building.catch_up(log, progress=self._tell_progress)
