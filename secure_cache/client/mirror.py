"""Mirroring a log: everything is verified before it is kept, and nothing that is kept is trusted.

What a crash leaves is a mirror of the older checkpoint with some verified files more; the next
run goes on from there.
"""

import hashlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec

from secure_cache.client.log_folder import LogFolder
from secure_cache.client.mirror_entries import (
    Announced,
    Judgement,
    NotAnnouncedError,
    in_batches,
    judge_entries,
)
from secure_cache.client.mirror_folder import (
    EVIDENCE,
    KEYS,
    PINS,
    POLICIES,
    Pins,
    put,
    put_unless_same,
    writing_to,
)
from secure_cache.client.mirror_tree import Progress, remove_old_edge, take_tree
from secure_cache.model.errors import (
    CorruptObject,
    HistoryChanged,
    LogInconsistent,
    Misconfigured,
    NotFound,
)
from secure_cache.provenance.keys import KeyRing
from secure_cache.tlog.checkpoint import Checkpoint
from secure_cache.tlog.fetched import CHECKPOINT, Trust, advised, require_follows
from secure_cache.tlog.reader import Fetch, TreeReader

_WAITS = (1.0, 2.0, 4.0)


@dataclass(frozen=True, slots=True)
class Origin:
    """What is mirrored.

    Attributes:
        fetch: the log's files, unverified.
        trust: what proves its checkpoint.
        given_ring: the newest key ring as the place gives it, unverified.
        policy_text: a policy by its digest in hex, verified. Raises: NotFound, CorruptObject.
        keys: the entry keys, pinned; None: those that the log announces.
        remedy: what a person can do about a file that is damaged there.
    """

    fetch: Fetch
    trust: Trust
    given_ring: Callable[[], Awaitable[bytes]]
    policy_text: Callable[[str], Awaitable[bytes]]
    keys: KeyRing | None = None
    remedy: str | None = None


@dataclass(slots=True)
class Mirrored:
    """What a run has done.

    Attributes:
        checkpoint: what the mirror holds now.
        before: how many entries it held before.
        judgement: of the entries that are new, or that nobody was told of. Bad ones are kept too:
            as evidence.
        missing_policies: digests of policies whose text is not to be had, and why.
    """

    checkpoint: Checkpoint
    before: int
    judgement: Judgement
    missing_policies: dict[str, str] = field(default_factory=dict)


