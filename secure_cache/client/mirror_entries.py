"""What the entries of a mirror are worth: held to the keys that the log itself announced."""

from collections.abc import AsyncGenerator, Callable
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
from secure_cache.provenance.verify import verify_event, verify_statement
from secure_cache.tlog.reader import TreeReader
from secure_cache.tlog.tiles import FANOUT

MAX_BAD = 1000
MAX_POLICIES = 100_000
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


class Announced:
    """What the log itself says of keys and policies, read entry by entry.

    Only what the ring that is given can confirm is kept: whatever strangers append, it fills no
    memory, and nobody is asked for it.

    Args:
        given: a key ring's document, unverified.
    """

    def __init__(self, given: bytes) -> None:
        self._given, self._sha256 = given, str(Digest.of(given))
        self._ring: KeyRing | None = None
        with suppress(ValueError):
            self._ring = KeyRing.decode(given)
        self._ever = None if self._ring is None else self._ring.before_revocations()
        self._last: tuple[int, str] | None = None
        self._doubtful: bytes | None = None
        self._index: int | None = None
        self._policies: dict[str, None] = {}

    @property
    def nothing(self) -> bool:
        """No event announced keys, whichever."""
        return self._last is None

    @property
    def policies(self) -> tuple[str, ...]:
        """Digests in hex, of events that a key of the ring has signed."""
        return tuple(self._policies)

    def read(self, index: int, leaf: bytes) -> None:
        """Look at one entry.

        Raises:
            LogInconsistent: more policies than any installation has.
        """
        happened = happened_in(leaf)
        if isinstance(happened, KeysChanged):
            self._last = (index, str(happened.ring))
            if self._last[1] != self._sha256:
                return
            if signed_by(leaf, self._ring):
                # The newest that one of these very keys signed counts.
                self._index = index
            elif self._doubtful is None:
                self._doubtful = leaf
        elif isinstance(happened, PolicyTookEffect) and signed_by(leaf, self._ever):
            self._policies[str(happened.sha256)] = None
            if len(self._policies) > MAX_POLICIES:
                raise LogInconsistent(
                    f"the log's keys have signed more than {MAX_POLICIES} policies, which no"
                    " installation has: a log that is made to fill disks is not mirrored"
                )

    def ring(self, *, newest: bool) -> tuple[int, KeyRing]:
        """The ring that was given, and the index of the event that announces it.

        An event that announces other keys later may be a change that not everybody knows yet, or
        of somebody who could append and has no key: nobody can tell without those keys. It is
        signed by none of the ring's, so that judging the entries by this ring reports it.

        Args:
            newest: accept none but the one that is announced last.

        Raises:
            NotAnnouncedError: the log announces others.
            LogInconsistent: it announces none.
        """
        if self._last is None:
            raise LogInconsistent("the log announces no keys, so that nothing in it can be proved")
        last, digest = self._last
        unknown = self._index is None and self._doubtful is None
        if unknown or (newest and digest != self._sha256):
            raise NotAnnouncedError(
                f"the keys that were given, {self._sha256}, are not those that entry {last} of the"
                " log announces: if keys were changed just now, run it again"
            )
        if self._index is not None and self._ring is not None:
            return self._index, self._ring
        open_ring(self._given, self._doubtful or b"")
        raise LogInconsistent("the key ring did not sign its own event")


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


def happened_in(leaf: bytes) -> Happening | None:
    """What an event says, unverified; None for any other entry."""
    try:
        return parse_event(Envelope.decode(leaf).unverified_payload).what
    except CorruptObject:
        return None


def signed_by(leaf: bytes, ring: KeyRing | None) -> bool:
    """Whether a key of a ring has signed an event, in its time; none has without a ring."""
    if ring is None:
        return False
    try:
        verify_event(leaf, ring)
    except CorruptObject:
        return False
    return True
