"""Two checkpoints of one log: does the later one continue the earlier one?"""

from dataclasses import dataclass
from enum import StrEnum

from secure_cache.model.errors import HistoryChanged, Misconfigured, NotFound
from secure_cache.tlog.checkpoint import Checkpoint
from secure_cache.tlog.contradiction import Contradiction
from secure_cache.tlog.fetched import Trust, require_follows
from secure_cache.tlog.proof import verify_consistency
from secure_cache.tlog.reader import Fetch, TreeReader


class Relation(StrEnum):
    """`same`: one state. `extends`: the later continues the earlier."""

    SAME = "same"
    EXTENDS = "extends"


@dataclass(frozen=True, slots=True)
class Compared:
    """Two checkpoints that may both be true. A pair that may not is a `HistoryChanged`.

    Attributes:
        proof: the RFC 6962 consistency proof; empty for one size, and from an empty log.
    """

    relation: Relation
    older: Checkpoint
    newer: Checkpoint
    proof: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Shown:
    """A log as some place shows it.

    Attributes:
        note: its newest checkpoint, signed.
        fetch: its files, unverified.
        is_copy: a mirror, which may be behind and has done nothing wrong then.
    """

    note: bytes
    fetch: Fetch
    is_copy: bool = False


async def compare_with_now(seen: bytes, shown: Shown, trust: Trust) -> Compared:
    """Compare a signed checkpoint with the log as it is.

    Raises:
        HistoryChanged: the log was put back, or its history was rewritten.
        LogInconsistent: one is not signed by the log's key, or the log is damaged.
        NotFound: a copy that is behind, so that nobody can tell.
    """
    was, now = trust.open_last(seen), trust.open(shown.note)
    if shown.is_copy and now.size < was.size:
        raise _behind(now, was)
    tree = TreeReader(shown.fetch, now)
    await require_follows(seen, shown.note, tree, trust)
    return await _proved(was, now, tree)


async def compare(first: bytes, second: bytes, trust: Trust, shown: Shown | None) -> Compared:
    """Compare two signed checkpoints, in either order.

    The place is asked for nothing but the tree under its own newest checkpoint: what only an
    older one needed may be gone there.

    Args:
        first: a signed note.
        second: another.
        trust: the log's key; both must be signed by it.
        shown: the log; None: only what the two say alone.

    Raises:
        HistoryChanged: they contradict each other, or the log as it is contradicts one of them, or
            it was put back; carries the proof.
        LogInconsistent: one is not signed by the log's key, or the log is damaged.
        NotFound: a copy that is behind, so that nobody can tell.
        Misconfigured: to compare these, the log is needed.
    """
    notes = sorted((first, second), key=lambda note: trust.open_last(note).size)
    older, newer = (trust.open_last(note) for note in notes)
    if older.size == newer.size:
        if older.root != newer.root:
            raise _contradiction(notes[0], notes[1], trust)
        return Compared(Relation.SAME, older, newer)
    if older.size == 0:
        return Compared(Relation.EXTENDS, older, newer)
    if shown is None:
        raise Misconfigured(
            f"one has {older.size} entries and the other {newer.size}: to compare them, say where"
            " the log is, with --server, --store or --mirror"
        )
    now = trust.open(shown.note)
    tree = TreeReader(shown.fetch, now)
    await _check_against(notes[0], notes[1], shown, tree, trust)
    return await _proved(older, newer, tree)


async def _check_against(
    older: bytes, newer: bytes, shown: Shown, tree: TreeReader, trust: Trust
) -> None:
    """Both checkpoints are of the history that leads to the log as it is."""
    was, later, now = trust.open_last(older), trust.open_last(newer), tree.checkpoint
    if later.size > now.size:
        if was.size <= now.size:
            await require_follows(older, shown.note, tree, trust)
        if shown.is_copy:
            raise _behind(now, later)
    await require_follows(newer, shown.note, tree, trust)
    root = await tree.root_at(was.size)
    if root != was.root:
        # The newer one's own history is at hand: the two contradict each other by themselves.
        proof = await tree.consistency_proof(was.size, later.size)
        raise _contradiction(older, newer, trust, root, proof)


async def _proved(older: Checkpoint, newer: Checkpoint, tree: TreeReader) -> Compared:
    if older.size == newer.size:
        return Compared(Relation.SAME, older, newer)
    if older.size == 0:
        return Compared(Relation.EXTENDS, older, newer)
    proof = await tree.consistency_proof(older.size, newer.size)
    verify_consistency(
        old_size=older.size,
        new_size=newer.size,
        old_root=older.root,
        new_root=newer.root,
        proof=proof,
    )
    return Compared(Relation.EXTENDS, older, newer, proof)


def _contradiction(
    older: bytes,
    newer: bytes,
    trust: Trust,
    root: bytes | None = None,
    proof: tuple[bytes, ...] = (),
) -> HistoryChanged:
    """Raises: LogInconsistent: they do not contradict each other."""
    kept = Contradiction(older, newer, root, proof)
    was, later = kept.verify(trust.verifiers, origin=trust.origin)
    what = f"two roots for {was.size} entries"
    if was.size != later.size:
        what = f"{later.size} entries that do not continue its own {was.size}"
    return HistoryChanged(
        f"the log's key has signed {what}: the two checkpoints contradict each other",
        older=older,
        newer=newer,
        proof=kept.encode(),
    )


def _behind(now: Checkpoint, wanted: Checkpoint) -> NotFound:
    return NotFound(
        f"the mirror has {now.size} entries, and the checkpoint speaks of {wanted.size}: bring the"
        " mirror up to date with `secure-cache audit mirror`, then compare again"
    )
