"""The log of one process: appends, sequences as an owned task, answers from what is published.

Several processes, on one machine or on many, each run one over the same stores.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio

from secure_cache.model.clock import Clock, system_clock
from secure_cache.model.errors import (
    Broken,
    LogInconsistent,
    Misconfigured,
    NotFound,
    Overloaded,
    Unavailable,
)
from secure_cache.storage import layout
from secure_cache.storage.ports import ObjectStore, Turn
from secure_cache.tlog.commits import CommitIndex
from secure_cache.tlog.create import create_log
from secure_cache.tlog.head import MAX_HEAD_BYTES, Head
from secure_cache.tlog.note import NoteSigner
from secure_cache.tlog.pending import BatchName
from secure_cache.tlog.ports import Logged, Unwitnessed, Witnessed
from secure_cache.tlog.publication import Publications
from secure_cache.tlog.published import LogReader
from secure_cache.tlog.reader import TileCache
from secure_cache.tlog.sequencer import Sequencer, SequencerLimits
from secure_cache.tlog.writer import PendingWriter, WriterLimits

__all__ = ["LogOptions", "LogService", "Tell", "create_log"]

_KEEP_SECONDS = 1.0
_LONGEST_PASS_SECONDS = 60.0
_OVERDUE_SECONDS = 30.0
_MANY_BATCHES = 128
"""Of one commit, which is about one second: so many are read and deleted with ease."""

Tell = Callable[[str, Mapping[str, object]], None]
"""Told of what happens, for the operator's log and metrics: `log.committed`,
`log.unavailable`, `log.faulted`, `log.recovered`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """How a process sequences.

    Attributes:
        commit_seconds: at least so long between two commits of this process, so that partial
            tiles stay few.
        poll_seconds: how often to look for batches that other processes left behind.
        spread: of both, the part that is left to chance, from 0 to 1: replicas that were started
            or fell behind together shall not ask the store together for ever.
        max_gap_seconds: how far this process may space its batches when all processes together
            write more of them than a commit takes in with ease. An append waits so long at most,
            and half of it on average. For stores where each request takes long and costs money.
        flush_seconds: how long a stopping process tries to bring its entries into the tree.
        max_owed: entries of this process that are durable but not in the tree; above it the
            log is overloaded.
        rewrite_equal: for file systems, see `objects.put_immutable`.
    """

    commit_seconds: float = 0.1
    poll_seconds: float = 2.0
    spread: float = 0.0
    max_gap_seconds: float = 0.0
    flush_seconds: float = 10.0
    max_owed: int = 65_536
    rewrite_equal: bool = False
    writer: WriterLimits = field(default_factory=WriterLimits)
    sequencer: SequencerLimits = field(default_factory=SequencerLimits)