class Mirror:
    """A mirror's folder, while nobody else writes to it. Make one by `opened_mirror`."""

    def __init__(self, folder: Path, pins: Pins) -> None:
        self._folder = folder
        self._pins = pins
        self._files = LogFolder(folder)

    async def bring_up_to_date(
        self,
        origin: Origin,
        *,
        anew: bool = False,
        progress: Progress | None = None,
        waits: Sequence[float] = _WAITS,
    ) -> Mirrored:
        """Fetch what is new.

        1. the new checkpoint is signed, and leads on from the mirrored one; else both are kept
           as evidence and nothing is touched
        2. each bundle and tile is proved under its root, then written
        3. each statement is held to the keys that the log announced; rings and policies written
        4. that newer keys may count; then the checkpoint: what it speaks of is all there; then
           that they do count
        5. what only a checkpoint before the older one needed is removed

        Keys may be changed while this looks: then it looks again, for a newer checkpoint. In the
        end it goes by the keys that it is given, if the log ever announced them; whatever they
        did not sign is bad then, first of all the event that announces others.

        Args:
            origin: where from.
            anew: prove everything again, and fetch what is damaged.
            progress: told how far it is.
            waits: seconds before each further look.

        Raises:
            HistoryChanged, LogInconsistent: the log is not the one that was mirrored.
            Unavailable, Denied: the origin. StorageUnavailable: the disk here.
        """
        for seconds in waits:
            try:
                return await self._run(origin, anew, progress, newest_keys=True)
            except NotAnnouncedError:
                await anyio.sleep(seconds)
        try:
            return await self._run(origin, anew, progress, newest_keys=False)
        except NotAnnouncedError as error:
            raise LogInconsistent(str(error)) from error

    async def told(self) -> None:
        """What `Mirrored` says was told. Until then each run judges the same entries again, so that
        no death hides the bad ones. Raises: StorageUnavailable."""
        if self._pins.untold is not None:
            self._pins = msgspec.structs.replace(self._pins, untold=None)
            await self._put(PINS, self._pins.encode())

    async def _run(
        self,
        origin: Origin,
        anew: bool,  # noqa: FBT001 - handed on
        progress: Progress | None,
        *,
        newest_keys: bool,
    ) -> Mirrored:
        last = await self._last(origin.trust)
        with advised(origin.remedy):
            note = await self._published(origin, last)
            checkpoint = origin.trust.open(note)
        if last is not None:
            await self._hold_to(last, note, checkpoint, origin)
        before = 0 if last is None else origin.trust.open_last(last).size
        self._pins = msgspec.structs.replace(
            self._pins, keys_event=self._pins.keys_event_of(before), next_keys_event=None
        )
        start = 0 if anew else before
        untold = start if self._pins.untold is None else min(start, self._pins.untold)
        with advised(origin.remedy):
            await take_tree(self._folder, checkpoint, origin.fetch, start, progress)
        tree = TreeReader(self._files, checkpoint)
        announced, ring = await self._take_ring(tree, origin, start, newest=newest_keys)
        missing = await self._take_policies(announced, origin)
        tell = None if progress is None else partial(progress, "verifying")
        judgement = await judge_entries(tree, origin.keys or ring, untold, tell)
        coming = msgspec.structs.replace(
            self._pins.lacking(tuple(missing)), untold=untold if judgement.bad_count else None
        )
        await self._put(PINS, coming.encode())
        await self._put(CHECKPOINT, note)
        self._pins = msgspec.structs.replace(
            coming, keys_event=coming.next_keys_event, next_keys_event=None
        )
        await self._put(PINS, self._pins.encode())
        # Whoever reads here at this moment may still hold the older checkpoint.
        await anyio.to_thread.run_sync(remove_old_edge, self._folder, before, checkpoint.size)
        return Mirrored(checkpoint, before, judgement, missing)

    async def _published(self, origin: Origin, last: bytes | None) -> bytes:
        try:
            return await origin.fetch(CHECKPOINT)
        except NotFound as error:
            if last is None:
                raise Misconfigured(f"there is no log: {error}") from error
            raise LogInconsistent(f"the log has no checkpoint any more: {error}") from error

    async def _last(self, trust: Trust) -> bytes | None:
        try:
            note = await self._files(CHECKPOINT)
        except NotFound as error:
            if self._pins.finished:
                # Without it any history would be taken for the one that was mirrored.
                raise LogInconsistent(
                    f"{self._folder / CHECKPOINT} is gone, which says what the log is held to:"
                    " restore it, or begin a new mirror in another folder, with the log's key as"
                    " you know it"
                ) from error
            return None
        try:
            trust.open_last(note)
        except LogInconsistent as error:
            raise LogInconsistent(
                f"{self._folder / CHECKPOINT} is damaged: {error}. Begin a new mirror in another"
                " folder, with the log's key as you know it, and compare the two"
            ) from error
        return note

    async def _hold_to(
        self, last: bytes, note: bytes, checkpoint: Checkpoint, origin: Origin
    ) -> None:
        try:
            tree = TreeReader(origin.fetch, checkpoint)
            await require_follows(last, note, tree, origin.trust)
        except HistoryChanged as error:
            kept = await self._keep_evidence(last, note, error.proof)
            raise HistoryChanged(
                f"{error}. The mirror is untouched; what proves it is in {kept}",
                older=last,
                newer=note,
                proof=error.proof,
            ) from error
        except LogInconsistent as error:
            # The key has signed it, and nobody can show what: damage, or a hidden history.
            kept = await self._keep_evidence(last, note, None)
            raise LogInconsistent(
                f"the log's newest checkpoint is signed, and is not shown to lead on from the"
                f" mirrored one: {error}. The mirror is untouched; both checkpoints are in {kept}"
            ) from error

    async def _keep_evidence(self, older: bytes, newer: bytes, proof: bytes | None) -> Path:
        name = f"{EVIDENCE}/{hashlib.sha256(older + newer).hexdigest()[:16]}"
        await self._put(f"{name}/older.checkpoint", older)
        await self._put(f"{name}/newer.checkpoint", newer)
        if proof is not None:
            await self._put(f"{name}/contradiction.json", proof)
        return self._folder / name

    async def _take_ring(
        self, tree: TreeReader, origin: Origin, start: int, *, newest: bool
    ) -> tuple[Announced, KeyRing]:
        """Read the entries for what they announce: the newest keys are known at the end only."""
        data = await origin.given_ring()
        announced, known = Announced(data), self._pins.keys_event
        if start and known is not None and known < start:
            announced.read(known, await self._older_entry(tree, known))
        if announced.nothing:
            start = 0
        async for group in in_batches(tree, start):
            for first, leaves in group:
                for index, leaf in enumerate(leaves, first):
                    announced.read(index, leaf)
        try:
            index, ring = announced.ring(newest=newest)
        except NotAnnouncedError:
            if not start:
                raise
            # Perhaps a run that was given older keys has passed over the event that announces
            # these.
            return await self._take_ring(tree, origin, 0, newest=newest)
        await self._put_unless_same(f"{KEYS}/{ring.digest}.json", data)
        self._pins = msgspec.structs.replace(self._pins, next_keys_event=index)
        return announced, ring

    async def _older_entry(self, tree: TreeReader, index: int) -> bytes:
        try:
            return await tree.entry(index)
        except (LogInconsistent, CorruptObject) as error:
            raise LogInconsistent(
                f"the mirror is damaged: {error}; run it again with --repair"
            ) from error

    async def _take_policies(self, announced: Announced, origin: Origin) -> dict[str, str]:
        missing: dict[str, str] = {}
        for sha256 in dict.fromkeys((*self._pins.missing_policies, *announced.policies)):
            try:
                text = await origin.policy_text(sha256)
            except (NotFound, CorruptObject) as error:
                missing[sha256] = str(error)
                continue
            await self._put_unless_same(f"{POLICIES}/{sha256}.yaml", text)
        return missing

    async def _put(self, path: str, data: bytes) -> None:
        await anyio.to_thread.run_sync(put, self._folder / path, data)

    async def _put_unless_same(self, path: str, data: bytes) -> None:
        await anyio.to_thread.run_sync(put_unless_same, self._folder, [(path, data)])


@contextmanager
def opened_mirror(folder: Path, pins: Pins) -> Iterator[Mirror]:
    """A mirror that nobody else writes to meanwhile; as `writing_to`, whose errors it raises."""
    with writing_to(folder, pins) as begun:
        # Where it comes from may change; what it is held to may not.
        yield Mirror(folder, msgspec.structs.replace(begun, source=pins.source))
