"""The witness itself: what it cosigns, what it refuses, and what it keeps."""

import errno
import hashlib
import itertools
import os
import threading

import anyio
import pytest
from fakes.logs import ORIGIN, SIGNER, grow, grown_log
from fakes.witnesses import NOW, cosigner_of, make_witness
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_cache.core.witness import Witness
from secure_cache.core.witness_book import MAX_EVIDENCE, Page, WitnessBook
from secure_cache.model.errors import (
    CorruptObject,
    Denied,
    LogInconsistent,
    Malformed,
    Misconfigured,
    NotFound,
    StorageUnavailable,
)
from secure_cache.storage.memory import MemoryStore
from secure_cache.tlog.checkpoint import Checkpoint, sign_checkpoint
from secure_cache.tlog.contradiction import Contradiction
from secure_cache.tlog.cosignature import MldsaCosigner, cosignature_time
from secure_cache.tlog.merkle import EMPTY_ROOT, leaf_hash, tree_hash
from secure_cache.tlog.note import Ed25519NoteSigner, open_note
from secure_cache.tlog.proof import build, consistency_ranges
from secure_cache.tlog.witness import KnownLog, OtherSize
from secure_cache.tlog.witness_wire import AddCheckpoint, add_signatures

pytestmark = pytest.mark.anyio


def leaves(branch, count):
    """Of a tree that is shared up to 3 entries and another one beyond, for each branch."""
    return [leaf_hash(b"entry %d of %s" % (i, branch if i >= 3 else b"all")) for i in range(count)]


async def note_of(branch, size, *, signer=SIGNER, origin=ORIGIN):
    root = tree_hash(leaves(branch, size)) if size else EMPTY_ROOT
    return await sign_checkpoint(Checkpoint(origin, size, root), signer)


def proof_of(branch, old, size):
    hashes = leaves(branch, size)

    def node(at):
        level, index = at
        return tree_hash(hashes[index << level : (index + 1) << level])

    return build(consistency_ranges(old, size), node) if 0 < old <= size else ()


async def request(branch, old, size):
    return AddCheckpoint(old, proof_of(branch, old, size), await note_of(branch, size))


@pytest.fixture
def witness(tmp_path):
    return make_witness(tmp_path / "state", SIGNER)


async def test_it_cosigns_what_it_sees_first_and_then_only_what_extends_it(witness):
    for old, size in ((0, 5), (5, 7), (7, 7), (7, 300)):
        (signature,) = witness.add_checkpoint(await request(b"a", old, size))
        note = add_signatures(await note_of(b"a", size), [signature])
        assert len(open_note(note, [SIGNER.verifier, cosigner_of("w1").verifier]).signatures) == 2
        kept, checkpoint = witness.last(ORIGIN)
        assert kept == note
        assert checkpoint.size == size


@pytest.mark.parametrize("old", [0, 3, 6, 8, 9])
async def test_another_old_size_is_told_what_was_cosigned(witness, old):
    witness.add_checkpoint(await request(b"a", 0, 7))
    assert witness.add_checkpoint(await request(b"a", old, 9)) == OtherSize(7)
    assert witness.last(ORIGIN)[1].size == 7


async def test_a_rollback_is_never_cosigned(witness):
    witness.add_checkpoint(await request(b"a", 0, 7))
    for old in (0, 5):
        assert witness.add_checkpoint(await request(b"a", old, 5)) == OtherSize(7)
    with pytest.raises(Malformed):
        witness.add_checkpoint(await request(b"a", 7, 5))
    assert witness.last(ORIGIN)[1].size == 7


