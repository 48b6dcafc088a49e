"""C2SP tlog-witness over HTTP: the statuses of the protocol, and nothing else.

POST /add-checkpoint
GET  /<hex SHA-256 of an origin>/checkpoint     what was cosigned last
GET  /vkeys, /healthz
"""

import re
from collections.abc import Callable

import anyio
import structlog
from anyio.to_thread import run_sync

from secure_cache.core.witness import Witness
from secure_cache.core.witness_book import WitnessBook
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
from secure_cache.model.errors import (
    Denied,
    LogInconsistent,
    Malformed,
    NotFound,
    Overloaded,
    SecureCacheError,
    TooLarge,
    TooSlow,
    Unavailable,
)
from secure_cache.tlog.note import Signature
from secure_cache.tlog.witness import OtherSize
from secure_cache.tlog.witness_wire import (
    ADD_CHECKPOINT,
    MAX_REQUEST_BYTES,
    SIZE_TYPE,
    AddCheckpoint,
    write_cosignatures,
    write_size,
)

_log = structlog.get_logger("secure_cache.witness")

_BODY = BodyBounds(
    max_bytes=MAX_REQUEST_BYTES,
    deadline_seconds=20.0,
    min_bytes_per_second=512.0,
    grace_seconds=5.0,
)
_DRAIN = DrainBounds(max_bytes=256 * 1024, max_seconds=2.0)
_AT_ONCE = 8
_WAITING = 128
_SHOWN = re.compile(r"/([0-9a-f]{64})/checkpoint")
_TEXT = "text/plain; charset=utf-8"
# The nearest class of the tree decides, as in `http.errors`; these numbers are the protocol's.
_STATUS: tuple[tuple[type[SecureCacheError], int], ...] = (
    (NotFound, 404),
    (Denied, 403),
    (Malformed, 400),
    (TooLarge, 413),
    (TooSlow, 408),
    (LogInconsistent, 422),
    (Unavailable, 503),
    (SecureCacheError, 500),
)


class WitnessApp:
    """An ASGI application.

    Args:
        witness: decides and keeps.
        book: what it cosigned, to be shown.
        vkeys: its public keys, one a line.
        draining: whether the process is about to end.
    """

    def __init__(
        self,
        witness: Witness,
        book: WitnessBook,
        *,
        vkeys: str,
        draining: Callable[[], bool] = lambda: False,
    ) -> None:
        self._witness = witness
        self._book = book
        self._vkeys = vkeys
        self._draining = draining
        self._slots = anyio.Semaphore(_AT_ONCE)
        self._open = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        method, path = scope["method"], scope["raw_path"].decode("latin-1")
        if path == f"/{ADD_CHECKPOINT}":
            await self._add_checkpoint(scope, receive, send)
            return
        if method not in {"GET", "HEAD"}:
            answer = _plain(405 if self._is_known(path) else 404, "there is nothing here")
            await refuse_and_drain(send, receive, answer, _DRAIN)
            return
        await _send(send, await self._get(path), is_head=method == "HEAD")

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await run_sync(self._witness.check)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    @staticmethod
    def _is_known(path: str) -> bool:
        return path in {"/healthz", "/vkeys"} or _SHOWN.fullmatch(path) is not None

    async def _get(self, path: str) -> Answer:
        shown = _SHOWN.fullmatch(path)
        if shown is not None:
            return await self._shown(shown[1])
        if path == "/vkeys":
            return _plain(200, self._vkeys)
        if path == "/healthz":
            return _plain(503 if self._draining() else 200, "ok\n")
        return _plain(404, "there is nothing here\n")

    async def _shown(self, digest: str) -> Answer:
        try:
            note = await run_sync(self._book.shown, digest)
        except SecureCacheError as error:
            return _refusal(error)
        return _plain(404, "nothing was cosigned\n") if note is None else Answer(200, note, _type())

    async def _add_checkpoint(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            await refuse_and_drain(send, receive, _plain(405, "POST it\n"), _DRAIN)
            return
        try:
            size = parse_content_length(scope["headers"])
            blocks = read_body(receive, _BODY, content_length=size)
            body = b"".join([block async for block in blocks])
        except SecureCacheError as error:
            await refuse_and_drain(send, receive, _refusal(error), _DRAIN)
            return
        try:
            answer = _answer(await self._decide(body))
        except SecureCacheError as error:
            answer = _refusal(error)
        await _send(send, answer, is_head=False)

    async def _decide(self, body: bytes) -> tuple[Signature, ...] | OtherSize:
        """Raises: as `Witness.add_checkpoint`, and Overloaded."""
        if self._open >= _WAITING:
            raise Overloaded("too many checkpoints at once")
        self._open += 1
        try:
            async with self._slots:
                request = AddCheckpoint.parse(body)
                # Never given up halfway: the state and its answer belong together.
                return await run_sync(self._witness.add_checkpoint, request)
        finally:
            self._open -= 1


def _answer(result: tuple[Signature, ...] | OtherSize) -> Answer:
    if isinstance(result, OtherSize):
        return Answer(409, write_size(result.size), _type(SIZE_TYPE))
    return Answer(200, write_cosignatures(result), _type())


def _refusal(error: SecureCacheError) -> Answer:
    status = next(status for kind, status in _STATUS if isinstance(error, kind))
    if status >= 500:
        _log.error("witness.broken", code=error.code, why=str(error))
        return _plain(status, f"{error.title}\n")
    # What it says is the submitter's own, and public.
    return _plain(status, f"{error}\n")


def _plain(status: int, text: str) -> Answer:
    return Answer(status, text.encode(errors="replace"), _type())


def _type(content_type: str = _TEXT) -> tuple[tuple[bytes, bytes], ...]:
    return (
        (b"content-type", content_type.encode()),
        NO_STORE,
        (b"x-content-type-options", b"nosniff"),
    )


async def _send(send: Send, answer: Answer, *, is_head: bool) -> None:
    headers = [*answer.headers, (b"content-length", b"%d" % len(answer.body))]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if is_head else answer.body})
