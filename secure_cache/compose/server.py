"""The server: settings to adapters to use-cases to the application, and what runs beside it.

This is the only place where the concrete classes meet. Every worker process builds its own.
"""

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import structlog

import secure_cache
from secure_cache.compose.auditing import Auditing, AuditParts, StandingRecords, cases_of
from secure_cache.compose.bounds import cache_limits, log_options
from secure_cache.compose.denying import Denials
from secure_cache.compose.healthing import Wellbeing, WellbeingParts
from secure_cache.compose.posture import Posture, prove_at_start
from secure_cache.compose.remembering import Remembering
from secure_cache.compose.sources import Sources
from secure_cache.compose.stores import Stores, open_stores, opened
from secure_cache.compose.telling import (
    KeyTeller,
    LogTeller,
    Signal,
    StorageTeller,
    UnknownClaimTeller,
    own_keys,
)
from secure_cache.compose.witnessing import Watching
from secure_cache.core.access import Access
from secure_cache.core.catalog import Catalog
from secure_cache.core.get import Get
from secure_cache.core.journal import Journal
from secure_cache.core.key_folder import KeyFolder
from secure_cache.core.log_memory import LogMemory
from secure_cache.core.policy_file import PolicyFile, PolicyFiles
from secure_cache.core.put import Put
from secure_cache.http.app import create_app
from secure_cache.http.front import Front
from secure_cache.http.nx import NxCache
from secure_cache.http.server import Worker
from secure_cache.http.services import ExchangesTokens, Services, Session
from secure_cache.identity.exchange import TokenExchange
from secure_cache.identity.fetch import KeyFetcher
from secure_cache.identity.issue import Ed25519TokenSigner, TokenIssuer
from secure_cache.identity.jwks import IssuerKeys
from secure_cache.identity.presets import load_presets
from secure_cache.identity.verifier import TokenVerifier
from secure_cache.model.clock import Clock, system_clock
from secure_cache.model.errors import SecureCacheError
from secure_cache.observability.logging import configure_logging
from secure_cache.observability.metrics import Metrics
from secure_cache.observability.multiprocess import VARIABLE, reserve_room
from secure_cache.settings import Settings, load_settings
from secure_cache.tlog.log import LogService

_log = structlog.get_logger(__name__)

SERVER = f"secure-cache/{secure_cache.__version__}"
_RETRY_SECONDS = 5.0
_UNTRUSTWORTHY_STORE = 5


def app_from_settings(argument: str, worker: Worker) -> Front:
    """The factory that a worker process calls; `argument` is the path of the settings file.

    Raises:
        Misconfigured, InvalidPolicy: and the server does not start.
    """
    settings = load_settings(Path(argument), os.environ)
    configure_logging(style=settings.logging.format, level=settings.logging.level)
    return Server(settings, worker=worker).app()


@dataclass(frozen=True, slots=True)
class _Parts:
    """The long-lived objects that more than one use-case shares."""

    stores: Stores
    keys: KeyFolder
    policy: PolicyFile
    log: LogService
    watching: Watching
    log_memory: LogMemory
    journal: Journal
    issuer_keys: IssuerKeys
    verifier: TokenVerifier
    access: Access