async def test_a_fork_is_refused_and_two_roots_for_one_size_are_kept_as_proof(tmp_path):
    told = []
    witness = make_witness(tmp_path / "s", SIGNER, tell=lambda event, facts: told.append(event))
    witness.add_checkpoint(await request(b"a", 0, 7))
    for old, size in ((7, 9), (7, 7), (7, 300)):
        with pytest.raises(LogInconsistent):
            witness.add_checkpoint(await request(b"b", old, size))
    # Even when it is submitted as if nothing had been cosigned before.
    assert witness.add_checkpoint(await request(b"b", 0, 7)) == OtherSize(7)
    (file,) = (tmp_path / "s").glob("*/evidence-fork-*")
    older, newer = Contradiction.decode(file.read_bytes()).verify([SIGNER.verifier], origin=ORIGIN)
    assert older.root != newer.root
    assert told.count("witness.refused") == 3
    assert told.count("witness.contradicted") == 2
    assert witness.last(ORIGIN)[1].root == tree_hash(leaves(b"a", 7))


async def test_evidence_never_fills_the_disk(tmp_path):
    page = Page(tmp_path, lambda _: None)
    for number in range(MAX_EVIDENCE + 5):
        page.keep_evidence("x", b"%d" % number)
    assert len(list(tmp_path.iterdir())) == MAX_EVIDENCE
    assert page.keep_evidence("x", b"0") is not None


async def test_strangers_are_told_apart(witness):
    stranger = Ed25519NoteSigner("stranger.example.com", bytes(32))
    with pytest.raises(NotFound):
        witness.add_checkpoint(
            AddCheckpoint(0, (), await note_of(b"a", 5, signer=stranger, origin=stranger.name))
        )
    forger = Ed25519NoteSigner(ORIGIN, bytes(32))
    with pytest.raises(Denied):
        witness.add_checkpoint(AddCheckpoint(0, (), await note_of(b"a", 5, signer=forger)))
    good = await note_of(b"a", 5)
    broken = good.replace(b"\n5\n", b"\n6\n")
    with pytest.raises(Denied):
        witness.add_checkpoint(AddCheckpoint(0, (), broken))
    assert witness.last(ORIGIN) is None
    with pytest.raises(NotFound):
        witness.last("stranger.example.com")


async def test_extensions_a_proof_from_nothing_and_a_wrong_empty_root_are_refused(witness):
    text = Checkpoint(ORIGIN, 5, tree_hash(leaves(b"a", 5)), ("extension",))
    with pytest.raises(Malformed):
        witness.add_checkpoint(AddCheckpoint(0, (), await sign_checkpoint(text, SIGNER)))
    with pytest.raises(LogInconsistent):
        witness.add_checkpoint(AddCheckpoint(0, (bytes(32),), await note_of(b"a", 5)))
    with pytest.raises(LogInconsistent):
        witness.add_checkpoint(AddCheckpoint(0, (bytes(32),), await note_of(b"a", 0)))
    assert witness.last(ORIGIN) is None


async def test_an_empty_log_is_cosigned_and_then_any_tree(witness):
    witness.add_checkpoint(await request(b"a", 0, 0))
    assert witness.last(ORIGIN)[1].size == 0
    witness.add_checkpoint(await request(b"a", 0, 5))
    assert witness.last(ORIGIN)[1].size == 5


async def test_only_verified_signatures_are_kept(witness):
    stranger = await note_of(b"a", 5, signer=Ed25519NoteSigner("stranger", bytes(32)))
    note = await note_of(b"a", 5) + stranger.partition(b"\n\n")[2]
    doubled = note + note.partition(b"\n\n")[2]
    witness.add_checkpoint(AddCheckpoint(0, (), doubled))
    kept, _ = witness.last(ORIGIN)
    assert b"stranger" not in kept
    assert kept.count("— ".encode()) == 2


async def test_its_times_never_go_back(tmp_path):
    times = iter([100.0, 50.0, 200.0])
    witness = make_witness(tmp_path / "s", SIGNER, clock=lambda: next(times))
    found = []
    for old in (0, 5, 5):
        (signature,) = witness.add_checkpoint(await request(b"a", old, 5))
        found.append(cosignature_time(signature.value))
    assert found == [100, 100, 200]


