"""What one process knows of its own health."""

from collections.abc import Callable
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
from secure_cache.core.key_folder import KeyFolder
from secure_cache.core.policy_file import PolicyFile
from secure_cache.http.server import Worker
from secure_cache.http.services import Readiness
from secure_cache.model.clock import Clock
from secure_cache.model.errors import SecureCacheError
from secure_cache.tlog.checkpoint import Checkpoint
from secure_cache.tlog.log import LogService

_SEE_THE_LOG = "needs a person: the server's log says why"
"""And readiness does not: anybody may ask for it, and the reasons hold paths and lines of files."""

_SENTENCES = {
    "policy": "the policy file was refused; the last good policy stays in force",
    "keys": "the key folder cannot be read; the keys that were read last stay in force",
    "log": "the transparency log failed its self-check: nothing is appended",
    "witnesses": "too few witnesses have cosigned the newest checkpoint",
    "audit": "the audit index cannot be used, or does not go on",
}
"""Auditors are told more, and are no operators: paths stay in the server's own log."""


@dataclass(frozen=True, slots=True)
class WellbeingParts:
    """Whose health it is. `posture` is asked each time: it is known after the start only."""

    log: LogService
    vkeys: Callable[[], str]
    policy: PolicyFile
    keys: KeyFolder
    watching: Watching
    auditing: Auditing
    storage: str
    posture: Callable[[], Posture]
    worker: Worker
    server: str
    clock: Clock


class Wellbeing:
    """For machines that look after this one, and for auditors."""

    def __init__(self, parts: WellbeingParts) -> None:
        self._parts = parts

    async def readiness(self) -> Readiness:
        """A log that failed its check, or a policy that cannot be read, must not take the
        process out of service: look-ups go on, and to Nx a refused connection is a red build."""
        parts, posture, troubled = self._parts, self._parts.posture(), self._troubled()
        checks = {name: _SEE_THE_LOG if bad else "ok" for name, bad in troubled.items()}
        if posture.stores:
            checks["storage"] = posture.word
        checks["process"] = "draining" if parts.worker.draining else "ok"
        return Readiness(
            ready=not parts.worker.draining, degraded=any(troubled.values()), checks=checks
        )

    async def health(self) -> Health:
        """Raises nothing: what cannot be read is what an auditor has to know."""
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
                name: _SENTENCES[name] if bad else None for name, bad in self._troubled().items()
            },
        )

    def _troubled(self) -> dict[str, bool]:
        """By part, whether a person should look at it."""
        parts = self._parts
        troubles = {
            "policy": parts.policy.trouble,
            "keys": parts.keys.trouble,
            "log": parts.log.fault,
            "witnesses": parts.watching.trouble,
            "audit": parts.auditing.trouble,
        }
        return {name: trouble is not None for name, trouble in troubles.items()}

    async def _log(self) -> LogSeen:
        parts = self._parts
        try:
            note = await parts.log.checkpoint_note()
            checkpoint = await parts.log.published()
        except SecureCacheError as error:
            return LogSeen(None, b"", parts.vkeys(), error.title)
        fault = parts.log.fault
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
