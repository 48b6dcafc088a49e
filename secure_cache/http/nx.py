"""The Nx self-hosted cache protocol: `PUT GET HEAD /v1/cache/{hash}`, as a small ASGI app.

It is mounted in the Litestar application and stands outside its routing because every task of a
build passes here: what the framework adds to a request costs more than the work itself. It
speaks raw ASGI, decides nothing, and answers only with statuses that the real client bears (see
`errors`).
"""

import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass

import anyio
import structlog

from secure_cache.core.access import Access, Caller
from secure_cache.core.denials import CountsDenials, NoDenials
from secure_cache.core.get import Artifact, Get
from secure_cache.core.put import Body, Put
from secure_cache.core.telemetry import Telemetry
from secure_cache.http.bearer import bearer_token
from secure_cache.http.body import (
    NO_STORE,
    Answer,
    BodyBounds,
    DrainBounds,
    Message,
    Receive,
    Send,
    parse_content_length,
    read_body,
    refuse_and_drain,
)
from secure_cache.http.cache_request import CacheRequest, finish
from secure_cache.http.errors import REASON_HEADER, cache_status
from secure_cache.http.paths import cache_key
from secure_cache.model.errors import (
    Broken,
    InvalidToken,
    Malformed,
    Overloaded,
    SecureCacheError,
    TooLarge,
    TooSlow,
    WrongFilter,
)
from secure_cache.model.names import Key

_log = structlog.get_logger("secure_cache.request")

_METHODS = {"GET", "HEAD", "PUT"}
_PARTING_SECONDS = 2.0
"""Less than a server that leaves waits for it (`server.LAST_WORDS_SECONDS`)."""

_STALLED_SEND_SECONDS = 60.0
_ASK_AFTER_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class CacheLimits:
    """Bounds of the data path.

    Attributes:
        max_open_requests: beyond it a look-up is a miss and a store is not stored.
        max_open_uploads: the same for bodies on their way in.
        body: of one body on its way in.
        drain: of a refused body, from a caller that has shown a valid token.
        stranger_drain: the same from anybody else.
    """

    max_open_requests: int
    max_open_uploads: int
    body: BodyBounds
    drain: DrainBounds
    stranger_drain: DrainBounds


