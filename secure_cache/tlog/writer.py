"""Group commit: leaves become durable in batches, one batch in flight.

While one batch is being written the next collects, so that the number of writes follows the
speed of the store and not the number of callers.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import anyio

from secure_cache.model.clock import Clock
from secure_cache.model.errors import (
    AlreadyExists,
    LogInconsistent,
    Malformed,
    NotFound,
    Overloaded,
    SecureCacheError,
    StorageUnavailable,
)
from secure_cache.storage.ports import ObjectStore
from secure_cache.tlog.pending import (
    MAX_BATCH_BYTES,
    MAX_BATCH_ENTRIES,
    BatchName,
    boot_id,
    encode_batch,
)
from secure_cache.tlog.ports import Logged
from secure_cache.tlog.tiles import MAX_ENTRY_BYTES

BOOT_IDLE_SECONDS = 6 * 3600
"""A boot that was idle for longer is not used again. The sequencer forgets idle boots, but not
before four times this time, and would take a batch of a forgotten boot for one with a gap."""

_RETRY_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterLimits:
    """Bounds.

    Attributes:
        batch_entries: at most so many entries to a batch.
        batch_bytes: and so many bytes, the last entry may go over.
        waiting_entries: above this the writer says that it is overloaded.
        waiting_bytes: the same for bytes.
        resolve_seconds: how long an unknown outcome is tried again before callers are told
            that nobody knows.
    """

    batch_entries: int = 256
    batch_bytes: int = 1024 * 1024
    waiting_entries: int = 4096
    waiting_bytes: int = 16 * 1024 * 1024
    resolve_seconds: float = 10.0

    def __post_init__(self) -> None:
        if not 0 < self.batch_entries <= MAX_BATCH_ENTRIES:
            raise ValueError("batch_entries is out of range")
        if not 0 < self.batch_bytes < MAX_BATCH_BYTES - MAX_ENTRY_BYTES - 2 * self.batch_entries:
            raise ValueError("batch_bytes is out of range")


@dataclass(slots=True)
class _Batch:
    leaves: list[bytes] = field(default_factory=list)
    size: int = 0
    done: anyio.Event = field(default_factory=anyio.Event)
    name: str = ""
    error: SecureCacheError | None = None


class PendingWriter:
    """Implements `ports.Log` while its `run` is running.

    Attributes:
        gap_seconds: at least so long from the start of one batch to that of the next; whoever
            sees how busy the log is may change it at any time. An idle writer does not wait.

    Args:
        store: the log's `pending` store.
        clock: wall time.
        random_bytes: such as `os.urandom`; it alone keeps two boots from meeting.
        pause: such as `anyio.sleep`.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        clock: Clock,
        random_bytes: Callable[[int], bytes],
        pause: Callable[[float], Awaitable[None]] = anyio.sleep,
        limits: WriterLimits | None = None,
        on_written: Callable[[BatchName, int], None] = lambda _name, _count: None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._random_bytes = random_bytes
        self._pause = pause
        self._limits = WriterLimits() if limits is None else limits
        self._on_written = on_written
        self._waiting: deque[_Batch] = deque()
        self._entries = 0
        self._bytes = 0
        self._wake = anyio.Event()
        self._idle = anyio.Event()
        self._idle.set()
        self._is_open = False
        self._opened = anyio.Event()
        self._boot = ""
        self._sequence = 0
        self._used_at = 0.0
        self._wrote_at = 0.0
        self.gap_seconds = 0.0

    @property
    def waiting(self) -> int:
        """Entries that are not durable yet."""
        return self._entries

    async def append(self, leaf: bytes) -> Logged:
        """Return once the leaf is durable. A caller that is cancelled may yet be logged.

        Raises: as `ports.Log.append`.
        """
        if not 0 < len(leaf) <= MAX_ENTRY_BYTES:
            raise Malformed("an entry of the log has 1 to 65 535 bytes")
        batch, position = self._enqueue(leaf)
        await batch.done.wait()
        if batch.error is not None:
            raise _again(batch.error)
        return Logged(batch.name, position)

    async def run(self) -> None:
        """Write batches until cancelled. Runs once, as a task of whoever owns the log."""
        self._is_open = True
        self._opened.set()
        try:
            while True:
                while not self._waiting:
                    self._idle.set()
                    self._wake = anyio.Event()
                    await self._wake.wait()
                await self._keep_gap()
                await self._write_next(self._waiting.popleft())
        finally:
            self._is_open = False
            self._abandon()

    async def _keep_gap(self) -> None:
        """Let one batch collect for as long as the gap says, unless it is full already."""
        wait = self._wrote_at + self.gap_seconds - anyio.current_time()
        if wait > 0 and len(self._waiting) == 1:
            await self._pause(wait)
        self._wrote_at = anyio.current_time()

    async def started(self) -> None:
        """Wait until `run` takes entries."""
        await self._opened.wait()

    async def drain(self) -> None:
        """Wait until everything that was appended so far is durable, or has failed."""
        await self._idle.wait()

    def _enqueue(self, leaf: bytes) -> tuple[_Batch, int]:
        limits = self._limits
        if not self._is_open:
            raise _unavailable("the log's writer is not running", applied=False)
        if self._entries >= limits.waiting_entries or self._bytes >= limits.waiting_bytes:
            raise Overloaded(f"{self._entries} entries wait to be written to the log")
        batch = self._waiting[-1] if self._waiting else None
        if (
            batch is None
            or len(batch.leaves) >= limits.batch_entries
            or batch.size >= limits.batch_bytes
        ):
            batch = _Batch()
            self._waiting.append(batch)
        batch.leaves.append(leaf)
        batch.size += len(leaf)
        self._entries += 1
        self._bytes += len(leaf)
        self._idle = anyio.Event() if self._idle.is_set() else self._idle
        self._wake.set()
        return batch, len(batch.leaves) - 1

    async def _write_next(self, batch: _Batch) -> None:
        """1 name the batch, 2 make it durable, 3 tell the callers.

        A crash after 2 leaves a batch that nobody was told of and that is logged all the same:
        harmless. After any failure the boot is given up, because its next number must not
        follow one that may be missing: the sequencer waits at a gap for ever.
        """
        name = self._next_name()
        try:
            await self._create(str(name), encode_batch(batch.leaves))
        except SecureCacheError as error:
            self._boot = ""
            batch.error = error
        except BaseException:
            self._boot = ""
            batch.error = _unavailable("the log's writer was stopped", applied=None)
            raise
        else:
            batch.name = str(name)
            self._on_written(name, len(batch.leaves))
        finally:
            self._entries -= len(batch.leaves)
            self._bytes -= batch.size
            batch.done.set()

    def _next_name(self) -> BatchName:
        now = self._clock()
        if not self._boot or abs(now - self._used_at) > BOOT_IDLE_SECONDS:
            self._boot, self._sequence = boot_id(now, self._random_bytes), 0
        self._sequence += 1
        self._used_at = now
        return BatchName(self._boot, self._sequence)

    async def _create(self, name: str, data: bytes) -> None:
        """Create, and repeat the same name and bytes while nobody knows whether it is there."""
        give_up = anyio.current_time() + self._limits.resolve_seconds
        while not await self._try_create(name, data, is_last=anyio.current_time() >= give_up):
            await self._pause(_RETRY_SECONDS)
        if abs(self._clock() - self._used_at) > BOOT_IDLE_SECONDS:
            # The machine slept in the middle. The boot may be forgotten by now.
            raise _unavailable("writing to the log took hours", applied=None)

    async def _try_create(self, name: str, data: bytes, *, is_last: bool) -> bool:
        try:
            await self._store.create(name, data)
        except AlreadyExists:
            return await self._is_ours(name, data)
        except StorageUnavailable as error:
            if error.applied is False or is_last:
                raise
            return False
        return True

    async def _is_ours(self, name: str, data: bytes) -> bool:
        try:
            stored = await self._store.get(name, max_bytes=MAX_BATCH_BYTES)
        except NotFound:
            # Applied, sequenced and swept between two of our looks. Creating it once more is
            # ignored by every sequencer, and tells us for certain.
            return False
        if stored.data != data:
            raise LogInconsistent(f"{name} holds what this process did not write")
        return True

    def _abandon(self) -> None:
        for batch in self._waiting:
            batch.error = _unavailable("the log's writer has stopped", applied=False)
            batch.done.set()
        self._waiting.clear()
        self._entries = self._bytes = 0
        self._idle.set()


def _unavailable(message: str, *, applied: bool | None) -> StorageUnavailable:
    error = StorageUnavailable(message)
    error.applied = applied
    return error


def _again(error: SecureCacheError) -> SecureCacheError:
    """An error of its own for each caller: a traceback must not be shared between tasks."""
    if isinstance(error, StorageUnavailable):
        copy: SecureCacheError = _unavailable(str(error), applied=error.applied)
    else:
        copy = type(error)(*error.args)
    copy.__cause__ = error
    return copy
