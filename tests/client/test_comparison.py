"""Two checkpoints of one log: proved to be of one history, or kept as evidence of two."""

import pytest
from fakes.signed_log import LOG_KEY, ORIGIN, OTHER_LOG_KEY, TRUST, SignedLog
from fakes.statements import flipped

from secure_cache.client.comparison import Relation, Shown, compare, compare_with_now
from secure_cache.model.errors import HistoryChanged, LogInconsistent, Misconfigured, NotFound
from secure_cache.tlog.contradiction import Contradiction
from secure_cache.tlog.proof import verify_consistency

pytestmark = pytest.mark.anyio


def honest(size):
    return SignedLog().grow_to(size)


def forked(size, *, at=9):
    """The same key, and another history from entry `at` on."""
    log = SignedLog().grow_to(at)
    return log.grow_to(size, start=1000)


def note_of(log):
    return log.files["checkpoint"]


def shown(log, **options):
    return Shown(note_of(log), log.fetch, **options)


def empty_note():
    log = SignedLog()
    log.leaves.clear()
    log.publish()
    return note_of(log)


def proved_contradiction(caught):
    """The sizes of the two that contradict each other, by the file that is kept."""
    kept = Contradiction.decode(caught.value.proof)
    older, newer = kept.verify([LOG_KEY.verifier], origin=ORIGIN)
    assert (kept.older, kept.newer) == (caught.value.older, caught.value.newer)
    return older.size, newer.size


def verify(found):
    verify_consistency(
        old_size=found.older.size,
        new_size=found.newer.size,
        old_root=found.older.root,
        new_root=found.newer.root,
        proof=found.proof,
    )


# one with the log as it is


@pytest.mark.parametrize("size", [2, 255, 256, 257, 599])
async def test_a_log_that_grew_is_proved_to_continue_what_was_seen(size):
    found = await compare_with_now(note_of(honest(size)), shown(honest(600)), TRUST)
    assert (found.relation, found.older.size, found.newer.size) == (Relation.EXTENDS, size, 600)
    verify(found)


async def test_a_log_that_did_not_grow_is_the_same():
    found = await compare_with_now(note_of(honest(300)), shown(honest(300)), TRUST)
    assert (found.relation, found.proof) == (Relation.SAME, ())


async def test_any_log_continues_an_empty_one():
    found = await compare_with_now(empty_note(), shown(honest(300)), TRUST)
    assert (found.relation, found.proof) == (Relation.EXTENDS, ())


async def test_a_log_that_was_put_back_is_no_contradiction_and_is_kept_as_evidence():
    seen, now = note_of(honest(300)), honest(200)
    with pytest.raises(HistoryChanged, match="put back to an older state") as caught:
        await compare_with_now(seen, shown(now), TRUST)
    assert (caught.value.older, caught.value.newer) == (seen, note_of(now))
    assert caught.value.proof is None


@pytest.mark.parametrize("size", [300, 301, 512, 900])
async def test_a_log_with_another_history_is_proved_to_have_two(size):
    with pytest.raises(HistoryChanged, match="contradict") as caught:
        await compare_with_now(note_of(honest(300)), shown(forked(size)), TRUST)
    assert proved_contradiction(caught) == (300, size)


async def test_a_mirror_that_is_behind_has_done_nothing_wrong():
    seen = note_of(honest(300))
    with pytest.raises(NotFound, match=r"has 200 entries.*speaks of 300.*audit mirror"):
        await compare_with_now(seen, shown(honest(200), is_copy=True), TRUST)


# two


@pytest.mark.parametrize(("older", "newer"), [(2, 3), (255, 256), (256, 700), (300, 700)])
@pytest.mark.parametrize("is_copy", [True, False])
async def test_two_of_one_history_are_proved_in_either_order(older, newer, is_copy):
    notes = [note_of(honest(older)), note_of(honest(newer))]
    place = shown(honest(700), is_copy=is_copy)
    for first, second in (notes, notes[::-1]):
        found = await compare(first, second, TRUST, place)
        assert (found.older.size, found.newer.size) == (older, newer)
        assert found.relation is Relation.EXTENDS
        verify(found)


async def test_two_of_one_size_and_an_empty_one_need_no_log():
    note = note_of(honest(300))
    assert (await compare(note, note, TRUST, None)).relation is Relation.SAME
    assert (await compare(note, empty_note(), TRUST, None)).relation is Relation.EXTENDS
    with pytest.raises(HistoryChanged, match="two roots for 300 entries") as caught:
        await compare(note, note_of(forked(300)), TRUST, None)
    assert proved_contradiction(caught) == (300, 300)


async def test_two_sizes_without_a_log_say_what_is_needed():
    with pytest.raises(Misconfigured, match="--server, --store or --mirror"):
        await compare(note_of(honest(9)), note_of(honest(300)), TRUST, None)


async def test_two_that_contradict_each_other_are_proved_by_the_history_of_the_later_one():
    notes = note_of(forked(300)), note_of(honest(500))
    with pytest.raises(HistoryChanged, match="do not continue its own 300") as caught:
        await compare(*notes, TRUST, shown(honest(600)))
    assert proved_contradiction(caught) == (300, 500)


async def test_a_log_that_contradicts_the_later_one_is_told_with_that_one():
    notes = note_of(honest(300)), note_of(forked(500))
    with pytest.raises(HistoryChanged) as caught:
        await compare(*notes, TRUST, shown(honest(600)))
    assert proved_contradiction(caught) == (500, 600)


@pytest.mark.parametrize("is_copy", [True, False])
async def test_a_log_behind_the_later_one_that_contradicts_the_earlier_is_proved_to(is_copy):
    notes = note_of(honest(300)), note_of(honest(500))
    with pytest.raises(HistoryChanged) as caught:
        await compare(*notes, TRUST, shown(forked(400), is_copy=is_copy))
    assert proved_contradiction(caught) == (300, 400)


@pytest.mark.parametrize("size", [200, 400])
async def test_a_log_behind_the_later_one_was_put_back_and_a_mirror_is_only_old(size):
    notes = note_of(honest(300)), note_of(honest(500))
    with pytest.raises(HistoryChanged, match="put back") as caught:
        await compare(*notes, TRUST, shown(honest(size)))
    assert caught.value.older == notes[1]
    with pytest.raises(NotFound, match="bring the mirror up to date"):
        await compare(*notes, TRUST, shown(honest(size), is_copy=True))


# what proves nothing


async def test_a_checkpoint_of_another_key_accuses_nobody():
    stranger = note_of(SignedLog(signer=OTHER_LOG_KEY).grow_to(300))
    ours = note_of(honest(300))
    with pytest.raises(LogInconsistent, match="does not verify"):
        await compare(stranger, ours, TRUST, None)
    with pytest.raises(LogInconsistent, match="does not verify"):
        await compare_with_now(stranger, shown(honest(300)), TRUST)
    with pytest.raises(LogInconsistent, match="does not verify"):
        await compare_with_now(ours, Shown(stranger, honest(300).fetch), TRUST)


@pytest.mark.parametrize("path", ["tile/0/000", "tile/1/000.p/2"])
async def test_a_damaged_tile_is_damage_and_no_accusation(path):
    log = honest(600)
    log.lies[path] = flipped(log.files[path], 77)
    with pytest.raises(LogInconsistent) as caught:
        await compare(note_of(honest(100)), note_of(honest(300)), TRUST, shown(log))
    assert not isinstance(caught.value, HistoryChanged)
