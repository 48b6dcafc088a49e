"""Small connections between the parts: what one tells another."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import anyio
import msgspec
import structlog

from secure_cache.core.key_folder import KeyFolder
from secure_cache.core.keystore import Keystore
from secure_cache.core.telemetry import Telemetry
from secure_cache.identity.jwks import KeyRefresh
from secure_cache.identity.keys import KeySet, ed25519_key_set
from secure_cache.model.clock import Clock

_log = structlog.get_logger(__name__)

_MOST_UNKNOWN_CLAIMS = 256

_TROUBLES = frozenset({"unavailable", "timeout", "throttled", "forbidden", "misconfigured"})
"""Outcomes after which a store is not of use now. The others are answers."""


class StorageCall(Protocol):
    """One finished operation; see `storage.azure_blob.retry`, which needs the SDK."""

    @property
    def store(self) -> str: ...
    @property
    def operation(self) -> str: ...
    @property
    def outcome(self) -> str: ...
    @property
    def seconds(self) -> float: ...
    @property
    def attempts(self) -> int: ...


class CountsStorage(Protocol):
    """The instrument for it; see `observability.metrics`."""

    def storage_called(
        self, *, store: str, operation: str, outcome: str, seconds: float, attempts: int
    ) -> None: ...


class Signal:
    """Set by many, waited for by one; what is set while nobody waits is not lost."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def set(self) -> None:
        self._event.set()

    def clear(self) -> None:
        if self._event.is_set():
            self._event = anyio.Event()

    async def wait(self) -> None:
        await self._event.wait()


class _Committed(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of `log.committed`."""

    size: int
    entries: int
    seconds: float
    pending: int


class LogTeller:
    """What happens in the log, to the operator's log and instruments."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def __call__(self, event: str, facts: Mapping[str, object]) -> None:
        if event == "log.committed":
            committed = msgspec.convert(facts, _Committed)
            self._telemetry.log_committed(
                tree_size=committed.size, entries=committed.entries, seconds=committed.seconds
            )
            self._telemetry.log_pending(entries=committed.pending)
            _log.debug(event, **facts)
        elif event == "log.recovered":
            _log.warning(event, **facts)
        else:
            if event == "log.faulted":
                self._telemetry.verification_failed(kind="log")
            _log.error(event, **facts)


class StorageTeller:
    """Each request to a storage service: counted; and told when a store stops answering and
    when it has answered again for a while, not for each request between."""

    def __init__(self, metrics: CountsStorage, *, clock: Clock, quiet_seconds: float = 5.0) -> None:
        self._metrics = metrics
        self._clock = clock
        self._quiet = quiet_seconds
        self._troubles: dict[str, _Trouble] = {}

    def __call__(self, call: StorageCall, /) -> None:
        self._metrics.storage_called(
            store=call.store,
            operation=call.operation,
            outcome=call.outcome,
            seconds=call.seconds,
            attempts=call.attempts,
        )
        if call.outcome in _TROUBLES:
            self._failed(call)
        elif call.store in self._troubles:
            self._answered(call.store)

    def _failed(self, call: StorageCall) -> None:
        now, trouble = self._clock(), self._troubles.get(call.store)
        if trouble is not None:
            trouble.last = now
            trouble.failed += 1
            return
        self._troubles[call.store] = _Trouble(now, now, 1)
        _log.error(
            "storage.unavailable", store=call.store, operation=call.operation, why=call.outcome
        )

    def _answered(self, store: str) -> None:
        now, trouble = self._clock(), self._troubles[store]
        if now - trouble.last < self._quiet:
            return
        del self._troubles[store]
        seconds = round(now - trouble.first, 1)
        _log.warning("storage.recovered", store=store, seconds=seconds, failed=trouble.failed)


@dataclass(slots=True)
class _Trouble:
    """Of one store: since when, until when, how many operations failed."""

    first: float
    last: float
    failed: int


class KeyTeller:
    """What came of reading issuers' keys."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def __call__(self, refresh: KeyRefresh) -> None:
        self._telemetry.jwks_refreshed(issuer=refresh.issuer, ok=not refresh.error)
        if refresh.error or refresh.skipped:
            _log.warning(
                "issuer.keys_refreshed",
                issuer=refresh.issuer,
                usable=refresh.keys,
                error=refresh.error,
                skipped=refresh.skipped,
            )


class UnknownClaimTeller:
    """Claims that a provider sends and its preset does not know, each told once.

    A provider that adds claims may also have changed what the old ones mean.
    """

    def __init__(self) -> None:
        self._told: set[tuple[str, str]] = set()

    def __call__(self, issuer: str, claims: frozenset[str]) -> None:
        fresh = {(issuer, claim) for claim in claims} - self._told
        if fresh and len(self._told) < _MOST_UNKNOWN_CLAIMS:
            self._told |= fresh
            names = sorted(claim for _, claim in fresh)
            _log.warning("token.unknown_claims", issuer=issuer, claims=names)


def own_keys(keys: KeyFolder, clock: Clock) -> Callable[[], KeySet]:
    """The server's own token keys; one and the same object for as long as they are the same.

    Asked at every request, so PEM is read only when the folder was, or when a key's time ends.
    """
    known: _OwnKeys | None = None

    def current() -> KeySet:
        nonlocal known
        keystore, now = keys.current, clock()
        if known is None or known.keystore is not keystore or not known.since <= now <= known.until:
            known = _own_keys_at(keystore, now, known)
        return known.keys

    return current


@dataclass(frozen=True, slots=True)
class _OwnKeys:
    """What was accepted, of which keystore, and between which moments that holds."""

    keystore: Keystore
    since: float
    until: float
    names: frozenset[str]
    keys: KeySet


def _own_keys_at(keystore: Keystore, now: float, before: _OwnKeys | None) -> _OwnKeys:
    accepted = keystore.token_public_keys(now)
    names = frozenset(accepted)
    same = before.keys if before is not None and before.names == names else None
    ends = [
        key.not_after
        for key in keystore.token_ring.keys
        if key.keyid in names and key.not_after is not None
    ]
    return _OwnKeys(
        keystore=keystore,
        since=now,
        until=min(ends, default=math.inf),
        names=names,
        keys=same or ed25519_key_set(accepted.values()),
    )