class NxCache:
    """The ASGI application."""

    def __init__(
        self,
        *,
        access: Access,
        get: Get,
        put: Put,
        limits: CacheLimits,
        telemetry: Telemetry,
        strict: bool,
        nx_only: bool = False,
        denials: CountsDenials | None = None,
    ) -> None:
        self._access = access
        self._get = get
        self._put = put
        self._limits = limits
        self._telemetry = telemetry
        self._strict = strict
        self._nx_only = nx_only
        self._denials = NoDenials() if denials is None else denials
        self._open_requests = 0
        self._open_uploads = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        request = CacheRequest(scope, receive, send)
        self._telemetry.request_started()
        error: SecureCacheError | None = None
        try:
            error = await self._attempt(request)
            if error is not None:
                await self._refuse(request, error)
        except anyio.get_cancelled_exc_class():
            if not request.status:
                error = Overloaded("the server ended before the request did")
                await self._part(request, error)
            raise
        finally:
            # Also when the end of a drain cuts it: each request has its line and its number.
            finish(request, error, self._telemetry, self._denials)

    async def _attempt(self, request: CacheRequest) -> SecureCacheError | None:
        """Serve, or say why not."""
        self._open_requests += 1
        try:
            await self._serve(request)
        except SecureCacheError as refusal:
            return refusal
        except Exception as crash:  # noqa: BLE001  a bug of ours must not turn a build red
            _log.exception("request.crashed")
            return Broken(repr(crash))
        finally:
            self._open_requests -= 1
        return None

    async def _serve(self, request: CacheRequest) -> None:
        scope = request.scope
        if request.method not in _METHODS:
            await self._method_not_allowed(request)
            return
        request.key = key = cache_key(scope["raw_path"], nx_only=self._nx_only)
        if self._open_requests > self._limits.max_open_requests:
            raise Overloaded("too many open requests")
        caller = await self._access(bearer_token(scope["headers"]))
        request.caller = caller
        if request.method == "PUT":
            await self._store(request, caller, key)
        else:
            async with AsyncExitStack() as stack:
                artifact = await self._get(caller, key, stack)
                request.entry = artifact.entry
                await self._give(request, artifact)

    async def _give(self, request: CacheRequest, artifact: Artifact) -> None:
        headers = [
            (b"content-type", b"application/octet-stream"),
            (b"content-length", b"%d" % artifact.size),
            NO_STORE,
            (b"x-secure-cache-entry", artifact.entry.entry_id.encode()),
            (b"x-secure-cache-tier", str(artifact.entry.tier).encode()),
        ]
        if request.method == "HEAD":
            await request.start(200, headers)
            await request.body(b"", more=False)
            return
        if artifact.blocks is None:
            await request.start(200, headers)
            await request.body(artifact.data or b"", more=False)
            return
        async with aclosing(artifact.blocks) as blocks:
            first = await anext(blocks)
            await request.start(200, headers)
            await self._stream(request, artifact.size, first, blocks)

    async def _stream(
        self, request: CacheRequest, size: int, first: bytes, rest: AsyncIterator[bytes]
    ) -> None:
        """Give out verified blocks; a client that takes nothing for a minute is left.

        Raises: TooSlow, and as the blocks.
        """
        block, unasked = first, 0
        while True:
            more = request.bytes_out + len(block) < size
            try:
                with anyio.fail_after(_STALLED_SEND_SECONDS):
                    await request.body(block, more=more)
            except TimeoutError:
                raise TooSlow("the client took nothing of its answer") from None
            unasked += len(block)
            if not more:
                return
            if unasked >= _ASK_AFTER_BYTES:
                unasked = 0
                if await request.client_left():
                    return
            block = await anext(rest)

    async def _store(self, request: CacheRequest, caller: Caller, key: Key) -> None:
        limits = self._limits
        size = _announced_size(request.scope)
        if size > limits.body.max_bytes:
            raise TooLarge(f"{size} bytes, of at most {limits.body.max_bytes}")
        await self._put.check(caller, key)
        if self._open_uploads >= limits.max_open_uploads:
            raise Overloaded("too many bodies on their way in")
        blocks = read_body(request.receive, limits.body, content_length=size)
        self._open_uploads += 1
        self._telemetry.upload_started()
        try:
            entry = request.entry = await self._put(caller, key, Body(size, blocks))
        finally:
            self._open_uploads -= 1
            self._telemetry.upload_ended()
        self._telemetry.stored(tier=str(entry.tier), size_bytes=size)
        headers = [
            (b"content-type", b"text/plain"),
            (b"content-length", b"0"),
            NO_STORE,
            (b"x-secure-cache-entry", entry.entry_id.encode()),
        ]
        await request.start(202 if self._strict else 200, headers)
        await request.body(b"", more=False)

    async def _refuse(
        self, request: CacheRequest, error: SecureCacheError, *, longest_seconds: float = math.inf
    ) -> None:
        """Tell a refusal; nothing more can be told once the answer has begun."""
        if request.status:
            return
        status = cache_status(error, request.method, strict=self._strict)
        text = refusal_text(error)
        reason = (REASON_HEADER, error.code.encode())
        headers = ((b"content-type", b"text/plain"), reason, NO_STORE)
        if request.method != "PUT" or request.body_ended:
            await request.start(status, [*headers, (b"content-length", b"%d" % len(text))])
            await request.body(b"" if request.method == "HEAD" else text, more=False)
            return
        known = request.caller is not None and request.caller.identity is not None
        request.status = status
        bounds = self._limits.drain if known else self._limits.stranger_drain
        await refuse_and_drain(
            request.send,
            request.receive,
            Answer(status, text, headers),
            DrainBounds(bounds.max_bytes, min(bounds.max_seconds, longest_seconds)),
        )

    async def _part(self, request: CacheRequest, error: SecureCacheError) -> None:
        """The end of a drain cuts a request: what would be a 500 is a miss, or not stored."""
        with anyio.move_on_after(_PARTING_SECONDS, shield=True):
            await self._refuse(request, error, longest_seconds=0.9 * _PARTING_SECONDS)

    async def _method_not_allowed(self, request: CacheRequest) -> None:
        allow = (b"allow", b"GET, HEAD, PUT")
        headers = ((b"content-type", b"text/plain"), allow, NO_STORE)
        request.status = 405
        answer = Answer(405, b"this path takes GET, HEAD and PUT", headers)
        await refuse_and_drain(request.send, request.receive, answer, self._limits.stranger_drain)


def refusal_text(error: SecureCacheError) -> bytes:
    """One line for the person who reads the build's log."""
    hint = error.hint if isinstance(error, InvalidToken | WrongFilter) else error.title
    return f"secure-cache: {error.title}{f': {hint}' if hint != error.title else ''}".encode()


def _announced_size(scope: Message) -> int:
    """The announced size of the body.

    Raises:
        Malformed: none, or a transfer encoding: the client always announces, and a body of
            unknown length could not be told from one that was cut.
    """
    size = parse_content_length(scope["headers"])
    if size is None or any(name == b"transfer-encoding" for name, _ in scope["headers"]):
        raise Malformed("a body needs a Content-Length and no Transfer-Encoding")
    return size
