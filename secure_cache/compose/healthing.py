"""What one process knows of its own health, put together for auditors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from secure_cache.audit.health import (
    Health,
    IndexSeen,
    LogSeen,
    StorageSeen,
    WitnessesSeen,
    see_witnesses,
)
from secure_cache.compose.auditing import Auditing
from secure_cache.compose.posture import Posture
from secure_cache.compose.witnessing import Watching
from secure_cache.model.clock import Clock
from secure_cache.model.errors import SecureCacheError
from secure_cache.tlog.checkpoint import Checkpoint
from secure_cache.tlog.ports import PublishedLog

_SEE_THE_LOG = "needs a person: the server's log says why"
_SENTENCES = {
    "policy": "the policy file was refused; the last good policy stays in force",
    "keys": "the key folder cannot be read; the keys that were read last stay in force",
    "log": "the transparency log failed its self-check: nothing is appended",
    "witnesses": "too few witnesses have cosigned the newest checkpoint",
    "audit": "the audit index cannot be used, or does not go on",
}
"""Auditors are no operators: paths and lines of files stay in the server's own log."""


@dataclass(frozen=True, slots=True)
class HealthParts:
    """Whose health it is. `posture` and `troubles` are asked each time."""

    log: PublishedLog
    log_fault: Callable[[], SecureCacheError | None]
    vkeys: Callable[[], str]
    watching: Watching
    auditing: Auditing
    storage: str
    posture: Callable[[], Posture]
    troubles: Callable[[], Mapping[str, object | None]]
    server: str
    clock: Clock


class SeesHealth:
    """Callable. Raises nothing: what cannot be read is what an auditor has to know."""

    def __init__(self, parts: HealthParts) -> None:
        self._parts = parts

    async def __call__(self) -> Health:
        parts = self._parts
        log = await self._log()
        return Health(
            at=int(parts.clock()),
            server=parts.server,
            log=log,
            index=await self._index(log.checkpoint),
            witnesses=self._witnesses(log.note),
            storage=self._storage(),
            troubles={
                name: None if trouble is None else _SENTENCES.get(name, _SEE_THE_LOG)
                for name, trouble in parts.troubles().items()
            },
        )

    async def _log(self) -> LogSeen:
        parts = self._parts
        try:
            note = await parts.log.checkpoint_note()
            checkpoint = await parts.log.published()
        except SecureCacheError as error:
            return LogSeen(None, b"", parts.vkeys(), error.title)
        fault = parts.log_fault()
        title = None if fault is None else fault.title
        return LogSeen(checkpoint, note, parts.vkeys(), title)

    async def _index(self, published: Checkpoint | None) -> IndexSeen:
        auditing = self._parts.auditing
        if not auditing.is_on:
            return IndexSeen(on=False, indexed=None, behind=None, fault=None)
        try:
            indexed = await auditing.auditor().indexed()
        except SecureCacheError as error:
            return IndexSeen(on=True, indexed=None, behind=None, fault=error.title)
        behind = None if published is None else max(published.size - indexed, 0)
        fault = auditing.fault
        return IndexSeen(
            on=True,
            indexed=indexed,
            behind=behind,
            fault=None if fault is None else fault.title,
        )

    def _witnesses(self, note: bytes) -> WitnessesSeen | None:
        watching = self._parts.watching
        if watching.policy is None:
            return None
        return see_witnesses(
            note, watching.policy, profile=watching.profile, trouble=watching.trouble
        )

    def _storage(self) -> StorageSeen:
        posture = self._parts.posture()
        tried = bool(posture.stores)
        return StorageSeen(
            kind=self._parts.storage,
            posture=posture.word if tried else None,
            weaknesses=posture.weaknesses(),
            tiles_locked=posture.tiles_are_locked if tried else None,
        )
