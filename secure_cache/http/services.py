"""What the application is made of: handed in by `compose`, looked up by nobody."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from litestar.di import NamedDependency
from litestar.params import SkipValidation

from secure_cache.audit.auditor import Auditor
from secure_cache.audit.health import Health
from secure_cache.audit.overviews import Overviews
from secure_cache.audit.policy_history import PolicyHistory
from secure_cache.core.access import Access, Caller
from secure_cache.core.denial_reading import ReadsDenials
from secure_cache.core.denials import CountsDenials
from secure_cache.core.telemetry import Telemetry
from secure_cache.http.nx import NxCache
from secure_cache.model.clock import Clock
from secure_cache.tlog.ports import PublishedLog

TheCaller: TypeAlias = NamedDependency[SkipValidation[Caller]]
"""The caller of a request, made by the application itself: the framework must not rebuild it."""


@dataclass(frozen=True, slots=True)
class Session:
    """An exchanged token.

    Attributes:
        token: the session token.
        expires_in: seconds.
    """

    token: str
    expires_in: int


class ExchangesTokens(Protocol):
    """Turns a CI's token into a session token of ours, once."""

    async def __call__(self, token: str) -> Session:
        """Raises: InvalidToken, ExpiredToken, ReplayedToken, Revoked, Denied, Unavailable."""
        ...


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether this process should be sent requests, and what an operator should look at.

    Attributes:
        ready: false takes the process out of the load balancer.
        degraded: it serves, but something needs a person.
        checks: name to one line; `ok` when there is nothing to say.
    """

    ready: bool
    degraded: bool
    checks: dict[str, str]


class Audits(Protocol):
    """The auditor's desk, where there is one."""

    def auditor(self) -> Auditor:
        """Raises: NoAuditIndex; DamagedIndex, Misconfigured, Unavailable: it cannot be used now."""
        ...

    def history(self) -> PolicyHistory:
        """The policies of all times. Raises: as `auditor`."""
        ...

    def overviews(self) -> Overviews:
        """Of the policy and the index together. Raises: as `auditor`."""
        ...

    async def status(self) -> dict[str, Any]:
        """How far the index has come, or why there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that the routes need.

    Attributes:
        cache: the data path.
        access: tokens to callers.
        exchange: `POST /v1/token`.
        log: the published transparency log.
        audit: the audit API's answers.
        health: of this process, for auditors; raises nothing.
        vkeys: verifier keys of the log, one a line.
        key_ring: the document of the entry keys, as the log announces its digest.
        readiness: for `/readyz`.
        metrics: the Prometheus text and its content type.
        metrics_public: without a token; otherwise an auditor's is needed.
        telemetry: the operator's instruments.
        counts_denials: is told of what is refused outside the data path.
        denials: what was refused, for auditors.
        clock: seconds since 1970.
        lifespan: runs what has to run beside the requests.
        root_path: a prefix under which everything is served as well.
    """

    cache: NxCache
    access: Access
    exchange: ExchangesTokens
    log: PublishedLog
    audit: Audits
    health: Callable[[], Awaitable[Health]]
    vkeys: Callable[[], str]
    key_ring: Callable[[], bytes]
    readiness: Callable[[], Awaitable[Readiness]]
    metrics: Callable[[], tuple[str, bytes]]
    metrics_public: bool
    telemetry: Telemetry
    counts_denials: CountsDenials
    denials: ReadsDenials
    clock: Clock
    lifespan: Callable[[], AbstractAsyncContextManager[None]]
    root_path: str
