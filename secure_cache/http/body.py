"""Request bodies within bounds, straight from ASGI; and refusals that the client gets to see.

`read_body` gives the body block by block as it arrives. It is bounded in bytes, in time, and in
how slow the client may be: only time spent waiting for the client counts, so a slow disk of ours
is never the client's fault. uvicorn stops reading the socket while more than 64 KiB wait
(`HIGH_WATER_LIMIT`), so one body holds at most that and one read of the socket (256 KiB).

`refuse_and_drain` answers before the body has arrived. A server that answers and closes while
bytes are still coming makes the kernel send a reset, and the reset makes the client throw away
the answer: Nx then repeats the upload up to six times and fails the build. So the answer goes
out whole, and what still comes is read and forgotten, within bounds, before the socket closes.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import anyio

from secure_cache.http.patience import Patience
from secure_cache.model.errors import Malformed, TooLarge, TooSlow

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Headers: TypeAlias = Sequence[tuple[bytes, bytes]]

MAX_CONTENT_LENGTH_DIGITS = 18
NO_STORE = (b"cache-control", b"no-store")
"""A cache on the way that asks nobody who asks would give one caller's answer to all others."""


@dataclass(frozen=True, slots=True)
class BodyBounds:
    """What one body may be.

    Attributes:
        max_bytes: the largest body.
        deadline_seconds: for the whole body, our own time included.
        min_bytes_per_second: the slowest client.
        grace_seconds: how far a client may fall behind that rate (see `Patience`), and so the
            longest wait for any single byte.
    """

    max_bytes: int
    deadline_seconds: float = 600.0
    min_bytes_per_second: float = 8192.0
    grace_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class DrainBounds:
    """How much of a refused upload is read and forgotten.

    Keep it low for callers that nobody knows: a drain costs them nothing.
    """

    max_bytes: int = 1 << 20
    max_seconds: float = 2.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole small response. `Content-Length` is added when it is sent."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ((b"content-type", b"text/plain"),)


def parse_content_length(headers: Headers) -> int | None:
    """The announced size of a body in bytes, or None when there is none (a chunked body).

    Raises:
        Malformed: not plain digits, or announced more than once.
    """
    values = [value for name, value in headers if name == b"content-length"]
    if not values:
        return None
    text = values[0]
    if len(values) > 1 or not text.isdigit() or len(text) > MAX_CONTENT_LENGTH_DIGITS:
        raise Malformed("Content-Length is not one plain number")
    return int(text)


async def read_body(
    receive: Receive, bounds: BodyBounds, *, content_length: int | None
) -> AsyncIterator[bytes]:
    """The body's blocks, none empty, as they arrive.

    Args:
        receive: the ASGI callable of the request.
        bounds: what the body may be.
        content_length: the announced size, checked against what arrives; None if chunked.

    Raises:
        TooLarge: announced or arrived more than `max_bytes`. Announced: nothing was read.
        TooSlow: past the deadline or below the rate.
        Malformed: the client left, or the body is shorter or longer than announced.
    """
    if content_length is not None and content_length > bounds.max_bytes:
        raise TooLarge(f"{content_length} bytes announced, {bounds.max_bytes} allowed")
    end = time.monotonic() + bounds.deadline_seconds
    patience = Patience(
        grace_seconds=bounds.grace_seconds, bytes_per_second=bounds.min_bytes_per_second
    )
    received = 0
    more = True
    while more:
        before = time.monotonic()
        message = await _receive_within(receive, min(patience.left_seconds, end - before))
        patience.spend(time.monotonic() - before)
        if message["type"] != "http.request":
            raise Malformed(f"the client left after {received} bytes of the body")
        block: bytes = message.get("body", b"")
        more = message.get("more_body", False)
        received += len(block)
        patience.earn(len(block))
        if received > bounds.max_bytes:
            raise TooLarge(f"more than {bounds.max_bytes} bytes arrived")
        if content_length is not None and received > content_length:
            raise Malformed("the body is longer than announced")
        if block:
            yield block
    if content_length is not None and received != content_length:
        raise Malformed(f"{content_length} bytes announced, {received} arrived")


async def _receive_within(receive: Receive, seconds: float) -> Message:
    if seconds <= 0:
        raise TooSlow("the body did not arrive in time")
    try:
        with anyio.fail_after(seconds):
            return await receive()
    except TimeoutError:
        raise TooSlow("the body did not arrive in time") from None


async def refuse_and_drain(
    send: Send, receive: Receive, answer: Answer, bounds: DrainBounds
) -> int:
    """Answer now, then read and forget the rest of the upload, then close the connection.

    To be called while the body's end has not been seen; after that an ordinary answer will do.
    `Content-Length` and `Connection: close` are added here. Never raises for what the client
    does. What crosses `bounds` is cut, and that client may see a reset.

    Returns:
        how many bytes were forgotten.
    """
    own = [(b"content-length", b"%d" % len(answer.body)), (b"connection", b"close")]
    await send(
        {
            "type": "http.response.start",
            "status": answer.status,
            "headers": [*answer.headers, *own],
        }
    )
    # The answer is complete for the client (Content-Length), but not for the server: once it
    # has seen the last part it closes the socket.
    await send({"type": "http.response.body", "body": answer.body, "more_body": True})
    drained = 0
    with anyio.move_on_after(bounds.max_seconds):
        while drained <= bounds.max_bytes:
            message = await receive()
            if message["type"] != "http.request":
                break
            drained += len(message.get("body", b""))
            if not message.get("more_body", False):
                break
    await send({"type": "http.response.body", "body": b"", "more_body": False})
    return drained
