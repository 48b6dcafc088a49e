"""Gives pending batches their place in the log. Any replica may, at any time.

One pass, in this order, with what a crash after each step leaves behind:

    S1  read the checkpoint, then the head (nothing)
    S2  if the head is ahead of the checkpoint, do S6 to S8 for it first, whoever committed it
    S3  read pending batches: of each boot those that follow the last consumed, without a gap
    S4  load the right edge, prove it by the root, append, compute the new root (nothing)
    S5  compare-and-swap the unsigned head: this is the commit (S2 of whoever comes next)
    S6  write tiles and bundles, then `commit/<size>` (the same)
    S7  prove that the new tree extends the published one, sign, bring it to the witnesses,
        compare-and-swap the checkpoint
    S8  beside the next pass: delete the consumed batches, and partial tiles whose full tile is
        there (garbage that every later pass ignores and sweeps)

Only S8 deletes, and only in the `pending` store: of `tiles` and `head` the storage itself may
promise that nothing ever disappears.

Never sign before the commit: with two replicas that signs forks. Never commit k+1 before k is
published: its tiles could be missing for ever. A batch is consumed in the same swap that
assigns its indexes, so repeated, late or twice applied requests neither lose nor repeat it.

After any error all cached state is dropped, and nothing is sequenced before the self-check has
passed: a log died of going on with a stale state after a failed reload (Azul "Raio", 2025).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from anyio.to_thread import run_sync

from secure_cache.model.clock import Clock
from secure_cache.model.errors import (
    LogInconsistent,
    Malformed,
    NoQuorum,
    NotFound,
    StorageUnavailable,
)
from secure_cache.storage import layout
from secure_cache.storage.ports import ObjectStore
from secure_cache.tlog.backlog import AT_ONCE, Backlog, beside, together
from secure_cache.tlog.checkpoint import Checkpoint, sign_checkpoint
from secure_cache.tlog.commit import Growth, grow, verify_growth
from secure_cache.tlog.edge import Edge
from secure_cache.tlog.head import MAX_HEAD_BYTES, Batch, Head, Mark
from secure_cache.tlog.note import NoteSigner
from secure_cache.tlog.objects import put_immutable, rewrite, swap
from secure_cache.tlog.pending import BatchName
from secure_cache.tlog.ports import Unwitnessed, Witnessed
from secure_cache.tlog.publication import Publications
from secure_cache.tlog.reader import TileCache, TreeReader, store_fetch
from secure_cache.tlog.sweep import Sweeper
from secure_cache.tlog.tiles import FANOUT, encode_bundle, is_partial_path

_THREAD_FROM_ENTRIES = 64
"""From so many entries on, hashing takes milliseconds and leaves the event loop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SequencerLimits:
    """Bounds of one commit.

    Attributes:
        batches: at most so many.
        batch_bytes: and so many bytes in all.
        at_once: storage requests at the same time.
        forget_boot_seconds: how long a boot must have been idle before its mark is dropped.
    """

    batches: int = 1024
    batch_bytes: int = 8 * 1024 * 1024
    at_once: int = AT_ONCE
    forget_boot_seconds: int = 24 * 3600


@dataclass(frozen=True, slots=True)
class StoredHead:
    """The head and the version that a swap must find."""

    head: Head
    version: str


