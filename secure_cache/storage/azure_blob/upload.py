"""A body on its way into a blob: blocks that nobody can read until their list is committed.

Not the SDK's `upload_blob`: it commits by itself, so no digest could decide; it stores a body
that ends early without a word; and it joins small pieces in quadratic time.

The order of a commit, and what a crash leaves behind:

1. every block is stored            blocks that nobody can read, gone after seven days
2. size and digest are compared     the same
3. the list is committed, if absent the object, whole
"""

import hashlib
from types import TracebackType
from typing import Any, Final, Self

from anyio import Semaphore, create_task_group, to_thread
from anyio.abc import TaskGroup
from azure.core import MatchConditions
from azure.storage.blob import BlobBlock
from azure.storage.blob.aio import BlobClient

from secure_cache.model.digest import Digest
from secure_cache.model.errors import (
    AlreadyExists,
    DigestMismatch,
    SecureCacheError,
    StorageUnavailable,
)
from secure_cache.storage.azure_blob.budget import ByteBudget
from secure_cache.storage.azure_blob.container import NONCE_FIELD, Container
from secure_cache.storage.azure_blob.errors import AzureFault, Kind
from secure_cache.storage.azure_blob.options import MIB
from secure_cache.storage.azure_blob.writes import (
    block_id,
    new_nonce,
    peek,
    put_if_absent,
    write_once,
)
from secure_cache.storage.ports import Committed

BLOCK_BYTES: Final = 4 * MIB
SMALLEST_BLOCK_BYTES: Final = MIB // 4
_WINDOW: Final = 3
_OLD_SECONDS: Final = 2.0
_HASHED_AT_ONCE: Final = 64 * 1024
# Azure takes 50 000 blocks a blob. What remains of them after this many is kept for full ones.
_SMALL_BLOCKS: Final = 40_000


