"""A local file that one task proves from its start on, and others read behind it."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Self

import anyio

from secure_cache.core.blocks import BLOCK_BYTES, BlockList
from secure_cache.model.errors import CorruptObject, SecureCacheError
from secure_cache.storage.tier_ports import LocalFile

_PATIENCE_SECONDS = 2.0


class LocalTrouble(Exception):
    """The local folder failed. The bytes can be had elsewhere, so this is told to the operator
    and to no client.

    Attributes:
        told: the operator knows already.
    """

    told = False


class Damaged(LocalTrouble):
    """A local file holds other bytes than its artifact."""


class SteppedAside(LocalTrouble):
    """Nothing is wrong that was not told before: there is no room, or it is too early to try."""

    told = True


class Gone(Exception):
    """Whoever proved has stopped, which says nothing about the artifact: look again."""


@contextmanager
def locally() -> Iterator[None]:
    """Nothing that the local folder answers is ever taken for the store's word."""
    try:
        yield
    except SecureCacheError as error:
        raise LocalTrouble(str(error)) from error


@asynccontextmanager
async def soon(limiter: anyio.CapacityLimiter) -> AsyncIterator[None]:
    """One of so many at once. Nobody waits for long behind the large artifacts of strangers.

    Raises: SteppedAside.
    """
    with anyio.move_on_after(_PATIENCE_SECONDS) as waiting:
        await limiter.acquire()
    if waiting.cancelled_caught:
        raise SteppedAside("too many others are at work")
    try:
        yield
    finally:
        limiter.release()


class Followed:
    """The work of one prover, and its readers. It ends once.

    Attributes:
        known: what is proved, block by block.
        readers: who follow, or are about to.
        upto: the bytes, from the start, that are proved and in the file.
    """

    def __init__(self, known: BlockList) -> None:
        self.known = known
        self.readers = 0
        self.upto = 0
        self._ended = False
        self._file: LocalFile | None = None
        self._newest = b""
        self._error: Exception | None = None
        self._moved = anyio.Event()

    def begin(self, file: LocalFile) -> None:
        """Readers read from this file. It is closed when the last of them has left."""
        self._file = file

    def advance(self, chunk: bytes) -> None:
        """The next chunk is proved, and in the file. Readers that keep up have it from memory,
        which spares each of them to read and hash it."""
        self.upto += len(chunk)
        self._newest = chunk
        self._wake()

    def end(self, error: Exception | None) -> None:
        """Readers get what is proved, and then the error; without one it is all proved."""
        self._ended, self._error, self._newest = True, error, b""
        self._wake()
        self._close_if_unused()

    def __enter__(self) -> Self:
        self.readers += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.readers -= 1
        self._close_if_unused()

    async def blocks(self, sent: int) -> AsyncGenerator[bytes]:
        """Verified blocks from `sent` on, as they come. To be used inside `with`.

        Raises:
            LocalTrouble, Gone: the transfer can go on elsewhere.
            SecureCacheError: what the prover met.
        """
        while sent < self.known.size:
            while self.upto <= sent:
                if self._ended:
                    raise self._reason()
                await self._moved.wait()
            block = await self._block(sent)
            yield block
            sent += len(block)

    async def _block(self, offset: int) -> bytes:
        """Raises: LocalTrouble, Gone."""
        at = offset - (self.upto - len(self._newest))
        if self._newest and at >= 0:
            return self._newest[at : at + BLOCK_BYTES]
        if self._file is None:
            raise Gone
        return await read_block(self._file, self.known, offset)

    def _wake(self) -> None:
        moved, self._moved = self._moved, anyio.Event()
        moved.set()

    def _close_if_unused(self) -> None:
        if self._ended and self.readers == 0 and self._file is not None:
            self._file.close()
            self._file = None

    def _reason(self) -> Exception:
        if isinstance(self._error, SecureCacheError):
            # Of its own for each reader: an error that is raised collects a traceback.
            own = type(self._error)(str(self._error))
            own.__cause__ = self._error
            return own
        return self._error if self._error is not None else Gone()


async def read_block(file: LocalFile, known: BlockList, offset: int) -> bytes:
    """One block that is proved.

    A file that was once read whole and is still the same is believed by its identity. Of any
    other the block is hashed.

    Raises: LocalTrouble, Damaged.
    """
    with locally():
        data = await file.read(offset, min(BLOCK_BYTES, known.size - offset))
        # After the read: what was read before a change is whole, a change during it shows here.
        believed = known.file is not None and known.file == file.identity()
    if believed and len(data) == min(BLOCK_BYTES, known.size - offset):
        return data
    try:
        await anyio.to_thread.run_sync(known.check, offset, data)
    except CorruptObject as error:
        raise Damaged(str(error)) from error
    return data
