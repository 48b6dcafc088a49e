"""Where the work of building is done: in a thread, or in a process of its own.

Reading a leaf and writing its row costs some forty microseconds of Python. A server lets a process
with the lowest priority do that, so that following the log takes nothing from a request: neither
the interpreter's lock nor, while there are requests, a core.
"""

import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import anyio
import anyio.abc
import anyio.to_thread
import msgspec
from anyio.streams.buffered import BufferedByteReceiveStream

from secure_cache.audit.building import Builder
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
_MAX_REPLY_BYTES = 64 * 1024
LENGTH_BYTES = 8


class Hands(Protocol):
    """A `Builder`, somewhere.

    Raises (from all): DamagedIndex, StorageUnavailable, Misconfigured.
    """

    async def begin(self) -> Checkpoint:
        """What is indexed, as a tree. Forgets what was prepared."""
        ...

    async def prepare(self, origin: str, leaves: Sequence[bytes]) -> Checkpoint:
        """What the tree is after these entries."""
        ...

    async def commit(self) -> None: ...

    async def keep_note(self, note: bytes) -> None: ...


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the process is told to do."""

    do: str
    origin: str = ""
    leaves: Sequence[bytes] = ()
    note: bytes = b""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What it answers: what is indexed or prepared, or an error's code and text."""

    origin: str = ""
    size: int = 0
    root: bytes = b""
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

    async def prepare(self, origin: str, leaves: Sequence[bytes]) -> Checkpoint:
        return await self._run(partial(self._begun.prepare, origin, leaves))

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
    """For building a large index, and beside a server. The process ends with the context, and by
    itself when this process dies."""
    process = await anyio.open_process(
        [
            sys.executable,
            "-m",
            "secure_cache.audit.worker",
            str(path),
            str(segment),
            str(niceness),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None,
        # A Ctrl-C at a terminal is for this process: it ends the other in its own time.
        start_new_session=True,
    )
    try:
        yield _InProcess(process)
    finally:
        process.kill()
        with anyio.CancelScope(shield=True):
            await process.aclose()


class _InProcess:
    def __init__(self, process: anyio.abc.Process) -> None:
        self._process = process
        if process.stdin is None or process.stdout is None:
            raise StorageUnavailable("no way to the process that builds the index")
        self._send = process.stdin
        self._replies = BufferedByteReceiveStream(process.stdout)

    async def begin(self) -> Checkpoint:
        return await self._ask(Order(do="begin"))

    async def prepare(self, origin: str, leaves: Sequence[bytes]) -> Checkpoint:
        return await self._ask(Order(do="prepare", origin=origin, leaves=leaves))

    async def commit(self) -> None:
        await self._ask(Order(do="commit"))

    async def keep_note(self, note: bytes) -> None:
        await self._ask(Order(do="note", note=note))

    async def _ask(self, order: Order) -> Checkpoint:
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
        return Checkpoint(reply.origin, reply.size, reply.root)


_ERRORS: dict[str, type[SecureCacheError]] = {
    kind.code: kind for kind in (DamagedIndex, Misconfigured, StorageUnavailable)
}
