"""The outermost ASGI callable: prefix, bounds and one canonical line for all but the data path.

The framework reads a body to its end, however long that takes. So bodies are read here first,
within bounds, and handed on whole.
"""

import re
from collections.abc import Callable
from time import perf_counter
from typing import Any

import structlog
from litestar.types import ASGIApp

from secure_cache.core.telemetry import Finished, Telemetry
from secure_cache.http.body import (
    NO_STORE,
    Answer,
    BodyBounds,
    DrainBounds,
    Headers,
    Message,
    Receive,
    Send,
    parse_content_length,
    read_body,
    refuse_and_drain,
)
from secure_cache.http.nx import NxCache
from secure_cache.model.errors import SecureCacheError

_log = structlog.get_logger("secure_cache.request")

_SMALL_BODY = BodyBounds(
    max_bytes=64 * 1024, deadline_seconds=20.0, min_bytes_per_second=512.0, grace_seconds=5.0
)
_SMALL_DRAIN = DrainBounds(max_bytes=256 * 1024, max_seconds=2.0)
_CACHE_PATH = "/v1/cache"
_PLAIN_CACHE_PATH = b"/v1/cache/"
_REFUSAL = "secure_cache.refusal"
_SLASHES = re.compile("/{2,}")
_NOSNIFF = (b"x-content-type-options", b"nosniff")


class Front:
    """Callable. Requests under `root_path` are served as if it were not there.

    The data path is mounted in the framework's application, where every spelling of its path
    leads. The plain spelling is handed over here: the framework's own work is a fifth of a miss.

    Args:
        app: the framework's application.
        cache: the data path.
        root_path: the prefix.
        telemetry: the operator's instruments.
        early: the answer to a request, by its path, whose body is refused before the application
            sees it.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        cache: NxCache,
        root_path: str,
        telemetry: Telemetry,
        early: Callable[[str, SecureCacheError], Answer],
    ) -> None:
        self._app: Any = app
        self._cache = cache
        self._root_path = root_path
        self._telemetry = telemetry
        self._early = early

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        root = self._root_path
        if root and scope["path"].startswith(root + "/"):
            scope["path"] = scope["path"][len(root) :]
            scope["raw_path"] = scope["raw_path"][len(root) :]
        if scope["raw_path"].startswith(_PLAIN_CACHE_PATH):
            await self._cache(scope, receive, send)
        # As the framework routes it; the data path itself then refuses odd spellings.
        elif _SLASHES.sub("/", scope["path"]).startswith(_CACHE_PATH):
            await self._app(scope, receive, send)
        else:
            await self._bounded(scope, receive, send)

    async def _bounded(self, scope: Message, receive: Receive, send: Send) -> None:
        started_at, status = perf_counter(), 0
        head_only = scope["method"] == "HEAD"
        # What `HEAD` gets is the head of what `GET` would (RFC 9110, 9.3.2).
        asked = {**scope, "method": "GET"} if head_only else scope

        async def watched_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": _guarded(message.get("headers", ()))}
                await send(message)
                if head_only:
                    # Over: an export hears that its client left, and reads no further.
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
            elif not head_only:
                await send(message)

        self._telemetry.request_started()
        body = b""
        try:
            size = parse_content_length(scope["headers"])
            blocks = read_body(receive, _SMALL_BODY, content_length=size)
            body = b"".join([block async for block in blocks])
        except SecureCacheError as error:
            note_refusal(asked, error)
            answer = self._early(scope["path"], error)
            await refuse_and_drain(watched_send, receive, answer, _SMALL_DRAIN)
        else:
            await self._app(asked, _replay(body, receive), watched_send)
        finally:
            # Also when the end of a drain cuts it.
            refusal = asked.get(_REFUSAL, ("", ""))
            self._finish(scope, refusal, status, perf_counter() - started_at, len(body))

    def _finish(
        self,
        scope: Message,
        refusal: tuple[str, str],
        status: int,
        seconds: float,
        bytes_in: int,
    ) -> None:
        reason, why = refusal
        outcome = _outcome(status)
        self._telemetry.request_finished(
            Finished(
                method=scope["method"],
                route=route_name(scope["path"]),
                status=status,
                outcome=outcome,
                reason=reason,
                seconds=seconds,
                bytes_in=bytes_in,
            )
        )
        _log.info(
            "request",
            method=scope["method"],
            path=scope["path"],
            status=status,
            outcome=outcome,
            reason=reason,
            why=why,
            ms=round(seconds * 1000, 3),
        )


def _guarded(headers: Headers) -> Headers:
    """Much of what is answered was written by others; no browser may guess what it is. And what
    does not say that it may be kept was meant for this caller: no cache on the way gives it on."""
    others = [pair for pair in headers if pair[0].lower() != _NOSNIFF[0]]
    if any(name.lower() == NO_STORE[0] for name, _ in others):
        return [*others, _NOSNIFF]
    return [*others, NO_STORE, _NOSNIFF]


def _outcome(status: int) -> str:
    if not status:
        return "gone"
    return "ok" if status < 400 else "refused" if status < 500 else "failed"


def note_refusal(scope: Any, error: SecureCacheError) -> None:
    """Leave with the request why it was refused, for its one line in the log."""
    scope[_REFUSAL] = (error.code, str(error))


def route_name(path: str) -> str:
    """A route's name for a metric: from a fixed set, whatever the client asks for."""
    first, _, rest = path.strip("/").partition("/")
    if first == "v1":
        first = rest.partition("/")[0]
    known = {"token", "whoami", "log", "audit", "healthz", "readyz", "metrics", "schema"}
    return first if first in known else "other"


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
