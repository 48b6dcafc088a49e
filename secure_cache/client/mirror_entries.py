"""What the entries of a mirror are worth: held to the keys that the log itself announced."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace

import anyio.to_thread
import msgspec

from secure_cache.client.all_cores import MANY, on_all_cores
from secure_cache.client.key_ring import open_ring
from secure_cache.model.digest import Digest
from secure_cache.model.errors import CorruptObject, LogInconsistent
from secure_cache.provenance.dsse import Envelope
from secure_cache.provenance.event import Happening, KeysChanged, PolicyTookEffect
from secure_cache.provenance.event_statement import parse_event
from secure_cache.provenance.keys import KeyRing, KeyStatus, ring_of
from secure_cache.provenance.verify import verify_statement
from secure_cache.tlog.reader import TreeReader
from secure_cache.tlog.tiles import FANOUT

MAX_BAD = 1000
_BUNDLES = 8


class NotAnnouncedError(Exception):
    """The ring that was given is another one than the log announces: perhaps of another moment."""


@dataclass(slots=True)
class Judgement:
    """Of some entries.

    Attributes:
        bad: index and reason of those that the log's keys did not sign, at most MAX_BAD.
        bad_count: how many.
        revoked: how many were signed by keys that were revoked since, and so prove nothing.
    """

    bad: list[tuple[int, str]] = field(default_factory=list)
    bad_count: int = 0
    revoked: int = 0

    def add(self, other: "Judgement") -> None:
        self.bad += other.bad[: MAX_BAD - len(self.bad)]
        self.bad_count += other.bad_count
        self.revoked += other.revoked


@dataclass(slots=True)
class Announced:
    """What the log itself says of keys and policies. Nothing is verified yet.

    Attributes:
        keys: index, digest and leaf of each event that announces keys, the newest last.
        policies: digests in hex.
    """

    keys: list[tuple[int, str, bytes]] = field(default_factory=list)
    policies: list[str] = field(default_factory=list)

    def read(self, index: int, leaf: bytes) -> None:
        """Look at one entry."""
        happened = _happened(leaf)
        if isinstance(happened, KeysChanged):
            self.keys.append((index, str(happened.ring), leaf))
        elif isinstance(happened, PolicyTookEffect):
            self.policies.append(str(happened.sha256))

    async def ring(
        self, ring_for: Callable[[str], Awaitable[bytes]], *, newest: bool
    ) -> tuple[int, KeyRing, bytes]:
        """The ring that is given, and the index of the event that announces it.

        An event that announces other keys later may be a change that not everybody knows yet, or
        of somebody who could append and has no key: nobody can tell without those keys. It is
        signed by none of the ring's, so that judging the entries by this ring reports it.

        Args:
            ring_for: the ring with a digest in hex, unverified.
            newest: accept none but the one that is announced last.

        Raises:
            NotAnnouncedError: the log announces others.
            LogInconsistent: it announces none.
        """
        if not self.keys:
            raise LogInconsistent("the log announces no keys, so that nothing in it can be proved")
        last = self.keys[-1]
        data = await ring_for(last[1])
        given = str(Digest.of(data))
        matching = [event for event in self.keys if event[1] == given]
        if not matching or (newest and matching[-1] is not last):
            raise NotAnnouncedError(
                f"the keys that were given, {given}, are not those that entry {last[0]} of the log"
                " announces: if keys were changed just now, run it again"
            )
        # The newest that one of these very keys signed: what others append ends no mirroring.
        for index, _, leaf in reversed(matching[1:]):
            with suppress(LogInconsistent):
                return index, open_ring(data, leaf), data
        index, _, leaf = matching[0]
        return index, open_ring(data, leaf), data


async def judge_entries(
    tree: TreeReader,
    ring: KeyRing,
    start: int,
    progress: Callable[[int, int], None] | None,
    *,
    many: int = MANY,
) -> Judgement:
    """Hold the entries from `start` on to the keys; if they are `many`, on all cores.

    Raises:
        LogInconsistent, CorruptObject: a file of the tree is damaged.
        Unavailable: those other processes could not be started, or ended.
    """
    size, total = tree.checkpoint.size, Judgement()
    apart, data = size - start > many, ring.encode()
    async for group in in_batches(tree, start):
        if apart:
            for given in await on_all_cores(_judge_apart, [(data, *part) for part in group]):
                total.add(msgspec.convert(given, Judgement))
        else:
            for part in group:
                total.add(await anyio.to_thread.run_sync(judge_leaves, ring, *part))
        if progress is not None:
            first, leaves = group[-1]
            progress(first + len(leaves), size)
    total.bad.sort()
    return total


def judge_leaves(ring: KeyRing, first: int, leaves: list[bytes]) -> Judgement:
    """Which of some entries are not what the keys signed, and why."""
    found = Judgement()
    before = ring_of(
        replace(key, status=KeyStatus.ACTIVE)
        for key in ring.keys
        if key.status is KeyStatus.REVOKED
    )
    for index, leaf in enumerate(leaves, first):
        try:
            verify_statement(leaf, ring)
        except CorruptObject as error:
            if before.keys and _stood(leaf, before):
                found.revoked += 1
                continue
            found.bad_count += 1
            found.bad.append((index, str(error)))
    return found


def _judge_apart(ring: bytes, first: int, leaves: list[bytes]) -> dict[str, object]:
    """In another process, to which keys do not travel."""
    found: dict[str, object] = msgspec.to_builtins(
        judge_leaves(KeyRing.decode(ring), first, leaves)
    )
    return found


async def in_batches(tree: TreeReader, start: int) -> AsyncGenerator[list[tuple[int, list[bytes]]]]:
    """The entries from `start` on: some bundles at a time, each with its first index."""
    end = -(-tree.checkpoint.size // FANOUT)
    for group in range(start // FANOUT, end, _BUNDLES):
        batch = []
        for number in range(group, min(group + _BUNDLES, end)):
            first = number * FANOUT
            skipped = max(start - first, 0)
            batch.append((first + skipped, list(await tree.bundle(number))[skipped:]))
        yield batch


def _stood(leaf: bytes, ring: KeyRing) -> bool:
    try:
        verify_statement(leaf, ring)
    except CorruptObject:
        return False
    return True


def _happened(leaf: bytes) -> Happening | None:
    try:
        return parse_event(Envelope.decode(leaf).unverified_payload).what
    except CorruptObject:
        return None