class Sequencer:
    """One replica's sequencer. Its passes must not overlap each other; those of replicas may.

    After a pass, `is_behind` says that the limits of a commit left ready batches to the next.

    Args:
        tiles: where full tiles and bundles and commit copies go.
        head: where head and checkpoint are.
        pending: where pending batches are, and partial tiles and bundles go.
        signer: the log's key; its name is the log's origin.
        clock: wall time, for marks only.
        new_nonce: 128 random bits as hex, unique to each commit.
        publications: what this process knows of the checkpoint.
        witnesses: whom a signed checkpoint is shown before it is published.
        cache: verified tiles.
        rewrite_equal: for file systems, see `objects.put_immutable`.
        fanout: 256.
        on_commit: told of each commit that this replica has finished.
    """

    def __init__(
        self,
        *,
        tiles: ObjectStore,
        head: ObjectStore,
        pending: ObjectStore,
        signer: NoteSigner,
        clock: Clock,
        new_nonce: Callable[[], str],
        publications: Publications | None = None,
        witnesses: Witnessed | None = None,
        cache: TileCache | None = None,
        limits: SequencerLimits | None = None,
        rewrite_equal: bool = False,
        fanout: int = FANOUT,
        on_commit: Callable[[Head], None] = lambda _: None,
    ) -> None:
        self._tiles = tiles
        self._head = head
        self._pending = pending
        self._fetch = store_fetch(tiles, pending)
        self._signer = signer
        self._clock = clock
        self._new_nonce = new_nonce
        self._publications = publications or Publications(
            head, [signer.verifier], origin=signer.name
        )
        self._witnesses = witnesses or Unwitnessed()
        self._cache = TileCache() if cache is None else cache
        self._limits = limits or SequencerLimits()
        self._backlog = Backlog(
            pending,
            max_batches=self._limits.batches,
            max_bytes=self._limits.batch_bytes,
            at_once=self._limits.at_once,
        )
        self._sweeper = Sweeper(pending, at_once=self._limits.at_once)
        self._rewrite_equal = rewrite_equal
        self._fanout = fanout
        self._on_commit = on_commit
        self._is_checked = False
        self._ready: tuple[Checkpoint, Edge, bytes] | None = None
        self._written: tuple[Head, Growth] | None = None
        self._newest_head = 0
        self.is_behind = False

    async def step(self) -> bool:
        """One pass. True when it found something to do, so that there may be more.

        Raises:
            LogInconsistent: what is stored contradicts itself or its signatures.
            StorageForbidden: the store refused our identity.
            Misconfigured, CorruptObject: the store is gone, or not one of ours.
            Unavailable: store or signer did not answer; a later pass goes on from there.
            NoQuorum: the same, of witnesses; what is appended meanwhile waits.
        """
        try:
            if not self._is_checked:
                await self.check()
            return await self._step_and_sweep()
        except NoQuorum:
            # Nothing that was read or written is in doubt: S7 alone is tried again.
            raise
        except Malformed as error:
            self._forget()
            raise LogInconsistent("something stored in the log is not well formed") from error
        except StorageUnavailable:
            # Batches never change: those that were read are as good as new.
            self._forget()
            raise
        except BaseException:
            self._forget()
            self._backlog.forget()
            raise

    async def check(self) -> None:
        """The self-check at start and after every error.

        Signature, origin and key of the checkpoint; the head not behind it; equal sizes with
        equal roots; the right edge under the root; the last bundle under its leaf hashes; no
        commit beyond the head.

        Raises: as `step`.
        """
        published = (await self._publications.read()).checkpoint
        stored = await self._read_head(published)
        reader = self._reader(published)
        await reader.edge()
        if published.size:
            await reader.bundle((published.size - 1) // self._fanout)
        if self._must_help(published, stored.head) and stored.head.previous() != published:
            await self._expect_progress(published, "the head does not follow the checkpoint")
        await self._check_commits(published, stored.head)
        self._is_checked = True

    async def _check_commits(self, published: Checkpoint, head: Head) -> None:
        """No commit's copy is beyond the head: both head and checkpoint were not rolled back."""
        async for info in self._tiles.list(
            layout.COMMIT_PREFIX, start_after=layout.commit(head.size)
        ):
            now = await self._read_head(published)
            if info.name > layout.commit(now.head.size):
                raise LogInconsistent(f"the head was rolled back: {info.name} exists")
            return

    async def _step_and_sweep(self) -> bool:
        """Sweep behind the last pass beside this one: deleting takes as long as all the rest."""
        has_more = await beside(self._step, self._sweeper.sweep)
        if not has_more and self._sweeper:
            await self._sweeper.sweep()
        self._sweeper.raise_trouble()
        return has_more

    async def _step(self) -> bool:
        published = (await self._publications.read()).checkpoint
        stored = await self._read_head(published)
        if self._must_help(published, stored.head):
            return await self._help(published, stored)
        looked_at = int(self._clock())
        waiting = await self._backlog.look(stored.head)
        self.is_behind = waiting.of > len(waiting.ready)
        self._sweeper.add_batches(waiting.spent)
        if not waiting.ready:
            return False
        try:
            batches = await self._backlog.read(waiting.ready)
        except NotFound:
            return await self._expect_progress(published, "an acknowledged batch is missing")
        edge, tail = await self._edge(published)
        growth = await self._grow(edge, tail, [leaf for _, leaves in batches for leaf in leaves])
        new = self._next_head(stored.head, batches, growth)
        # A boot of which anything was pending keeps its mark, or a late re-creation of its first
        # batch would be logged again.
        new.forget_idle_boots(looked_at - self._limits.forget_boot_seconds, but=waiting.boots)
        if not await self._commit(stored, new, growth):
            return True
        complete = partial(self._complete, new, growth)
        if len(batches) < self._limits.at_once:
            await complete()
        else:
            await beside(complete, partial(self._backlog.fetch_ahead, new))
        return True

    def _must_help(self, published: Checkpoint, head: Head) -> bool:
        return published.size < head.size

    async def _help(self, published: Checkpoint, stored: StoredHead) -> bool:
        """Finish a commit that another replica, or we before a crash, have made."""
        head = stored.head
        if head.previous() != published:
            return await self._expect_progress(published, "the head does not follow the checkpoint")
        if self._written is not None and self._written[0] == head:
            await self._finish(*self._written)
            return True
        try:
            batches = await self._backlog.read([BatchName.parse(b.name) for b in head.batches])
        except NotFound:
            return await self._expect_progress(published, "a committed batch is missing")
        edge, tail = await self._edge(published)
        growth = await self._grow(edge, tail, [leaf for _, leaves in batches for leaf in leaves])
        counts = tuple(Batch(str(name), len(leaves)) for name, leaves in batches)
        if growth.root != head.root or counts != head.batches:
            raise LogInconsistent(f"the batches of commit {head.size} do not lead to its root")
        if self._rewrite_equal and not await rewrite(
            self._head, layout.HEAD, head.encode(), version=stored.version
        ):
            return True
        await self._complete(head, growth)
        return True

    async def _commit(self, stored: StoredHead, new: Head, growth: Growth) -> bool:
        """S5. False when another replica committed first."""
        del growth
        return await swap(self._head, layout.HEAD, new.encode(), expected=stored.version)

    async def _complete(self, head: Head, growth: Growth) -> None:
        """S6 to S8, for a head that is committed."""
        await self._write_objects(growth)
        await put_immutable(
            self._tiles,
            layout.commit(head.size),
            head.encode(),
            rewrite_equal=self._rewrite_equal,
        )
        self._written = (head, growth)
        await self._finish(head, growth)

    async def _finish(self, head: Head, growth: Growth) -> None:
        """S7 and S8, for a head whose tiles are written."""
        await self._publish(head, growth)
        self._written = None
        self._ready = (head.checkpoint(), growth.after, growth.tail)
        self._on_commit(head)
        self._sweeper.add_batches(BatchName.parse(batch.name) for batch in head.batches)
        self._sweeper.add_partials(growth)

    async def _write_objects(self, growth: Growth) -> None:
        rewrite = self._rewrite_equal
        await together(
            [
                partial(put_immutable, self._store_of(name), name, data, rewrite_equal=rewrite)
                for name, data in growth.objects
            ],
            at_once=self._limits.at_once,
        )

    def _store_of(self, path: str) -> ObjectStore:
        return self._pending if is_partial_path(path) else self._tiles

    async def _publish(self, head: Head, growth: Growth) -> None:
        """S7. The checkpoint only ever grows, and only from what the head was built on."""
        new, note = head.checkpoint(), b""
        while True:
            current = await self._publications.read()
            if current.checkpoint.size > new.size or current.checkpoint == new:
                return
            if current.checkpoint != head.previous():
                raise LogInconsistent("the published checkpoint is not what the head extends")
            verify_growth(growth, current.checkpoint, new)
            note = note or await self._signed(new)
            await swap(self._head, layout.CHECKPOINT, note, expected=current.version)

    async def _signed(self, new: Checkpoint) -> bytes:
        """Witnesses see it only once it is committed and can never be another."""
        note = await sign_checkpoint(new, self._signer)
        tree = self._reader(new)
        return await self._witnesses.before_publishing(new, note, tree.consistency_proof)

    async def _expect_progress(self, published: Checkpoint, problem: str) -> bool:
        """What we saw is explained if another replica has published meanwhile, else it is not."""
        now = await self._publications.read()
        if now.checkpoint == published:
            raise LogInconsistent(problem)
        return True

    async def _read_head(self, published: Checkpoint) -> StoredHead:
        """The head, which is never behind a checkpoint that was read before it."""
        try:
            stored = await self._head.get(layout.HEAD, max_bytes=MAX_HEAD_BYTES)
        except NotFound as error:
            raise LogInconsistent("the log has no head") from error
        head = Head.decode(stored.data, origin=self._signer.name)
        if head.size < max(published.size, self._newest_head):
            raise LogInconsistent(
                f"the head went back to {head.size} entries, {published.size} are signed"
            )
        if head.size == published.size and head.root != published.root:
            raise LogInconsistent(f"head and checkpoint differ at {head.size} entries")
        self._newest_head = head.size
        return StoredHead(head, stored.info.version)

    async def _edge(self, published: Checkpoint) -> tuple[Edge, bytes]:
        """The right edge and the last partial bundle of the published tree."""
        if self._ready is not None and self._ready[0] == published:
            return self._ready[1], self._ready[2]
        reader = self._reader(published)
        edge = await reader.edge()
        is_partial = published.size % self._fanout
        entries = await reader.bundle(published.size // self._fanout) if is_partial else ()
        return edge, encode_bundle(entries)

    async def _grow(self, edge: Edge, tail: bytes, leaves: Sequence[bytes]) -> Growth:
        if len(leaves) < _THREAD_FROM_ENTRIES:
            return grow(edge, tail, leaves)
        return await run_sync(grow, edge, tail, leaves)

    def _next_head(
        self,
        head: Head,
        batches: Iterable[tuple[BatchName, tuple[bytes, ...]]],
        growth: Growth,
    ) -> Head:
        now = int(self._clock())
        taken = [(name, len(leaves)) for name, leaves in batches]
        return Head(
            origin=head.origin,
            size=growth.after.size,
            root=growth.root,
            prev_size=head.size,
            prev_root=head.root,
            batches=tuple(Batch(str(name), count) for name, count in taken),
            consumed=head.consumed | {name.boot: Mark(name.sequence, now) for name, _ in taken},
            commit=self._new_nonce(),
            at=now,
        )

    def _reader(self, checkpoint: Checkpoint) -> TreeReader:
        return TreeReader(self._fetch, checkpoint, cache=self._cache, fanout=self._fanout)

    def _forget(self) -> None:
        self._is_checked = False
        self._ready = None
        self._written = None
        self._cache.clear()
