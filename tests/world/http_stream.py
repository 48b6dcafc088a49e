"""HTTP/1.1 bodies as they stand on the wire, read piece by piece, spoiled or cut short."""

import asyncio
from collections.abc import AsyncIterator
from typing import TypeAlias

Pieces: TypeAlias = AsyncIterator[tuple[bool, bytes]]
"""Bytes from the wire; true beside what is content, false beside the framing of chunks."""

_PIECE = 65536


class LostError(Exception):
    """The exchange ends here, and the connection with it: by RST."""


class ClosedError(Exception):
    """As `LostError`, by an orderly FIN."""


def headers_in(head: bytes) -> dict[str, str]:
    """The headers, by their names in lower case, after a head's first line."""
    lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


async def body_of(
    reader: asyncio.StreamReader,
    headers: dict[str, str],
    rate: float | None = None,
    *,
    until_close: bool = False,
) -> Pieces:
    """The body that these headers announce, at most `rate` bytes a second of it.

    Raises:
        LostError: it ends too early.
    """
    if "chunked" in headers.get("transfer-encoding", "").lower():
        pieces = _chunked(reader, rate)
    elif until_close:
        pieces = _until_close(reader, rate)
    else:
        pieces = _sized(reader, int(headers.get("content-length", "0")), rate)
    async for found in pieces:
        yield found


async def flipped(body: Pieces, at: int | None) -> AsyncIterator[bytes]:
    """The same with one bit flipped, in the content's byte number `at`."""
    position = 0
    async for content, piece in body:
        if at is not None and content and position <= at < position + len(piece):
            changed = bytearray(piece)
            changed[at - position] ^= 1
            yield bytes(changed)
        else:
            yield piece
        position += len(piece) if content else 0


async def cut(body: Pieces, count: int) -> AsyncIterator[bytes]:
    """The same until `count` bytes of its content are through."""
    async for content, piece in body:
        if content and count < len(piece):
            yield piece[:count]
            return
        count -= len(piece) if content else 0
        yield piece


async def _some(reader: asyncio.StreamReader, count: int, rate: float | None) -> bytes:
    piece = _PIECE if rate is None else max(1, int(rate / 20))
    data = await reader.read(min(piece, count))
    if rate is not None:
        await asyncio.sleep(len(data) / rate)
    return data


async def _sized(reader: asyncio.StreamReader, length: int, rate: float | None) -> Pieces:
    while length > 0:
        data = await _some(reader, length, rate)
        if not data:
            raise LostError
        length -= len(data)
        yield True, data


async def _chunked(reader: asyncio.StreamReader, rate: float | None) -> Pieces:
    length = -1
    while length != 0:
        line = await reader.readuntil(b"\r\n")
        yield False, line
        length = int(line.split(b";")[0], 16)
        async for found in _sized(reader, length, rate):
            yield found
        if length > 0:
            yield False, await reader.readexactly(2)
    # The trailers, and the empty line after them.
    while line != b"\r\n":
        line = await reader.readuntil(b"\r\n")
        yield False, line


async def _until_close(reader: asyncio.StreamReader, rate: float | None) -> Pieces:
    while data := await _some(reader, _PIECE, rate):
        yield True, data
