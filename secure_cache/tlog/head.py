"""The head: the unsigned document whose compare-and-swap is the commit. Pure.

It assigns indexes: its `batches`, in order, are the entries from `prev_size` on. An immutable
copy stays under `commit/<size>` for each size that the log ever had.
"""

from collections.abc import Container, Mapping
from typing import Self

import msgspec

from secure_cache.model.errors import LogInconsistent, Malformed
from secure_cache.tlog.checkpoint import Checkpoint
from secure_cache.tlog.merkle import EMPTY_ROOT
from secure_cache.tlog.pending import BatchName

MAX_HEAD_BYTES = 16 * 1024 * 1024
_VERSION = 1


class Batch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """A batch that a commit took in, and how many entries it has."""

    name: str
    count: int


class Mark(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """How far a boot's batches are in the log, and when the last of them came in."""

    sequence: int
    at: int


class Head(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One commit.

    Attributes:
        origin: which log.
        size: number of entries after it.
        root: Merkle tree hash after it.
        prev_size: number before it, which was published before this commit was made.
        prev_root: Merkle tree hash before it.
        batches: what it took in, in order.
        consumed: for each boot the number of its last batch in the log.
        commit: 128 random bits, hex, by which a replica knows its own commit.
        at: when, seconds since 1970, by the clock of the replica that made it.
    """

    v: int = _VERSION
    origin: str
    size: int
    root: bytes
    prev_size: int
    prev_root: bytes
    batches: tuple[Batch, ...]
    consumed: dict[str, Mark]
    commit: str
    at: int

    @classmethod
    def decode(cls, data: bytes, *, origin: str) -> Self:
        """Read a head or a commit's copy.

        Raises:
            LogInconsistent: not exactly what `encode` writes, its numbers do not add up, or it
                is another log's.
        """
        try:
            head = msgspec.json.decode(data, type=cls)
            head.checkpoint()
            head.previous()
            names = [BatchName.parse(batch.name) for batch in head.batches]
        except (msgspec.MsgspecError, UnicodeDecodeError, Malformed) as error:
            raise LogInconsistent("the head is not well formed") from error
        if head.encode() != data or head.v != _VERSION:
            raise LogInconsistent("the head is not in canonical form")
        if head.origin != origin:
            raise LogInconsistent(f"the head of {head.origin!r}, not of {origin!r}")
        _check(head, names)
        return head

    def encode(self) -> bytes:
        return msgspec.json.encode(self)

    def checkpoint(self) -> Checkpoint:
        return Checkpoint(self.origin, self.size, self.root)

    def previous(self) -> Checkpoint:
        return Checkpoint(self.origin, self.prev_size, self.prev_root)

    def consumed_of(self, boot: str) -> int:
        mark = self.consumed.get(boot)
        return 0 if mark is None else mark.sequence

    def forget_idle_boots(self, before: int, *, but: Container[str]) -> None:
        """Drop the marks of boots that had long been idle before we looked at what is pending.

        A writer leaves such a boot, so nothing of it can have appeared after our look, however
        long this process has slept since.

        Args:
            before: idle since then, seconds since 1970, counted from the look.
            but: these stay.
        """
        for boot, mark in list(self.consumed.items()):
            if mark.at <= before and boot not in but:
                del self.consumed[boot]

    def first_indexes(self) -> Mapping[str, int]:
        """For each batch of this commit, the index of its first entry."""
        indexes, index = {}, self.prev_size
        for batch in self.batches:
            indexes[batch.name] = index
            index += batch.count
        return indexes


def empty_head(origin: str, *, commit: str, at: int) -> Head:
    """Of a log without entries."""
    return Head(
        origin=origin,
        size=0,
        root=EMPTY_ROOT,
        prev_size=0,
        prev_root=EMPTY_ROOT,
        batches=(),
        consumed={},
        commit=commit,
        at=at,
    )


def _check(head: Head, names: list[BatchName]) -> None:
    if head.size != head.prev_size + sum(batch.count for batch in head.batches):
        raise LogInconsistent("the head's batches do not add up to its size")
    if any(batch.count < 1 for batch in head.batches) or (head.size and not names):
        raise LogInconsistent("the head has an empty batch, or none")
    if len(set(names)) != len(names):
        raise LogInconsistent("the head has a batch twice")
    if any(name.sequence > head.consumed_of(name.boot) for name in names):
        raise LogInconsistent("the head has a batch that it does not count as consumed")
