"""A body on its way into the filesystem store."""

import hashlib
from types import TracebackType
from typing import Final, Self

from anyio import CancelScope, CapacityLimiter, Event, create_task_group, to_thread
from anyio.abc import TaskGroup

from secure_cache.model.digest import Digest
from secure_cache.model.errors import DigestMismatch, SecureCacheError
from secure_cache.storage.draft import Draft
from secure_cache.storage.durable import DurableFolder
from secure_cache.storage.ports import Committed, check_name
from secure_cache.storage.posix import translated

BLOCK_BYTES: Final = 1_048_576
_SMALL_PIECE_BYTES: Final = 16_384


class FileUpload:
    """An Upload, and the context manager that begins and ends it.

    Holds at most two blocks: one being received and one being hashed and written in a thread
    meanwhile. A body smaller than a block touches no file before `commit`, which then does
    everything in one visit to a thread.
    """

    def __init__(self, folder: DurableFolder, name: str, *, limiter: CapacityLimiter) -> None:
        self._folder = folder
        self._name = name
        self._limiter = limiter
        self._block: list[bytes | memoryview] = []
        self._block_bytes = 0
        self._tail = bytearray()
        self._hash = hashlib.sha256()
        self._written = 0
        self._draft: Draft | None = None
        self._writing: Event | None = None
        self._failure: SecureCacheError | None = None
        self._tasks: TaskGroup

    async def __aenter__(self) -> Self:
        check_name(self._name)
        self._folder.durability.require()
        self._tasks = await create_task_group().__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            # The caller's error is not the task group's to wrap; a block that is being written
            # is waited for, since its thread still uses the descriptor.
            if error is not None:
                self._tasks.cancel_scope.cancel()
            await self._tasks.__aexit__(None, None, None)
        finally:
            self._block.clear()
            if self._draft is not None:
                draft, self._draft = self._draft, None
                with CancelScope(shield=True):
                    await to_thread.run_sync(draft.close, limiter=self._limiter)

    async def write(self, data: bytes) -> None:
        """Raises: StorageUnavailable, StorageForbidden, also for what an earlier call gave."""
        view = memoryview(data)
        while view:
            room = BLOCK_BYTES - self._block_bytes
            piece, view = view[:room], view[room:]
            self._keep(piece)
            if self._block_bytes >= BLOCK_BYTES:
                await self._settle()
                self._writing = Event()
                self._tasks.start_soon(self._write_behind, self._take_block(), self._writing)

    async def commit(self, *, size: int, digest: Digest | None = None) -> Committed:
        await self._settle()
        block = self._take_block()
        try:
            return await to_thread.run_sync(
                self._finish, block, size, digest, limiter=self._limiter
            )
        except SecureCacheError as error:
            # Part of the block may be written and not hashed: nothing may be committed any more.
            self._failure = error
            raise

    def _keep(self, piece: memoryview) -> None:
        """Large pieces are kept as they came, without a copy; small ones are joined, or a client
        that drips single bytes would cost us fifty times its body."""
        self._block_bytes += len(piece)
        if len(piece) < _SMALL_PIECE_BYTES:
            self._tail += piece
            if len(self._tail) < 4 * _SMALL_PIECE_BYTES:
                return
            piece = memoryview(b"")
        if self._tail:
            self._block.append(bytes(self._tail))
            self._tail = bytearray()
        if piece:
            self._block.append(piece)

    def _take_block(self) -> list[bytes | memoryview]:
        block = [*self._block, bytes(self._tail)]
        self._block, self._tail, self._block_bytes = [], bytearray(), 0
        return block

    async def _settle(self) -> None:
        """Wait until no block is being written, and raise what the last one met."""
        if self._writing is not None:
            await self._writing.wait()
        if self._failure is not None:
            raise self._failure

    async def _write_behind(self, block: list[bytes | memoryview], done: Event) -> None:
        try:
            await to_thread.run_sync(self._write_block, block, limiter=self._limiter)
        except SecureCacheError as error:
            self._failure = error
        finally:
            done.set()

    def _write_block(self, block: list[bytes | memoryview]) -> None:
        with translated(self._name, applied=False):
            if self._draft is None:
                self._draft = self._folder.staging.new()
            self._draft.write(block)
        self._hash_block(block)

    def _hash_block(self, block: list[bytes | memoryview]) -> None:
        for piece in block:
            self._hash.update(piece)
            self._written += len(piece)

    def _finish(
        self, block: list[bytes | memoryview], size: int, digest: Digest | None
    ) -> Committed:
        if self._draft is None:
            # Still all in memory: a wrong body is refused before any file is made.
            self._hash_block(block)
            written = self._verified(size, digest)
            return Committed(self._folder.create(self._name, block), written)
        self._write_block(block)
        written = self._verified(size, digest)
        draft, self._draft = self._draft, None
        try:
            return Committed(self._folder.publish(draft, self._name), written)
        finally:
            draft.close()

    def _verified(self, size: int, digest: Digest | None) -> Digest:
        written = Digest(self._hash.digest())
        if self._written != size:
            raise DigestMismatch(f"{self._name}: {self._written} bytes instead of {size}")
        if digest is not None and digest != written:
            raise DigestMismatch(f"{self._name}: sha256 {written} instead of {digest}")
        return written