async def test_a_witness_with_two_keys_gives_two_lines(tmp_path):
    cosigners = [cosigner_of("w1"), MldsaCosigner("w1.example.com", bytes(32))]
    (tmp_path / "s").mkdir()
    witness = Witness(
        logs=[KnownLog(ORIGIN, (SIGNER.verifier,))],
        cosigners=cosigners,
        book=WitnessBook(tmp_path / "s"),
        clock=lambda: NOW,
    )
    lines = witness.add_checkpoint(await request(b"a", 0, 5))
    note = add_signatures(await note_of(b"a", 5), lines)
    assert len(open_note(note, [c.verifier for c in cosigners]).signatures) == 2
    witness.add_checkpoint(await request(b"a", 5, 9))


async def test_damaged_state_cosigns_nothing(tmp_path):
    witness = make_witness(tmp_path / "s", SIGNER)
    witness.add_checkpoint(await request(b"a", 0, 7))
    (file,) = (tmp_path / "s").glob("*/checkpoint")
    good = file.read_bytes()
    cosigned = good.splitlines(keepends=True)
    other = await note_of(b"b", 7)
    for damage in (
        b"",
        good[:-1],
        good.replace(b"\n7\n", b"\n3\n"),
        b"".join(cosigned[:-1]),
        other + cosigned[-1],
        b"x" * 70_000,
    ):
        file.write_bytes(damage)
        with pytest.raises(CorruptObject):
            witness.add_checkpoint(await request(b"a", 7, 9))
        with pytest.raises(CorruptObject):
            witness.check()
    file.write_bytes(good)
    witness.check()
    witness.add_checkpoint(await request(b"a", 7, 9))


async def test_the_state_of_another_log_in_its_place_is_damage(tmp_path):
    other = Ed25519NoteSigner("other.example.com", bytes(32))
    (tmp_path / "s").mkdir()
    witness = Witness(
        logs=[KnownLog(s.name, (SIGNER.verifier, other.verifier)) for s in (SIGNER, other)],
        cosigners=[cosigner_of("w1")],
        book=WitnessBook(tmp_path / "s"),
        clock=lambda: NOW,
    )
    witness.add_checkpoint(await request(b"a", 0, 7))
    witness.add_checkpoint(
        AddCheckpoint(0, (), await note_of(b"a", 5, signer=other, origin=other.name))
    )
    one, two = (tmp_path / "s").glob("*/checkpoint")
    one.write_bytes(two.read_bytes())
    with pytest.raises(CorruptObject):
        witness.check()


async def test_a_missing_state_folder_is_never_made_again(tmp_path):
    witness = make_witness(tmp_path / "s", SIGNER)
    (tmp_path / "s").rmdir()
    with pytest.raises(Misconfigured, match="new key"):
        witness.add_checkpoint(await request(b"a", 0, 7))


async def test_a_witness_has_a_key_and_knows_each_log_once(tmp_path):
    book = WitnessBook(tmp_path)
    log = KnownLog(ORIGIN, (SIGNER.verifier,))
    with pytest.raises(Malformed):
        Witness(logs=[log], cosigners=[], book=book, clock=lambda: NOW)
    with pytest.raises(Malformed):
        Witness(logs=[log, log], cosigners=[cosigner_of("w1")], book=book, clock=lambda: NOW)


