"""Where the work of building is done: in threads, or in two processes of their own.

Reading a leaf costs some twenty microseconds of Python, and writing its row as much again. A server
lets two processes of the lowest priority do that, so that following the log takes nothing from
a request: neither the interpreter's lock nor, while there are requests, a core. And whoever builds
a large index uses two cores.
"""

import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import anyio
import anyio.abc
import anyio.to_thread
import msgspec
from anyio.streams.buffered import BufferedByteReceiveStream

from secure_cache.audit.building import Builder, ReadBatch
from secure_cache.audit.schema import connect, faults_of
from secure_cache.model.errors import (
    DamagedIndex,
    Misconfigured,
    SecureCacheError,
    StorageUnavailable,
)
from secure_cache.tlog.checkpoint import Checkpoint

_Result = TypeVar("_Result")

_LOWEST_PRIORITY = 19
_MAX_REPLY_BYTES = 256 << 20
LENGTH_BYTES = 8


class Hands(Protocol):
    """A `Builder`, somewhere, and somebody who reads leaves for it.

    Raises (from all): DamagedIndex, StorageUnavailable, Misconfigured.
    """

    async def begin(self) -> Checkpoint:
        """What is indexed, as a tree. Forgets what was prepared."""
        ...

    async def read(self, first: int, leaves: Sequence[bytes]) -> ReadBatch:
        """May be called while the others are at work."""
        ...

    async def prepare(self, origin: str, batch: ReadBatch) -> Checkpoint:
        """What the tree is after these entries."""
        ...

    async def commit(self) -> None: ...

    async def keep_note(self, note: bytes) -> None: ...


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a process is told to do; only what the order needs is set."""

    do: str
    origin: str = ""
    first: int = 0
    leaves: Sequence[bytes] = ()
    hashes: bytes = b""
    rows: bytes = b""
    note: bytes = b""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What it answers: a tree, a batch, or an error's code and text."""

    origin: str = ""
    size: int = 0
    root: bytes = b""
    hashes: bytes = b""
    rows: bytes = b""
    error: str = ""
    text: str = ""


@asynccontextmanager
async def in_thread(path: Path, *, segment: int) -> AsyncIterator[Hands]:
    """For tests, and for an index that is nearly up to date."""
    connection = await anyio.to_thread.run_sync(partial(connect, path, writing=True))
    try:
        yield _InThread(path, partial(Builder, connection, segment=segment))
    finally:
        connection.close()


class _InThread:
    def __init__(self, path: Path, make: Callable[[], Builder]) -> None:
        self._path = path
        self._make = make
        self._builder: Builder | None = None

    async def begin(self) -> Checkpoint:
        if self._builder is None:
            self._builder = await self._run(self._make)
        return await self._run(self._builder.begin)

    async def read(self, first: int, leaves: Sequence[bytes]) -> ReadBatch:
        return await self._run(partial(ReadBatch.of, first, leaves))

    async def prepare(self, origin: str, batch: ReadBatch) -> Checkpoint:
        return await self._run(partial(self._begun.prepare, origin, batch))

    async def commit(self) -> None:
        await self._run(self._begun.commit)

    async def keep_note(self, note: bytes) -> None:
        await self._run(partial(self._begun.keep_note, note))

    @property
    def _begun(self) -> Builder:
        if self._builder is None:
            raise DamagedIndex("building was not begun")
        return self._builder

    async def _run(self, function: Callable[[], _Result]) -> _Result:
        def guarded() -> _Result:
            with faults_of(self._path):
                return function()

        # Not abandoned when cancelled: a transaction ends before its connection is closed.
        return await anyio.to_thread.run_sync(guarded)


@asynccontextmanager
async def in_process(
    path: Path, *, segment: int, niceness: int = _LOWEST_PRIORITY
) -> AsyncIterator[Hands]:
    """For building a large index, and beside a server. The processes end with the context, and by
    themselves when this process dies."""
    arguments = [str(path), str(segment), str(niceness)]
    async with _helper(arguments) as reader, _helper(arguments) as writer:
        yield _InProcess(reader, writer)


@asynccontextmanager
async def _helper(arguments: list[str]) -> AsyncIterator["Helper"]:
    try:
        process = await anyio.open_process(
            # -P: a file in the current folder must not become a module of ours.
            [sys.executable, "-P", "-m", "secure_cache.audit.worker", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None,
        )
    except OSError as error:
        raise StorageUnavailable(
            f"no process could be started to build the index: {error.strerror}"
        ) from error
    try:
        yield Helper(process)
    finally:
        # It may have ended by itself.
        with suppress(ProcessLookupError):
            process.kill()
        with anyio.CancelScope(shield=True):
            await process.aclose()


class Helper:
    """The other end of `audit.worker`."""

    def __init__(self, process: anyio.abc.Process) -> None:
        self.process = process
        if process.stdin is None or process.stdout is None:
            raise StorageUnavailable("no way to the process that builds the index")
        self._send = process.stdin
        self._replies = BufferedByteReceiveStream(process.stdout)

    async def ask(self, order: Order) -> Reply:
        """Raises: DamagedIndex, StorageUnavailable, Misconfigured."""
        data = msgspec.msgpack.encode(order)
        try:
            await self._send.send(len(data).to_bytes(LENGTH_BYTES, "big"))
            await self._send.send(data)
            length = int.from_bytes(await self._replies.receive_exactly(LENGTH_BYTES), "big")
            if length > _MAX_REPLY_BYTES:
                raise StorageUnavailable("the process that builds the index answers nonsense")
            answer = await self._replies.receive_exactly(length)
        except (anyio.BrokenResourceError, anyio.EndOfStream, anyio.IncompleteRead) as error:
            raise StorageUnavailable("the process that builds the index has ended") from error
        reply = msgspec.msgpack.decode(answer, type=Reply)
        if reply.error:
            raise _ERRORS.get(reply.error, StorageUnavailable)(reply.text)
        return reply


class _InProcess:
    def __init__(self, reader: Helper, writer: Helper) -> None:
        self.reader = reader
        self.writer = writer

    async def begin(self) -> Checkpoint:
        return await self._ask(Order(do="begin"))

    async def read(self, first: int, leaves: Sequence[bytes]) -> ReadBatch:
        reply = await self.reader.ask(Order(do="read", first=first, leaves=leaves))
        return ReadBatch(reply.hashes, reply.rows)

    async def prepare(self, origin: str, batch: ReadBatch) -> Checkpoint:
        return await self._ask(
            Order(do="prepare", origin=origin, hashes=batch.hashes, rows=batch.rows)
        )

    async def commit(self) -> None:
        await self._ask(Order(do="commit"))

    async def keep_note(self, note: bytes) -> None:
        await self._ask(Order(do="note", note=note))

    async def _ask(self, order: Order) -> Checkpoint:
        reply = await self.writer.ask(order)
        return Checkpoint(reply.origin, reply.size, reply.root)


_ERRORS: dict[str, type[SecureCacheError]] = {
    kind.code: kind for kind in (DamagedIndex, Misconfigured, StorageUnavailable)
}
