"""One request on the cache's data path: its answer, its numbers, and its one canonical line."""

from time import perf_counter

import anyio
import structlog

from secure_cache.core.access import Caller
from secure_cache.core.denials import CountsDenials
from secure_cache.core.telemetry import Finished, Telemetry
from secure_cache.http.body import Headers, Message, Receive, Send
from secure_cache.model.entry import Entry
from secure_cache.model.errors import (
    AlreadyExists,
    Denied,
    ExpiredToken,
    InvalidToken,
    NotFound,
    Refused,
    Revoked,
    SecureCacheError,
    StorageForbidden,
    StorageUnavailable,
)

_log = structlog.get_logger("secure_cache.request")


class CacheRequest:
    """One request on its way through, and what its canonical line will say."""

    def __init__(self, scope: Message, receive: Receive, send: Send) -> None:
        self.scope = scope
        self._receive = receive
        self.send = send
        self.method: str = scope["method"]
        self.started_at = perf_counter()
        self.caller: Caller | None = None
        self.key = ""
        self.entry: Entry | None = None
        self.status = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.body_ended = False
        self.answer_ended = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self.bytes_in += len(message.get("body", b""))
            self.body_ended = not message.get("more_body", False)
        else:
            self.body_ended = True
        return message

    async def start(self, status: int, headers: Headers) -> None:
        self.status = status
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def body(self, data: bytes, *, more: bool) -> None:
        self.bytes_out += len(data)
        await self.send({"type": "http.response.body", "body": data, "more_body": more})
        self.answer_ended = not more

    async def client_left(self) -> bool:
        """Whether nobody takes the answer any more; asked without waiting.

        To a client that has left the server sends into the void, and never has to wait: whoever
        does not ask would send gigabytes before anybody else gets a turn.
        """
        message: Message = {"type": "still there"}
        with anyio.move_on_after(0):
            message = await self._receive()
        return bool(message["type"] == "http.disconnect")


def finish(
    request: CacheRequest,
    error: SecureCacheError | None,
    telemetry: Telemetry,
    denials: CountsDenials,
) -> None:
    """Count the request and write its one canonical line."""
    if error is not None:
        denials.count(request.method, error, request.caller)
    seconds = perf_counter() - request.started_at
    outcome, reason = _outcome(request, error), error.code if error is not None else ""
    _count(request, error, telemetry, outcome=outcome, reason=reason, seconds=seconds)
    caller, entry = request.caller, request.entry
    identity = caller.identity if caller else None
    # What failed for a reason of ours stands out from what was refused for one of theirs.
    write = _log.warning if outcome == "failed" else _log.info
    write(
        "request",
        method=request.method,
        key=request.key,
        status=request.status,
        outcome=outcome,
        reason=reason,
        why=str(error) if error is not None else "",
        issuer=identity.issuer if identity else "",
        subject=identity.subject if identity else "",
        project=caller.decision.project if caller else "",
        rule=caller.decision.rule if caller else "",
        namespace=str(entry.namespace) if entry else "",
        entry=entry.entry_id if entry else "",
        bytes_in=request.bytes_in,
        bytes_out=request.bytes_out,
        ms=round(seconds * 1000, 3),
    )


def _count(
    request: CacheRequest,
    error: SecureCacheError | None,
    telemetry: Telemetry,
    *,
    outcome: str,
    reason: str,
    seconds: float,
) -> None:
    telemetry.request_finished(
        Finished(
            method=request.method,
            route="cache",
            status=request.status,
            outcome=outcome,
            reason=reason,
            seconds=seconds,
            bytes_in=request.bytes_in,
            bytes_out=request.bytes_out,
        )
    )
    if outcome == "hit" and request.entry is not None:
        telemetry.served(tier=str(request.entry.tier), size_bytes=request.bytes_out)
    elif error is not None and request.method != "PUT":
        telemetry.missed(reason="absent" if isinstance(error, NotFound) else reason)
    if isinstance(error, StorageUnavailable | StorageForbidden):
        telemetry.storage_failed(kind=reason)
    if isinstance(error, Denied | InvalidToken | ExpiredToken | Revoked):
        telemetry.denied(reason=reason)


_OUTCOMES: tuple[tuple[type[SecureCacheError], str], ...] = (
    (NotFound, "miss"),
    (AlreadyExists, "exists"),
    (Denied, "denied"),
    (Revoked, "denied"),
    (InvalidToken, "denied"),
    (ExpiredToken, "denied"),
    (Refused, "refused"),
    (SecureCacheError, "failed"),
)


def _outcome(request: CacheRequest, error: SecureCacheError | None) -> str:
    if error is not None:
        return next(outcome for kind, outcome in _OUTCOMES if isinstance(error, kind))
    if request.status == 405:
        return "refused"
    if not request.answer_ended:
        return "gone"
    return "stored" if request.method == "PUT" else "hit"