class AzureUpload:
    """An Upload, and the context manager that begins and ends it.

    A body smaller than a block becomes one Put Blob at `commit`. A larger one is staged in
    blocks, up to three of them under way while the next one fills. Memory comes from the budget
    of all uploads, 256 KiB at a time: when there is no more, the block is sent as it is and
    waited for, and so is one that fills too slowly. Nobody waits for another client.
    """

    def __init__(self, container: Container, name: str, *, budget: ByteBudget) -> None:
        self._container = container
        self._name = name
        self._budget = budget
        self._nonce = new_nonce()
        self._blocks: list[str] = []
        self._buffer = bytearray()
        self._reserved = 0
        self._begun_at = 0.0
        self._hash = hashlib.sha256()
        self._written = 0
        self._places = Semaphore(_WINDOW)
        self._failure: SecureCacheError | None = None
        self._blob: BlobClient
        self._tasks: TaskGroup

    async def __aenter__(self) -> Self:
        self._blob = self._container.blob(self._name)
        self._tasks = await create_task_group().__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Blocks under way are of no use to anybody any more; after a commit there are none.
        self._tasks.cancel_scope.cancel()
        try:
            await self._tasks.__aexit__(None, None, None)
        finally:
            self._buffer = bytearray()
            self._budget.give_back(self._reserved)
            self._reserved = 0

    async def write(self, data: bytes) -> None:
        """Raises: StorageUnavailable, StorageForbidden, AlreadyExists, Overloaded; also for what
        an earlier call gave."""
        self._raise_failure()
        view = memoryview(data)
        while view:
            room = self._room()
            if not room:
                # No memory for more: hold nothing but one small block from now on.
                await self._send_block(drain=len(self._buffer) < BLOCK_BYTES)
                continue
            if not self._buffer:
                self._begun_at = self._container.calls.timing.monotonic()
            self._buffer += view[:room]
            view = view[room:]
        if self._is_old():
            await self._send_block(drain=False)

    async def commit(self, *, size: int, digest: Digest | None = None) -> Committed:
        self._raise_failure()
        try:
            if not self._blocks:
                return await self._commit_small(size, digest)
            return await self._commit_blocks(size, digest)
        except SecureCacheError as error:
            # Part of the body may be hashed and not staged: nothing may be committed any more.
            self._failure = error
            raise

    async def _commit_small(self, size: int, digest: Digest | None) -> Committed:
        data = await self._take_hashed()
        written = self._verified(size, digest)
        return Committed(
            await put_if_absent(self._container, self._name, self._blob, data), written
        )

    async def _commit_blocks(self, size: int, digest: Digest | None) -> Committed:
        if self._buffer:
            await self._send_block(drain=True)
        await self._drain()
        written = self._verified(size, digest)
        blocks = [BlobBlock(block_id=block) for block in self._blocks]

        async def request() -> dict[str, Any]:
            return await self._blob.commit_block_list(
                blocks,
                match_condition=MatchConditions.IfMissing,
                metadata={NONCE_FIELD: self._nonce},
            )

        info = await write_once(
            self._container,
            "commit",
            self._name,
            self._blob,
            nonce=self._nonce,
            size=size,
            request=request,
        )
        return Committed(info, written)

    def _room(self) -> int:
        """How many bytes more the block may take; 0 when it is to be sent.

        Raises: Overloaded.
        """
        filled = len(self._buffer)
        if filled < self._reserved:
            return self._reserved - filled
        if filled >= BLOCK_BYTES:
            return 0
        if not self._reserved or len(self._blocks) >= _SMALL_BLOCKS:
            self._budget.take_needed(SMALLEST_BLOCK_BYTES)
        elif not self._budget.try_take(SMALLEST_BLOCK_BYTES):
            return 0
        self._reserved += SMALLEST_BLOCK_BYTES
        return SMALLEST_BLOCK_BYTES

    def _is_old(self) -> bool:
        """A client that sends slowly does not hold a large block for long."""
        return (
            len(self._buffer) >= SMALLEST_BLOCK_BYTES
            and len(self._blocks) < _SMALL_BLOCKS
            and self._container.calls.timing.monotonic() - self._begun_at > _OLD_SECONDS
        )

    async def _take_hashed(self) -> bytes:
        data, self._buffer = bytes(self._buffer), bytearray()
        if len(data) > _HASHED_AT_ONCE:
            await to_thread.run_sync(self._hash.update, data)
        else:
            self._hash.update(data)
        self._written += len(data)
        return data

    async def _send_block(self, *, drain: bool) -> None:
        reserved, self._reserved = self._reserved, 0
        try:
            data = await self._take_hashed()
            await self._places.acquire()
        except BaseException:
            # What was taken is neither stored nor in the buffer any more.
            self._failure = StorageUnavailable(f"{self._name}: a write was given up")
            self._failure.applied = False
            self._budget.give_back(reserved)
            raise
        block = block_id(self._nonce, len(self._blocks))
        self._blocks.append(block)
        self._tasks.start_soon(self._stage, block, data, reserved)
        del data
        if drain:
            await self._drain()
        self._raise_failure()

    async def _stage(self, block: str, data: bytes, reserved: int) -> None:
        async def request() -> None:
            await self._blob.stage_block(block, data, length=len(data), validate_content="crc64")

        calls = self._container.calls
        try:
            await calls.run("block", calls.patience.write, request)
        except AzureFault as fault:
            self._failure = await self._stage_failure(fault)
        finally:
            self._budget.give_back(reserved)
            self._places.release()

    async def _stage_failure(self, fault: AzureFault) -> SecureCacheError:
        lost = fault.kind is Kind.BLOCKS_LOST
        if lost and (await peek(self._container, self._name, self._blob)).info is not None:
            return AlreadyExists(f"block {self._name}: {fault.detail}")
        return fault.public("block", self._name)

    async def _drain(self) -> None:
        """Wait until no block is under way, and raise what any of them met."""
        for _ in range(_WINDOW):
            await self._places.acquire()
        for _ in range(_WINDOW):
            self._places.release()
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _verified(self, size: int, digest: Digest | None) -> Digest:
        written = Digest(self._hash.digest())
        if self._written != size:
            raise DigestMismatch(f"{self._name}: {self._written} bytes instead of {size}")
        if digest is not None and digest != written:
            raise DigestMismatch(f"{self._name}: sha256 {written} instead of {digest}")
        return written