class Server:
    """Everything of one process, built but not yet running."""

    def __init__(self, settings: Settings, *, worker: Worker, clock: Clock = system_clock) -> None:
        self._settings = settings
        self._worker = worker
        self._clock = clock
        shared = VARIABLE in os.environ
        if shared:
            reserve_room(os.environ, os.getpid())
        self._metrics = Metrics(shared=shared)
        self._parts = self._build()
        self._sources = Sources(
            settings.local_tier,
            artifacts=self._parts.stores.artifacts,
            telemetry=self._metrics,
            clock=clock,
        )
        self._denials = Denials(self._parts.stores.state, clock=clock)
        self._auditing = Auditing(settings, self._audit_parts(), self._metrics)
        self._untold = Signal()
        self._posture = Posture({})

    def app(self) -> Front:
        parts, settings = self._parts, self._settings
        wellbeing = self._wellbeing()
        return create_app(
            Services(
                cache=self._cache(),
                access=parts.access,
                exchange=self._exchange(),
                log=parts.log,
                audit=self._auditing,
                health=wellbeing.health,
                vkeys=self._vkeys,
                key_ring=self._key_ring,
                readiness=wellbeing.readiness,
                metrics=self._metrics.render,
                metrics_public=settings.metrics.public,
                telemetry=self._metrics,
                counts_denials=self._denials.counts,
                denials=self._denials.reader,
                clock=self._clock,
                lifespan=self._running,
                root_path=settings.server.root_path,
            )
        )

    def _vkeys(self) -> str:
        return self._parts.keys.current.vkeys()

    def _key_ring(self) -> bytes:
        return self._parts.keys.current.ring.encode()

    def _build(self) -> _Parts:
        settings, clock, telemetry = self._settings, self._clock, self._metrics
        stores = open_stores(
            settings.storage,
            on_fsync_failure=_leave,
            tell=StorageTeller(telemetry, clock=anyio.current_time),
        )
        keys = KeyFolder(settings.keys)
        policy = PolicyFile(
            PolicyFiles(settings.policy, settings.policy_tests),
            presets=load_presets(),
            clock=clock,
            telemetry=telemetry,
        )
        watching = Watching(
            settings.witnesses,
            stores=stores,
            signer=keys.current.log,
            clock=clock,
            telemetry=telemetry,
        )
        log = LogService(
            tiles=stores.tiles,
            head=stores.head,
            pending=stores.pending,
            signer=keys.current.log,
            turn=stores.turn,
            witnesses=watching.log,
            options=log_options(settings),
            tell=LogTeller(telemetry),
            clock=clock,
        )
        log_memory = LogMemory(
            state=stores.state,
            log=log,
            verifier=keys.current.log.verifier,
            origin=keys.current.log.name,
        )
        journal = Journal(
            log=log,
            state=stores.state,
            signer=lambda: keys.current.entry_signer(clock()),
            clock=clock,
            server=SERVER,
        )
        issuer_keys = IssuerKeys(
            fetcher=KeyFetcher(),
            policy_directory=settings.policy.parent,
            clock=clock,
            on_refresh=KeyTeller(telemetry),
        )
        token_keys = own_keys(keys, clock)
        verifier = TokenVerifier(
            policy=policy.get,
            issuer_keys=issuer_keys,
            own_keys=token_keys,
            clock=clock,
            on_unknown_claims=UnknownClaimTeller(),
        )
        access = Access(
            verifier=verifier,
            policy=policy.get,
            clock=clock,
            own_keys=token_keys,
            remembered=settings.tokens.cached_tokens,
            on_decided=policy.compare_shadow,
            telemetry=telemetry,
        )
        return _Parts(
            stores,
            keys,
            policy,
            log,
            watching,
            log_memory,
            journal,
            issuer_keys,
            verifier,
            access,
        )

    def _cache(self) -> NxCache:
        parts, settings, clock = self._parts, self._settings, self._clock
        catalog = Catalog(
            records=parts.stores.records,
            state=parts.stores.state,
            ring=parts.keys.ring,
            reload_ring=parts.keys.reload,
            clock=clock,
            telemetry=self._metrics,
            remembered=settings.limits.cached_records,
            remembered_bytes=settings.limits.cached_record_bytes,
            artifact_bytes=settings.limits.cached_artifact_bytes,
        )
        get = Get(
            catalog=catalog,
            sources=self._sources.all,
            journal=parts.journal,
            policy=parts.policy.get,
        )
        put = Put(
            catalog=catalog,
            artifacts=parts.stores.artifacts,
            log=parts.log,
            journal=parts.journal,
            signer=lambda: parts.keys.current.entry_signer(clock()),
            policy=parts.policy.get,
            clock=clock,
            random_bytes=secrets.token_bytes,
            server=SERVER,
        )
        return NxCache(
            access=parts.access,
            get=get,
            put=put,
            limits=cache_limits(settings.limits),
            telemetry=self._metrics,
            strict=settings.server.strict_status,
            nx_only=settings.limits.nx_only_keys,
            denials=self._denials.counts,
        )

    def _audit_parts(self) -> AuditParts:
        parts = self._parts
        # Few records, and no artifacts, are remembered: auditors must not push out what builds use.
        catalog = Catalog(
            records=parts.stores.records,
            state=parts.stores.state,
            ring=parts.keys.ring,
            reload_ring=parts.keys.reload,
            clock=self._clock,
            telemetry=self._metrics,
            remembered=0,
            artifact_bytes=0,
        )
        return AuditParts(
            log=parts.log,
            records=StandingRecords(catalog, parts.stores.artifacts),
            policy=parts.policy.get,
            ring=parts.keys.ring,
            state=parts.stores.state,
            cases=cases_of(self._settings.policy_tests),
            clock=self._clock,
        )

    def _exchange(self) -> ExchangesTokens:
        parts, clock, telemetry = self._parts, self._clock, self._metrics

        def issuer() -> TokenIssuer:
            return TokenIssuer(
                signer=Ed25519TokenSigner(parts.keys.current.token_signer(clock()).private_key),
                audience=parts.policy.current.audience,
                clock=clock,
                new_id=lambda: secrets.token_urlsafe(16),
            )

        exchange = TokenExchange(
            verifier=parts.verifier,
            policy=parts.policy.get,
            state=parts.stores.state,
            issuer=issuer,
            clock=clock,
            session_seconds=self._settings.tokens.session_ttl_seconds,
        )

        async def session(token: str) -> Session:
            try:
                exchanged = await exchange.exchange(token)
            except SecureCacheError:
                telemetry.token_exchanged(ok=False)
                raise
            telemetry.token_exchanged(ok=True)
            made = exchanged.session
            return Session(made.token, int(made.expires_at - clock()))

        return session

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        """Check, then run beside the requests until they are drained."""
        parts = self._parts
        remembering = Remembering(parts.log_memory, self._settings.storage)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(opened(parts.stores))
            self._posture = await prove_at_start(
                parts.stores, self._settings.storage, tells=self._worker.index == 0
            )
            await parts.log.check()
            await parts.log_memory.check()
            await parts.watching.check()
            await stack.enter_async_context(parts.watching.reachable())
            await stack.enter_async_context(self._sources.running())
            stack.push_async_callback(self._denials.keep_at_the_end)
            await stack.enter_async_context(parts.issuer_keys)
            # After the log has brought in what was pending.
            stack.push_async_callback(remembering.once)
            await stack.enter_async_context(parts.log.running())
            parts.issuer_keys.warm(parts.policy.current.issuers)
            group = await stack.enter_async_context(anyio.create_task_group())
            poll = self._settings.policy_poll_seconds
            group.start_soon(parts.watching.run, self._worker.index == 0)
            group.start_soon(self._tell_the_log)
            group.start_soon(self._auditing.follow)
            group.start_soon(self._denials.records.run)
            group.start_soon(remembering.run)
            group.start_soon(parts.policy.watch, poll, self._untold.set)
            group.start_soon(parts.keys.watch, poll, self._untold.set)
            try:
                yield
            finally:
                group.cancel_scope.cancel()

    async def _tell_the_log(self) -> None:
        """Tell the log under which policy and keys it is written, now and after each change."""
        parts = self._parts
        signer = parts.keys.current.log
        while True:
            self._untold.clear()
            try:
                await parts.journal.log_in_force(origin=signer.name, vkey=str(signer.verifier))
                await parts.journal.keys_in_force(parts.keys.ring())
                await parts.journal.policy_in_force(parts.policy.data)
            except SecureCacheError as error:
                _log.exception("journal.untold", code=error.code)
                await anyio.sleep(_RETRY_SECONDS)
            else:
                await self._untold.wait()

    def _wellbeing(self) -> Wellbeing:
        parts = self._parts
        return Wellbeing(
            WellbeingParts(
                log=parts.log,
                vkeys=self._vkeys,
                policy=parts.policy,
                keys=parts.keys,
                watching=parts.watching,
                auditing=self._auditing,
                storage=self._settings.storage.kind,
                posture=lambda: self._posture,
                worker=self._worker,
                server=SERVER,
                clock=self._clock,
            )
        )


def _leave(message: str) -> None:
    """After a failed fsync the page cache may show what the disk does not hold: only a new
    process, which reads again from the disk, may go on."""
    _log.critical("storage.fsync_failed", why=message)
    os._exit(_UNTRUSTWORTHY_STORE)