class LogService(LogReader):
    """Implements `ports.Log` and `ports.PublishedLog`.

    Appending works only inside `running()`. Reading works always.

    Args:
        tiles: where full tiles and bundles and commit copies are. Nothing is deleted there.
        head: where head and checkpoint are. The same.
        pending: where pending batches and partial tiles and bundles are.
        signer: the log's key. Its name is the log's origin.
        turn: says which of several processes should sequence. A hint: without it, all do.
        witnesses: who sees each checkpoint.
        options: how to sequence.
        tell: told of what happens.
        clock: wall time.
        random_bytes: for boot ids and nonces.
        pause: sleeps.
    """

    def __init__(
        self,
        *,
        tiles: ObjectStore,
        head: ObjectStore,
        pending: ObjectStore,
        signer: NoteSigner,
        turn: Turn,
        witnesses: Witnessed | None = None,
        options: LogOptions | None = None,
        tell: Tell = lambda _event, _facts: None,
        clock: Clock = system_clock,
        random_bytes: Callable[[int], bytes] = os.urandom,
        pause: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self._options = LogOptions() if options is None else options
        publications = Publications(head, [signer.verifier], origin=signer.name)
        commits = CommitIndex(tiles, origin=signer.name)
        cache = TileCache()
        super().__init__(
            tiles=tiles,
            head=head,
            pending=pending,
            verifiers=[signer.verifier],
            origin=signer.name,
            publications=publications,
            cache=cache,
            commits=commits,
        )
        self._head = head
        self._origin = signer.name
        self._turn = turn
        self._witnesses = witnesses or Unwitnessed()
        self._tell = tell
        self._pause = pause
        self._random_bytes = random_bytes
        self._writer = PendingWriter(
            pending,
            clock=clock,
            random_bytes=random_bytes,
            pause=pause,
            limits=self._options.writer,
            on_written=self._owe,
        )
        self._sequencer = Sequencer(
            tiles=tiles,
            head=head,
            pending=pending,
            signer=signer,
            clock=clock,
            new_nonce=lambda: random_bytes(16).hex(),
            publications=publications,
            witnesses=self._witnesses,
            cache=cache,
            limits=self._options.sequencer,
            rewrite_equal=self._options.rewrite_equal,
            on_commit=self._committed,
        )
        self._commit_index = commits
        self._passing = anyio.Lock()
        self._step_began = 0.0
        self._wake = anyio.Event()
        self._owed: dict[BatchName, int] = {}
        self._owed_entries = 0
        self._settled_at = 0.0
        self._has_turn = False
        self._seen = ""
        self._fault: Broken | Misconfigured | None = None

    @property
    def owed(self) -> int:
        """Entries that this process acknowledged and that are not in the tree yet."""
        return self._owed_entries

    @property
    def fault(self) -> Broken | Misconfigured | None:
        """Why the log takes nothing at the moment; None when all is well."""
        return self._fault

    async def append(self, leaf: bytes) -> Logged:
        """Raises: as `ports.Log.append`."""
        if self._fault is not None:
            raise LogInconsistent("the log failed its self-check") from self._fault
        if self.owed >= self._options.max_owed:
            raise Overloaded(f"{self.owed} entries wait for their place in the log")
        return await self._writer.append(leaf)

    async def check(self) -> None:
        """The self-check; a server that does not pass it must not start.

        Raises: LogInconsistent, StorageForbidden, StorageUnavailable.
        """
        async with self._passing:
            await self._sequencer.check()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run beside the body; at its end bring what is pending into the tree, within bounds.

        What is still pending then is durable, and whoever runs next sequences it.
        """
        failed: Exception | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(self.run)
            await self._writer.started()
            try:
                yield
                await self._flush_at_end()
            except Exception as error:  # noqa: BLE001 - raised below, where no group wraps it
                failed = error
            finally:
                group.cancel_scope.cancel()
        if failed is not None:
            raise failed

    async def run(self) -> None:
        """Write and sequence until cancelled."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._writer.run)
            group.start_soon(self._keep_turn)
            while True:
                wait = self._options.commit_seconds if self._owed else self._options.poll_seconds
                with anyio.move_on_after(self._spread(wait)):
                    await self._wake.wait()
                self._wake = anyio.Event()
                await self._round()

    def _spread(self, seconds: float) -> float:
        chance = int.from_bytes(self._random_bytes(2)) / 65_536
        return seconds * (1 + self._options.spread * (chance - 0.5))

    async def flush(self, seconds: float | None = None) -> bool:
        """Bring into the tree all that was appended; False when time ran out.

        Raises: Unavailable, LogInconsistent, StorageForbidden.
        """
        limit = self._options.flush_seconds if seconds is None else seconds
        with anyio.move_on_after(limit) as scope:
            await self._writer.drain()
            await self._witnesses.check()
            while await self._pass():
                pass
            await self._settle()
        return not scope.cancelled_caught

    async def _round(self) -> None:
        try:
            await self._witnesses.check()
            if await self._turn.try_take():
                self._has_turn = True
                try:
                    while await self._pass() and self._has_turn:
                        await self._pause(self._until_next_commit())
                finally:
                    self._has_turn = False
                    with anyio.CancelScope(shield=True):
                        await self._turn.give_back()
            else:
                if self._is_overdue():
                    await self._pass()
                await self._pause(self._options.commit_seconds)
            await self._settle()
        except (Broken, Misconfigured) as error:
            # Misconfigured: a container that somebody has deleted. Look-ups must go on: a server
            # that ends is a red build.
            self._fault = error
            self._tell("log.faulted", {"code": error.code, "why": str(error)})
            await self._pause(self._options.poll_seconds)
        except Unavailable as error:
            self._tell("log.unavailable", {"code": error.code, "why": str(error)})
            self._writer.gap_seconds = self._longer(self._writer.gap_seconds, 2.0)
            await self._pause(self._options.commit_seconds)
        else:
            if self._fault is not None:
                self._fault = None
                self._tell("log.recovered", {})

    def _is_overdue(self) -> bool:
        """Whoever has the turn brings nothing of ours into the tree. It is a hint, no more."""
        waited = anyio.current_time() - self._settled_at
        return bool(self._owed) and waited > _OVERDUE_SECONDS

    def _until_next_commit(self) -> float:
        if self._sequencer.is_behind:
            return 0.0
        gone = anyio.current_time() - self._step_began
        return max(0.0, self._spread(self._options.commit_seconds) - gone)

    async def _keep_turn(self) -> None:
        """Give signs of life while we sequence, but not for ever for a pass that hangs."""
        while True:
            await anyio.sleep(_KEEP_SECONDS)
            if not self._has_turn:
                continue
            if anyio.current_time() - self._step_began < _LONGEST_PASS_SECONDS:
                try:
                    self._has_turn &= await self._turn.keep()
                except (Broken, Misconfigured, Unavailable):
                    self._has_turn = False

    async def _pass(self) -> bool:
        async with self._passing:
            self._step_began = anyio.current_time()
            return await self._sequencer.step()

    async def _settle(self) -> None:
        """Strike out what is in the tree by now, whoever brought it there."""
        if not self._owed:
            return
        try:
            stored = await self._head.get(layout.HEAD, max_bytes=MAX_HEAD_BYTES)
        except NotFound as error:
            raise LogInconsistent("the log has no head") from error
        self._see(Head.decode(stored.data, origin=self._origin))

    def _see(self, head: Head) -> None:
        self._strike(head)
        if head.commit != self._seen:
            self._seen = head.commit
            self._writer.gap_seconds = self._gap_after(len(head.batches))

    def _gap_after(self, batches: int) -> float:
        """Many small batches cost the sequencer a request each: the busier all processes are
        together, the more each puts into one."""
        gap = self._writer.gap_seconds
        if batches > _MANY_BATCHES:
            return self._longer(gap, min(4.0, batches / _MANY_BATCHES))
        return max(0.0, 0.8 * gap - 0.001) if batches < _MANY_BATCHES / 2 else gap

    def _longer(self, gap: float, factor: float) -> float:
        return min((gap + 0.01) * factor, self._options.max_gap_seconds)

    def _strike(self, head: Head) -> None:
        done = [name for name in self._owed if name.sequence <= head.consumed_of(name.boot)]
        if done:
            self._settled_at = anyio.current_time()
        for name in done:
            self._owed_entries -= self._owed.pop(name)

    async def _flush_at_end(self) -> None:
        try:
            done = await self.flush()
        except (Unavailable, Broken, Misconfigured) as error:
            self._tell("log.unavailable", {"code": error.code, "why": str(error)})
        else:
            if not done:
                self._tell("log.unavailable", {"code": "flush", "why": "no time left"})

    def _owe(self, name: BatchName, count: int) -> None:
        if not self._owed:
            self._settled_at = anyio.current_time()
        self._owed[name] = count
        self._owed_entries += count
        self._wake.set()

    def _committed(self, head: Head) -> None:
        self._commit_index.add(head)
        self._see(head)
        facts = {
            "size": head.size,
            "entries": head.size - head.prev_size,
            "seconds": anyio.current_time() - self._step_began,
            "pending": self.owed,
        }
        self._tell("log.committed", facts)
