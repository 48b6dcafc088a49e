"""The keys of the issuers: fetched when they are needed, kept when an issuer is down.

For each issuer there is at most one fetch at a time, at least 30 s between the beginnings of two
(more after failures), whatever tokens arrive. Keys are looked for again in the background once
they are five minutes old, and the last good ones serve for up to a day. A token with an unknown
`kid` waits for one fetch at most, and only while few others do: a flood of them makes no traffic.
Nothing is fetched at start-up, so the server starts while an issuer is down.

Fetches run in this object's own task group: a client that goes away does not end a fetch that
others wait for.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio
import anyio.abc

from secure_cache.identity.fetch import KeyFetcher
from secure_cache.identity.keys import MAX_SET_BYTES, KeySet, VerificationKey, parse_key_set
from secure_cache.model.clock import Clock
from secure_cache.model.errors import (
    InvalidToken,
    Misconfigured,
    TokenProblem,
    Unavailable,
)
from secure_cache.policy.decision import Issuer
from secure_cache.storage.guarded_file import read_guarded

_MAX_SOURCES = 256
_MAX_WAITING_FOR_UNKNOWN = 64


@dataclass(frozen=True, slots=True)
class Pace:
    """How often one kind of source is read, in seconds.

    Attributes:
        refresh_after: older keys are looked for again.
        between: least time between the beginnings of two attempts.
        between_failures: what this grows to while attempts fail.
        serve_until: keys older than this are not used any more.
        wait: reading is quick, so a token waits for newer keys.
    """

    refresh_after: float
    between: float
    between_failures: float
    serve_until: float
    wait: bool = False


URL_PACE = Pace(refresh_after=300, between=30, between_failures=300, serve_until=86_400)
FILE_PACE = Pace(
    refresh_after=2, between=2, between_failures=2, serve_until=float("inf"), wait=True
)


@dataclass(frozen=True, slots=True)
class KeyRefresh:
    """What came of one attempt to read an issuer's keys, for logs, metrics and readiness.

    Attributes:
        issuer: its name in the policy.
        keys: how many keys can be used now.
        error: one line for the operator; empty when the attempt succeeded.
        skipped: entries of the set that can not be used, and why.
    """

    issuer: str
    keys: int
    error: str = ""
    skipped: tuple[str, ...] = ()


@dataclass(slots=True)
class _Source:
    issuer: Issuer
    pace: Pace
    keys: KeySet | None = None
    loaded_at: float = 0.0
    attempted_at: float | None = None
    failures: int = 0
    flight: anyio.Event | None = None
    waiting: int = 0
    last: KeyRefresh | None = field(default=None)

    def usable(self, now: float) -> KeySet | None:
        return self.keys if now - self.loaded_at <= self.pace.serve_until else None

    def stale(self, now: float) -> bool:
        return not 0 <= now - self.loaded_at <= self.pace.refresh_after

    def may_attempt(self, now: float) -> bool:
        if self.attempted_at is None:
            return True
        pause = self.pace.between
        if self.failures and self.keys is not None:
            pause = min(pause * 2 ** min(self.failures - 1, 10), self.pace.between_failures)
        # A clock that was set back must not block attempts until it has caught up.
        return not 0 <= now - self.attempted_at < pause


class IssuerKeys:
    """Finds verification keys. An async context manager: fetches end with it.

    Args:
        fetcher: for issuers with a URL.
        policy_directory: where a relative `jwks_file` is.
        clock: seconds.
        on_refresh: told of each attempt.
    """

    def __init__(
        self,
        *,
        fetcher: KeyFetcher,
        policy_directory: Path,
        clock: Clock,
        on_refresh: Callable[[KeyRefresh], None] | None = None,
    ) -> None:
        self._fetcher = fetcher
        self._directory = policy_directory
        self._clock = clock
        self._on_refresh = on_refresh
        self._sources: OrderedDict[tuple[object, ...], _Source] = OrderedDict()
        self._stack = AsyncExitStack()
        self._tasks: anyio.abc.TaskGroup | None = None

    async def __aenter__(self) -> Self:
        self._tasks = await self._stack.enter_async_context(anyio.create_task_group())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()
        self._tasks = None
        await self._stack.__aexit__(kind, error, trace)

    async def find(self, issuer: Issuer, kid: str | None) -> VerificationKey:
        """The issuer's key with this id.

        Raises:
            InvalidToken: the issuer has no such key.
            Unavailable: its keys can not be had now, or not soon enough to tell.
        """
        source = self._source(issuer)
        now = self._clock()
        if source.usable(now) is None:
            await self._refresh(source, now)
        elif source.stale(now):
            # A file is read at once: a key replaced in it must not fail the next token.
            if source.pace.wait:
                await self._refresh(source, now)
            else:
                self._start(source, now)
        keys = source.usable(now)
        if keys is None:
            raise Unavailable(f"no keys of the issuer {issuer.name} yet")
        return keys.find(kid) or await self._find_unknown(source, kid, now)

    def warm(self, issuers: tuple[Issuer, ...]) -> None:
        """Begin to read the keys of these issuers in the background; failures only report."""
        now = self._clock()
        for issuer in issuers:
            if not issuer.preset.self_issued:
                self._start(self._source(issuer), now)

    def status(self) -> tuple[KeyRefresh, ...]:
        """The last attempt for each issuer met so far."""
        return tuple(source.last for source in self._sources.values() if source.last)

    async def _find_unknown(self, source: _Source, kid: str | None, now: float) -> VerificationKey:
        if source.flight is not None or source.may_attempt(now):
            if source.waiting >= _MAX_WAITING_FOR_UNKNOWN:
                raise Unavailable("too many tokens with unknown keys at once")
            await self._refresh(source, now)
        keys = source.usable(self._clock())
        key = keys.find(kid) if keys is not None else None
        if key is not None:
            return key
        if source.failures:
            # It may be a new key that the issuer could not tell us of: a miss, not a 401.
            raise Unavailable(f"the issuer {source.issuer.name} is down, and the key is unknown")
        raise InvalidToken("the issuer has no key with this kid", TokenProblem.UNKNOWN_KEY)

    def _source(self, issuer: Issuer) -> _Source:
        name = (issuer.iss, *_location(issuer), issuer.algorithms, issuer.allow_private)
        source = self._sources.get(name)
        if source is None:
            pace = FILE_PACE if issuer.jwks_file is not None else URL_PACE
            source = self._sources[name] = _Source(issuer, pace)
            if len(self._sources) > _MAX_SOURCES:
                self._sources.popitem(last=False)
        self._sources.move_to_end(name)
        return source

    async def _refresh(self, source: _Source, now: float) -> None:
        self._start(source, now)
        flight = source.flight
        if flight is None:
            return
        source.waiting += 1
        try:
            await flight.wait()
        finally:
            source.waiting -= 1

    def _start(self, source: _Source, now: float) -> None:
        if self._tasks is None:
            raise Unavailable("the issuers' keys are not being read: the server is not running")
        if source.flight is None and source.may_attempt(now):
            source.attempted_at = now
            source.flight = anyio.Event()
            self._tasks.start_soon(self._fly, source, source.flight)

    async def _fly(self, source: _Source, flight: anyio.Event) -> None:
        try:
            source.last = await self._attempt(source)
            if self._on_refresh is not None:
                self._on_refresh(source.last)
        finally:
            source.flight = None
            flight.set()

    async def _attempt(self, source: _Source) -> KeyRefresh:
        issuer = source.issuer
        try:
            keys = _parse(await self._read(issuer), issuer)
        except Exception as error:  # noqa: BLE001 - no answer of an issuer may stop the server
            source.failures += 1
            kept = 0 if source.keys is None else len(source.keys.keys)
            where = " ".join(_location(issuer))
            return KeyRefresh(issuer.name, kept, f"{where}: {type(error).__name__}: {error}")
        source.failures = 0
        source.keys, source.loaded_at = keys, self._clock()
        return KeyRefresh(issuer.name, len(keys.keys), skipped=keys.skipped)

    def _read(self, issuer: Issuer) -> Awaitable[bytes]:
        kind, location = _location(issuer)
        if kind == "file":
            path = self._directory / location
            return anyio.to_thread.run_sync(partial(read_guarded, path, max_bytes=MAX_SET_BYTES))
        return self._fetcher.fetch(location, allow_private=issuer.allow_private)


def _location(issuer: Issuer) -> tuple[str, str]:
    if issuer.jwks_file is not None:
        return "file", issuer.jwks_file
    if issuer.jwks_url is not None:
        return "url", issuer.jwks_url
    preset = issuer.preset
    if issuer.iss == preset.default_iss and preset.default_jwks_url is not None:
        return "url", preset.default_jwks_url
    if preset.jwks_path is not None:
        return "url", issuer.iss.rstrip("/") + preset.jwks_path
    raise Misconfigured(f"the issuer {issuer.name} has neither jwks_url nor jwks_file")


def _parse(data: bytes, issuer: Issuer) -> KeySet:
    keys = parse_key_set(data, issuer.algorithms)
    if not keys.keys:
        raise ValueError("; ".join(keys.skipped[:3]) or "the set is empty")
    return keys
