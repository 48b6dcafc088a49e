"""The witnesses of an installation: from settings to what the log is given."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from secure_cache.compose.stores import Stores
from secure_cache.core.contradictions import Contradictions
from secure_cache.core.telemetry import Telemetry
from secure_cache.core.witness_http import HttpWitnesses
from secure_cache.core.witnesses import Profile, Witnesses, WitnessOptions
from secure_cache.model.clock import Clock
from secure_cache.model.errors import Malformed, Misconfigured
from secure_cache.settings import Witnesses as WitnessSettings
from secure_cache.tlog.note import NoteSigner
from secure_cache.tlog.ports import Unwitnessed, Witnessed
from secure_cache.tlog.published import LogReader
from secure_cache.tlog.witness_policy import MAX_POLICY_BYTES, WitnessPolicy

_log = structlog.get_logger(__name__)


class Watching:
    """What this process knows of its witnesses; without a policy there are none.

    Attributes:
        policy: who they are.
        profile: what happens when too few of them answer.

    Raises:
        Misconfigured: the witness policy can not be read, is another log's, or can never be met.
    """

    def __init__(
        self,
        settings: WitnessSettings,
        *,
        stores: Stores,
        signer: NoteSigner,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        reader = log_reader(stores, signer)
        self._contradictions = contradictions_of(stores, signer, reader)
        self._network = HttpWitnesses(timeout_seconds=settings.timeout_seconds)
        self._witnesses = None
        self.policy: WitnessPolicy | None = None
        self.profile = settings.profile
        if settings.policy is not None:
            self.policy = _read_policy(settings.policy)
            self._witnesses = Witnesses(
                policy=self.policy,
                ask=self._network,
                head=stores.head,
                log=reader,
                verifier=signer.verifier,
                contradictions=self._contradictions,
                options=WitnessOptions(
                    profile=Profile(settings.profile),
                    timeout_seconds=settings.timeout_seconds,
                    refresh_seconds=settings.refresh_seconds,
                ),
                clock=clock,
                tell=WitnessTeller(telemetry),
            )

    @property
    def log(self) -> Witnessed:
        """What the log asks."""
        return Unwitnessed() if self._witnesses is None else self._witnesses

    @property
    def trouble(self) -> str | None:
        return None if self._witnesses is None else self._witnesses.trouble

    async def check(self) -> None:
        """At the start, also where witnesses were taken out of the settings.

        Raises: LogInconsistent: one of them holds proof against this log. StorageUnavailable.
        """
        await self._contradictions.check()

    @asynccontextmanager
    async def reachable(self) -> AsyncIterator[None]:
        async with self._network:
            yield

    async def run(self, asks: bool) -> None:  # noqa: FBT001 - for `start_soon`
        """Collect and renew cosignatures until cancelled; one process of a machine asks."""
        if self._witnesses is not None:
            await self._witnesses.run(asks=asks)


class WitnessTeller:
    """What happens with witnesses, to the operator's log and instruments."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def __call__(self, event: str, facts: Mapping[str, object]) -> None:
        match event:
            case "witness.answered":
                ok = bool(facts["ok"])
                self._telemetry.witness_answered(witness=str(facts["witness"]), ok=ok)
                _log.debug(event, **facts)
            case "log.witnessed" | "log.unwitnessed":
                self._telemetry.log_witnessed(ok=event == "log.witnessed")
                _log.warning(event, **facts)
            case "witness.proved":
                self._telemetry.verification_failed(kind="log")
                _log.critical(event, **facts)
            case "witness.claimed" | "witness.not_asked":
                _log.error(event, **facts)
            case _:
                _log.warning(event, **facts)


def log_reader(stores: Stores, signer: NoteSigner) -> LogReader:
    return LogReader(
        tiles=stores.tiles,
        head=stores.head,
        pending=stores.pending,
        verifiers=[signer.verifier],
        origin=signer.name,
    )


def contradictions_of(stores: Stores, signer: NoteSigner, log: LogReader) -> Contradictions:
    return Contradictions(
        state=stores.state,
        head=stores.head,
        log=log,
        verifier=signer.verifier,
        origin=signer.name,
    )


def _read_policy(path: Path) -> WitnessPolicy:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_POLICY_BYTES + 1)
        return WitnessPolicy.parse(data)
    except OSError as error:
        raise Misconfigured(f"{path}: the witness policy: {error.strerror}") from error
    except Malformed as error:
        raise Misconfigured(f"{path}: {error}") from error
