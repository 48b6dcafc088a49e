"""Two checkpoints of one log: does the later one continue the earlier one?"""

from dataclasses import dataclass
from enum import StrEnum

from secure_cache.model.errors import CorruptObject, HistoryChanged, LogInconsistent, NotFound
from secure_cache.tlog.checkpoint import Checkpoint
from secure_cache.tlog.contradiction import Contradiction
from secure_cache.tlog.fetched import Trust, require_follows
from secure_cache.tlog.reader import Fetch, TreeReader


class Relation(StrEnum):
    """`same`: one state. `extends`: the later continues the earlier."""

    SAME = "same"
    EXTENDS = "extends"


@dataclass(frozen=True, slots=True)
class Compared:
    """Two checkpoints that may both be true. A pair that may not is a `HistoryChanged`."""

    relation: Relation
    older: Checkpoint
    newer: Checkpoint
    proof: tuple[bytes, ...]


async def compare_with_now(seen: bytes, now: bytes, trust: Trust, fetch: Fetch) -> Compared:
    """Compare a signed checkpoint with the log as it is.

    Args:
        seen: a signed note.
        now: the log's newest.
        trust: the log's key.
        fetch: the log's files, unverified.

    Raises:
        HistoryChanged: the log was put back, or its history was rewritten.
        LogInconsistent: one is not signed by the log's key, or the log is damaged.
    """
    older, newer = trust.open_last(seen), trust.open(now)
    tree = TreeReader(fetch, newer)
    await require_follows(seen, now, tree, trust)
    if older.size == newer.size:
        return Compared(Relation.SAME, older, newer, ())
    proof = await tree.consistency_proof(older.size) if older.size else ()
    return Compared(Relation.EXTENDS, older, newer, proof)


async def compare(first: bytes, second: bytes, trust: Trust, fetch: Fetch | None) -> Compared:
    """Compare two signed checkpoints, in either order.

    Args:
        first: a signed note.
        second: another.
        trust: the log's key; both must be signed by it.
        fetch: the log's files, unverified; None: only what the two say alone.

    Raises:
        HistoryChanged: they contradict each other; carries the proof.
        LogInconsistent: one is not signed by the log's key.
        NotFound: the place does not have the later state, or none was given, so that nobody
            can tell.
    """
    notes = sorted((first, second), key=lambda note: trust.open_last(note).size)
    older, newer = (trust.open_last(note) for note in notes)
    if older.size == newer.size:
        if older.root == newer.root:
            return Compared(Relation.SAME, older, newer, ())
        kept = Contradiction(notes[0], notes[1])
        kept.verify(trust.verifiers, origin=trust.origin)
        raise HistoryChanged(
            f"the log's key has signed two roots for {older.size} entries",
            older=notes[0],
            newer=notes[1],
            proof=kept.encode(),
        )
    if older.size == 0:
        return Compared(Relation.EXTENDS, older, newer, ())
    if fetch is None:
        raise NotFound(
            f"one has {older.size} entries and the other {newer.size}: to compare them, say where"
            " the log is"
        )
    tree = TreeReader(fetch, newer)
    try:
        await tree.edge()
    except (LogInconsistent, CorruptObject, NotFound) as error:
        raise NotFound(
            f"the log there does not have the state of {newer.size} entries with this root: {error}"
        ) from error
    await require_follows(notes[0], notes[1], tree, trust)
    return Compared(Relation.EXTENDS, older, newer, await tree.consistency_proof(older.size))
