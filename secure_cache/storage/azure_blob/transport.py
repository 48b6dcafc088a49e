"""What the SDK's way to the socket lacks: paced bodies, and an end to every answer and socket.

Given bytes, aiohttp hands them to the socket in one call, whose buffer then holds what the
network does not take at once a second time, under TLS a third time, while the event loop waits.
Given a BytesIO, its silent second attempt on a new connection depends on where the first one
left off; aiohttp once sent the rest alone. This body has no position.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, Final
from weakref import WeakSet

import aiohttp
import anyio
from aiohttp.abc import AbstractStreamWriter
from azure.core.pipeline.transport import AioHttpTransport

_PIECE: Final = 128 * 1024
_LOOKS: Final = 200
_LOOK_SECONDS: Final = 0.005


_answers: ContextVar[list[aiohttp.ClientResponse] | None] = ContextVar("answers", default=None)


@contextmanager
def ended_answers() -> Iterator[None]:
    """Close every answer that came within, read to its end or not.

    The SDK forgets an answer when its reading is cancelled or times out: its connection then
    counts against the session's limit until the garbage collector happens to find it. A read
    answer has given its connection back already, and closing it does nothing.
    """
    begun: list[aiohttp.ClientResponse] = []
    token = _answers.set(begun)
    try:
        yield
    finally:
        _answers.reset(token)
        for answer in begun:
            answer.close()


class Sockets:
    """Knows the sockets of a session until they are closed.

    Under TLS a connection that is given up in the middle of an answer says goodbye for up to
    thirty seconds, unknown to the session that it belonged to and beyond its closing.
    """

    def __init__(self) -> None:
        self._open: WeakSet[socket.socket] = WeakSet()

    def make(self, address: aiohttp.AddrInfoType) -> socket.socket:
        """For aiohttp's `socket_factory`."""
        family, kind, protocol, _, _ = address
        made = socket.socket(family, kind, protocol)
        self._open.add(made)
        return made

    async def close(self) -> None:
        """Cut what is still open, and wait a moment until the event loop has noticed."""
        for left in self._still_open():
            with suppress(OSError):
                left.shutdown(socket.SHUT_RDWR)
        for _ in range(_LOOKS):
            if not self._still_open():
                return
            await anyio.sleep(_LOOK_SECONDS)

    def _still_open(self) -> list[socket.socket]:
        return [one for one in self._open if one.fileno() != -1]


class PacedBody(aiohttp.Payload):
    """Bytes that can be sent any number of times, each time from their start."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data, content_type="application/octet-stream")
        self._data = data
        self._size = len(data)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self._data.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        await self.write_with_length(writer, None)

    async def write_with_length(
        self, writer: AbstractStreamWriter, content_length: int | None
    ) -> None:
        view = memoryview(self._data)[:content_length]
        for start in range(0, len(view), _PIECE):
            # Waits until the socket has taken enough of what came before.
            await writer.write(view[start : start + _PIECE])


class PacedTransport(AioHttpTransport):  # type: ignore[misc] # the SDK exports it lazily
    """The SDK's transport, with bodies of more than one piece paced. Everything about a request
    (signature, checksum) is settled before it comes here."""

    async def send(self, request: Any, **config: Any) -> Any:
        data = request.data
        if isinstance(data, bytes) and len(data) > _PIECE:
            request.data = PacedBody(data)
        try:
            answer = await super().send(request, **config)
        finally:
            request.data = data
        begun = _answers.get()
        if begun is not None:
            begun.append(answer.internal_response)
        return answer
