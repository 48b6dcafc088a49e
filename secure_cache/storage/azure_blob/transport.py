"""Large bodies go to the socket piece by piece.

Given bytes, aiohttp hands them to the socket in one call, whose buffer then holds what the
network does not take at once a second time, under TLS a third time, while the event loop waits.
Given a BytesIO, its silent second attempt on a new connection would go on where the first broke
off. This body is neither.
"""

from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from azure.core.pipeline.transport import AioHttpTransport

_PIECE: Final = 128 * 1024


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
        if not isinstance(data, bytes) or len(data) <= _PIECE:
            return await super().send(request, **config)
        request.data = PacedBody(data)
        try:
            return await super().send(request, **config)
        finally:
            request.data = data