def a_disk_that_says(number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize("before", [0, 5])
async def test_a_full_disk_gives_no_cosignature_and_ends_no_witness(tmp_path, monkeypatch, before):
    """What was cosigned last stands as it stood; when there is room again, it goes on."""
    failures = []
    witness = witness_in(tmp_path, failures)
    if before:
        witness.add_checkpoint(await request(b"a", 0, before))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", a_disk_that_says(errno.ENOSPC))
        with pytest.raises(StorageUnavailable, match="No space"):
            witness.add_checkpoint(await request(b"a", before, 7))
    assert failures == []
    assert {path.name for path in tmp_path.glob("*/*")} <= {"lock", "checkpoint"}
    assert witness.add_checkpoint(await request(b"a", before, 7))


@pytest.mark.parametrize("before", [0, 5])
async def test_a_disk_that_may_not_keep_what_is_seen_ends_the_witness(
    tmp_path, monkeypatch, before
):
    failures = []
    witness = witness_in(tmp_path, failures)
    if before:
        witness.add_checkpoint(await request(b"a", 0, before))
    with monkeypatch.context() as patch:
        patch.setattr("secure_cache.core.key_files.sync_folder", a_disk_that_says(errno.EIO))
        with pytest.raises(StorageUnavailable, match="Input/output"):
            witness.add_checkpoint(await request(b"a", before, 7))
    assert len(failures) == 1


async def test_a_folder_that_a_dead_process_made_is_made_durable_by_the_next(tmp_path, monkeypatch):
    """Else a power cut could take it, and with it all that was cosigned there."""
    synced = []
    monkeypatch.setattr("secure_cache.core.witness_book.sync_folder", synced.append)
    witness = witness_in(tmp_path, [])
    (tmp_path / hashlib.sha256(ORIGIN.encode()).hexdigest()).mkdir(mode=0o700)
    witness.add_checkpoint(await request(b"a", 0, 5))
    assert tmp_path in synced


def witness_in(folder, failures):
    return Witness(
        logs=[KnownLog(ORIGIN, (SIGNER.verifier,))],
        cosigners=[cosigner_of("w1")],
        book=WitnessBook(folder, on_failure=failures.append),
        clock=lambda: NOW,
    )


async def test_of_many_threads_and_folders_no_two_answer_from_the_same_state(tmp_path):
    """Two processes are two witnesses over one folder."""
    witnesses = [make_witness(tmp_path / "s", SIGNER) for _ in range(4)]
    requests = [await request(branch, 5, 9) for branch in (b"a", b"b")]
    first = await request(b"a", 0, 5)
    # The trees part after 3 entries, so that 5 entries of one are not those of the other.
    witnesses[0].add_checkpoint(first)
    outcomes = []

    def ask(number):
        try:
            outcomes.append(witnesses[number].add_checkpoint(requests[number % 2]))
        except LogInconsistent:
            outcomes.append(None)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(o, tuple) for o in outcomes) == 1
    assert witnesses[0].last(ORIGIN)[1].root == tree_hash(leaves(b"a", 9))


async def test_a_lock_that_is_never_given_back_is_not_waited_for_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr("secure_cache.core.witness_book._WAIT_SECONDS", 0.05)
    witness = make_witness(tmp_path / "s", SIGNER)
    with witness._book.locked(ORIGIN), pytest.raises(StorageUnavailable, match="lock"):
        witness.add_checkpoint(await request(b"a", 0, 7))


STEPS = st.lists(
    st.tuples(st.sampled_from([b"a", b"b"]), st.integers(0, 12), st.integers(1, 12)), max_size=12
)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_whatever_is_submitted_all_that_was_cosigned_is_one_history(tmp_path_factory, steps):
    async def history():
        witness = make_witness(tmp_path_factory.mktemp("w"), SIGNER)
        cosigned = []
        for branch, old, size in steps:
            try:
                result = witness.add_checkpoint(await request(branch, old, size))
            except (LogInconsistent, Malformed):
                continue
            if isinstance(result, tuple):
                cosigned.append((branch, size))
        return cosigned

    cosigned = anyio.run(history)
    for (one, size), (other, later) in itertools.pairwise(cosigned):
        assert size <= later
        assert leaves(one, size) == leaves(other, size)


async def test_it_follows_the_log_that_the_server_makes(tmp_path):
    witness = make_witness(tmp_path / "s", SIGNER)
    log = await grown_log(MemoryStore(), (5,))
    witness.add_checkpoint(AddCheckpoint(0, (), await log.checkpoint_note()))
    await grow(log, (300,))
    proof = await log.consistency_proof(5, 300)
    witness.add_checkpoint(AddCheckpoint(5, proof, await log.checkpoint_note()))
    assert witness.last(ORIGIN)[1].size == 300
