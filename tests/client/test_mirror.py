"""A mirror, against logs that grow, go back, fork and lie; and one that is killed and damaged."""

import json
import os
import random
import sys
import time
import tracemalloc
from contextlib import suppress
from functools import partial

import pytest
from fakes.audit import leaf_of, leaf_of_event, numbered
from fakes.policies import mutated
from fakes.signed_log import LOG_KEY, ORIGIN, OTHER_LOG_KEY, TRUST, SignedLog
from fakes.statements import done, ed25519_signer, flipped, public_key, ring_for

import secure_cache.client.mirror as mirror_module
from secure_cache.client import mirror_entries
from secure_cache.client.log_folder import LogFolder
from secure_cache.client.mirror import Origin, opened_mirror
from secure_cache.client.mirror_check import Checked, check_mirror
from secure_cache.client.mirror_entries import Announced, judge_entries
from secure_cache.client.mirror_folder import new_pins, read_pins
from secure_cache.compose.log_source import LogPlace, open_log_source
from secure_cache.compose.mirroring import mirror_audit
from secure_cache.compose.proving import served_as
from secure_cache.model.digest import Digest
from secure_cache.model.errors import (
    CorruptObject,
    DamagedIndex,
    Denied,
    HistoryChanged,
    LogInconsistent,
    Misconfigured,
    NotFound,
    StorageUnavailable,
    Unavailable,
)
from secure_cache.provenance.event import EntryQuarantined, KeysChanged, PolicyTookEffect
from secure_cache.provenance.keys import KeyRing, KeyStatus, ring_of
from secure_cache.tlog.checkpoint import Checkpoint, sign_checkpoint
from secure_cache.tlog.contradiction import Contradiction
from secure_cache.tlog.reader import TreeReader
from secure_cache.tlog.tiles import is_partial_path

pytestmark = pytest.mark.anyio

PINS = new_pins((LOG_KEY.verifier,), "the test")
STRANGER = ed25519_signer(66)
REVOKED = 'revocations: [{ id: one, reason: x, match: { key: "199" } }]'


class Killed(BaseException):
    """The process ends here."""


def origin_of(log, **changes):
    values = {
        "fetch": log.fetch,
        "trust": TRUST,
        "given_ring": partial(log.ring_for, ""),
        "policy_text": log.policy_text,
        **changes,
    }
    return Origin(**values)


async def mirror_of(log, folder, *, anew=False, progress=None, waits=(), told=True, **changes):
    with opened_mirror(folder, PINS) as mirror:
        done = await mirror.bring_up_to_date(
            origin_of(log, **changes), anew=anew, progress=progress, waits=waits
        )
        if told:
            await mirror.told()
        return done


async def problems(folder):
    checked = Checked()
    found = [p async for p in check_mirror(folder, TRUST, read_pins(folder), checked)]
    return found, checked


async def assert_good(folder, log):
    found, checked = await problems(folder)
    assert found == []
    assert checked.size == len(log.leaves)
    tree, expected = tree_of(folder), {**log.tree, "checkpoint": log.files["checkpoint"]}
    assert {path: tree.get(path) for path in expected} == expected
    # Of the checkpoint before, for whoever still reads it.
    assert all(is_partial_path(path) for path in tree.keys() - expected.keys())


def tree_of(folder):
    files = [folder / "checkpoint", *(folder / "tile").rglob("*")]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files if p.is_file()}


def everything(folder):
    """All that was mirrored: not the lock, not what is kept as evidence."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "evidence" not in path.parts and path.name != ".lock"
    }


# growing


@pytest.mark.parametrize("sizes", [(2, 3, 255, 256, 257), (300, 511, 512, 513, 2000), (1, 1)])
async def test_a_mirror_is_the_log_file_by_file_at_every_size(tmp_path, sizes):
    log, folder = SignedLog(), tmp_path / "mirror"
    before = 0
    for size in sizes:
        log.grow_to(size)
        done = await mirror_of(log, folder)
        assert (done.before, done.checkpoint.size) == (before, len(log.leaves))
        assert done.judgement.bad == []
        await assert_good(folder, log)
        before = len(log.leaves)


async def test_who_reads_a_mirror_while_it_grows_is_not_told_of_damage(tmp_path):
    """He has read the older checkpoint, and asks for its last tiles a moment later."""
    log, folder = SignedLog().grow_to(300), tmp_path / "mirror"
    await mirror_of(log, folder)
    files = LogFolder(folder)
    reader = TreeReader(files, TRUST.open(await files("checkpoint")))
    log.grow_to(400)
    await mirror_of(log, folder)
    assert [index async for index, _ in reader.entries()] == list(range(300))
    log.grow_to(450)
    await mirror_of(log, folder)
    assert sorted(path.name for path in (folder / "tile/0").rglob("*.p/*")) == ["144", "194"]


async def test_a_level_of_tiles_more_is_mirrored_too(tmp_path):
    log = SignedLog().grow_to(256 * 256 // 64)
    await mirror_of(log, tmp_path / "mirror")
    log.grow_to(256 * 5)
    await mirror_of(log, tmp_path / "mirror")
    await assert_good(tmp_path / "mirror", log)


async def test_only_what_is_new_is_fetched(tmp_path):
    log = SignedLog().grow_to(1000)
    await mirror_of(log, tmp_path / "mirror")
    log.asked.clear()
    log.grow_to(1100)
    await mirror_of(log, tmp_path / "mirror")
    assert "tile/entries/000" not in log.asked
    assert "tile/entries/002" not in log.asked
    assert "tile/entries/003" in log.asked
    log.asked.clear()
    done = await mirror_of(log, tmp_path / "mirror")
    assert done.before == done.checkpoint.size
    assert not any(path.startswith("tile/entries/000") for path in log.asked)


async def test_policies_and_keys_are_kept_by_their_digests(tmp_path):
    log, folder = SignedLog(), tmp_path / "mirror"
    log.add_policy(b"version: 2\n")
    await mirror_of(log, folder)
    kept = {path.name: path.read_bytes() for path in (folder / "policies").iterdir()}
    assert kept == {f"{digest}.yaml": text for digest, text in log.policies.items()}
    (ring,) = (folder / "keys").iterdir()
    assert ring.read_bytes() == log.ring
    assert ring.name == f"{Digest.of(log.ring)}.json"


async def test_a_policy_that_is_not_to_be_had_is_said_and_asked_for_again(tmp_path):
    log, folder = SignedLog(), tmp_path / "mirror"
    ((digest, text),) = log.policies.items()
    log.policies.clear()
    assert list((await mirror_of(log, folder)).missing_policies) == [digest]
    await assert_good(folder, log)

    async def another(_sha256):
        raise CorruptObject("another text")

    done = await mirror_of(log, folder, policy_text=another)
    assert done.missing_policies == {digest: "another text"}
    log.policies[digest] = text
    assert (await mirror_of(log, folder)).missing_policies == {}
    assert (folder / "policies" / f"{digest}.yaml").read_bytes() == text


# what is in it


async def test_entries_that_the_keys_did_not_sign_are_counted_and_kept(tmp_path):
    log, folder = SignedLog().grow_to(300), tmp_path / "mirror"
    log.leaves += [b"junk", leaf_of(numbered(301), STRANGER)]
    log.grow_to(400)
    done = await mirror_of(log, folder)
    assert [index for index, _ in done.judgement.bad] == [300, 301]
    assert done.judgement.bad_count == 2
    assert tree_of(folder) == {**log.tree, "checkpoint": log.files["checkpoint"]}
    found, _ = await problems(folder)
    assert ["evidence" in problem.remedy for problem in found] == [True, True]
    assert "entry 300" in found[0].what
    # A later run tells of what is new.
    log.grow_to(500)
    assert (await mirror_of(log, folder)).judgement.bad == []


async def test_bad_entries_are_told_again_until_somebody_was_told(tmp_path):
    """A run may die between its last file and its last word."""
    log, folder = SignedLog().grow_to(300), tmp_path / "mirror"
    await mirror_of(log, folder)
    log.leaves.append(b"junk")
    log.publish()
    for size in (301, 310):
        log.grow_to(size)
        done = await mirror_of(log, folder, told=False)
        assert (done.checkpoint.size, done.judgement.bad_count) == (size, 1)
        await assert_only_evidence(folder)
    log.leaves.append(b"more junk")
    log.grow_to(320)
    done = await mirror_of(log, folder)
    assert [index for index, _ in done.judgement.bad] == [300, 310]
    assert (await mirror_of(log, folder)).judgement.bad_count == 0
    done = await mirror_of(log, folder, anew=True)
    assert done.judgement.bad_count == 2


async def assert_only_evidence(folder):
    found, _ = await problems(folder)
    assert ["evidence" in problem.remedy for problem in found] == [True]


async def test_an_empty_log_and_one_without_keys_are_no_logs_of_ours(tmp_path):
    log = SignedLog()
    log.leaves = [leaf_of(numbered(1))]
    log.publish()
    with pytest.raises(LogInconsistent, match="announces no keys"):
        await mirror_of(log, tmp_path / "mirror")
    assert not (tmp_path / "mirror/checkpoint").exists()


async def test_entries_of_a_revoked_key_are_told_apart_from_forged_ones(tmp_path):
    log, folder = SignedLog().grow_to(20), tmp_path / "mirror"
    new = ed25519_signer(2)
    ring = ring_of(
        [public_key(log.entry_signer, status=KeyStatus.REVOKED), public_key(new)],
    )
    log.entry_signer = new
    log.announce(ring)
    log.leaves.append(b"junk")
    log.grow_to(40)
    done = await mirror_of(log, folder)
    assert (done.judgement.revoked, done.judgement.bad_count) == (20, 1)
    _, checked = await problems(folder)
    assert checked.revoked == 20


async def test_keys_that_are_pinned_count_more_than_those_that_are_announced(tmp_path):
    log = SignedLog().grow_to(10)
    done = await mirror_of(log, tmp_path / "mirror", keys=ring_for(STRANGER))
    assert done.judgement.bad_count == 10


async def test_many_entries_are_judged_by_other_processes(tmp_path):
    log = SignedLog().grow_to(700)
    log.leaves[600] = b"junk"
    log.publish()
    tree = TreeReader(log.fetch, TRUST.open(log.files["checkpoint"]))
    told = []
    apart = await judge_entries(
        tree, KeyRing.decode(log.ring), 10, lambda done, of: told.append((done, of)), many=1
    )
    here = await judge_entries(tree, KeyRing.decode(log.ring), 10, None)
    assert apart == here
    assert [index for index, _ in apart.bad] == [600]
    assert told[-1] == (700, 700)


async def test_a_file_in_the_current_folder_becomes_no_module_of_the_helpers(tmp_path, monkeypatch):
    """An auditor may stand in the checkout of whoever is being audited."""
    for name in ("anyio", "msgspec", "pickle", "secure_cache"):
        hostile = f"open({str(tmp_path / 'ran')!r}, 'a')\nraise SystemExit"
        (tmp_path / f"{name}.py").write_text(hostile)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    log = SignedLog().grow_to(700)
    tree = TreeReader(log.fetch, TRUST.open(log.files["checkpoint"]))

    found = await judge_entries(tree, KeyRing.decode(log.ring), 0, None, many=1)

    assert not found.bad
    assert not (tmp_path / "ran").exists()
    assert "PYTHONSAFEPATH" not in os.environ


async def test_a_system_that_cannot_tell_its_free_cores_has_mirrors_too(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    done = await mirror_of(SignedLog().grow_to(10), tmp_path / "mirror")
    assert done.checkpoint.size == 10


async def test_a_helper_that_cannot_be_started_is_an_error_of_ours(tmp_path, monkeypatch):
    log = SignedLog().grow_to(300)
    tree = TreeReader(log.fetch, TRUST.open(log.files["checkpoint"]))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))

    with pytest.raises(Unavailable, match="process"):
        await judge_entries(tree, KeyRing.decode(log.ring), 0, None, many=1)


async def test_a_policy_that_no_key_of_ours_signed_is_not_in_force(tmp_path):
    """Whoever can append could else show an auditor that what was revoked is served."""
    log, folder = SignedLog(), tmp_path / "mirror"
    texts = [mutated().encode(), mutated(("revocations: []", REVOKED)).encode()]
    for text in texts:
        log.add_policy(text)
    forged = PolicyTookEffect(Digest.of(texts[0]), 3, Digest.of(texts[1]))
    log.leaves += [leaf_of_event(forged, signer=STRANGER) for _ in range(150)]
    log.grow_to(200)
    await mirror_of(log, folder)
    async with mirror_audit(folder, clock=time.time) as audit:
        details = await audit.auditor.details(199)
    assert (details.presence.state, details.presence.line) == ("revoked", "revocation one")


async def test_what_no_key_of_ours_signed_is_not_told_of_an_entry(tmp_path):
    log, folder = SignedLog().grow_to(10), tmp_path / "mirror"
    said = EntryQuarantined.of(numbered(5), reason="a bit")
    log.leaves += [leaf_of_event(said, signer=STRANGER) for _ in range(120)]
    log.leaves.append(leaf_of_event(said, signer=log.entry_signer))
    log.publish()
    await mirror_of(log, folder)
    async with mirror_audit(folder, clock=time.time) as audit:
        details = await audit.auditor.details(5)
    assert [row.number for row in details.about] == [130]


async def test_a_mirror_on_a_disk_that_is_read_only_says_who_made_a_file(tmp_path):
    """Its index is whole, and need not be made."""
    log, folder = SignedLog().grow_to(20), tmp_path / "mirror"
    await mirror_of(log, folder)
    place = LogPlace(mirror=folder)
    async with mirror_audit(folder, clock=time.time):
        pass
    lock = folder / "index.sqlite.lock"
    lock.unlink()
    lock.mkdir()
    entry = numbered(5)
    async with open_log_source(place, clock=time.time) as source:
        sought = str(entry.digest), entry.size
        served = await served_as(source, place, *sought, key=None, clock=time.time)
    assert [one.entry.row["index"] for one in served.found] == [5]
    assert served.whole


# keys that change


async def test_keys_are_followed_when_they_change(tmp_path):
    log, folder = SignedLog().grow_to(10), tmp_path / "mirror"
    await mirror_of(log, folder)
    new = ed25519_signer(2)
    old = public_key(log.entry_signer, not_after=2_000_000_000, status=KeyStatus.RETIRED)
    log.entry_signer = new
    log.announce(ring_of([old, public_key(new)]))
    log.grow_to(30)
    done = await mirror_of(log, folder)
    assert done.judgement.bad == []
    assert read_pins(folder).keys_event == 10
    assert len(list((folder / "keys").iterdir())) == 2
    await assert_good(folder, log)


async def test_keys_that_changed_a_moment_ago_are_looked_at_again(tmp_path):
    """The ring is newer than what the log says: the checkpoint is fetched again."""
    log, folder = SignedLog().grow_to(10), tmp_path / "mirror"
    new = ed25519_signer(2)
    ring = ring_of([public_key(log.entry_signer), public_key(new)])
    asked = []

    async def rotates():
        asked.append(len(log.leaves))
        if len(asked) == 2:
            log.announce(ring)
        return ring.encode()

    done = await mirror_of(log, folder, given_ring=rotates, waits=(0, 0, 0))
    assert asked == [10, 10, 11]
    assert done.checkpoint.size == 11
    await assert_good(folder, log)


async def test_keys_that_the_log_never_announced_are_refused(tmp_path):
    log = SignedLog().grow_to(10)
    log.ring = ring_for(STRANGER).encode()
    with pytest.raises(LogInconsistent, match="entry 0 of the log announces"):
        await mirror_of(log, tmp_path / "mirror", waits=(0,))
    log.announce(ring_for(STRANGER), by=log.entry_signer)
    with pytest.raises(LogInconsistent, match="did not sign its own event"):
        await mirror_of(log, tmp_path / "mirror")
    assert not (tmp_path / "mirror/checkpoint").exists()


@pytest.mark.parametrize("who", ["hides the newer keys", "appends without a key"])
async def test_an_announcement_of_keys_that_nobody_has_is_an_entry_like_any_other(tmp_path, who):
    """Either the server hides the newest ring, or somebody who could append lies: nobody can tell
    the two apart without that ring, and both are loud."""
    log, folder = SignedLog().grow_to(10), tmp_path / "mirror"
    unknown = ring_for(STRANGER)
    log.leaves.append(leaf_of_event(KeysChanged(unknown.digest), signer=STRANGER))
    log.grow_to(20)
    done = await mirror_of(log, folder, waits=(0,))
    assert [index for index, _ in done.judgement.bad] == [10]
    assert read_pins(folder).keys_event == 0
    found, _ = await problems(folder)
    assert ["entry 10" in problem.what for problem in found] == [True], who


async def test_an_announcement_of_the_right_keys_by_a_stranger_ends_no_mirroring(tmp_path):
    log, folder = SignedLog().grow_to(10), tmp_path / "mirror"
    right = KeysChanged(KeyRing.decode(log.ring).digest)
    log.leaves.append(leaf_of_event(right, signer=STRANGER))
    log.grow_to(20)
    done = await mirror_of(log, folder, waits=(0,))
    assert [index for index, _ in done.judgement.bad] == [10]
    assert read_pins(folder).keys_event == 0
    async with mirror_audit(folder, clock=time.time) as audit:
        assert (await audit.auditor.details(15)).signature.valid


async def test_keys_that_everybody_knows_only_at_the_next_run_are_taken_then(tmp_path):
    """A replica that knew the old ring alone was asked first: that must not end the mirror."""
    log, folder = SignedLog().grow_to(10), tmp_path / "mirror"
    new = ed25519_signer(2)
    old_ring = log.ring
    log.announce(ring_of([public_key(log.entry_signer), public_key(new)]), by=new)
    log.grow_to(20)

    async def behind():
        return old_ring

    done = await mirror_of(log, folder, given_ring=behind, waits=(0,))
    assert [index for index, _ in done.judgement.bad] == [10]
    log.grow_to(30)
    done = await mirror_of(log, folder, waits=(0,))
    assert done.judgement.bad == []
    assert read_pins(folder).keys_event == 10
    await assert_good(folder, log)


# crashes


@pytest.mark.parametrize("after", range(4))
async def test_a_run_that_is_killed_leaves_a_good_mirror_and_the_next_goes_on(tmp_path, after):
    log, folder = SignedLog().grow_to(300), tmp_path / "mirror"
    await mirror_of(log, folder)
    before = tree_of(folder)["checkpoint"]
    log.grow_to(256 * 10)
    steps = iter(range(after))

    def dies(*_):
        if next(steps, None) is None:
            raise Killed

    with pytest.raises((Killed, BaseExceptionGroup)):
        await mirror_of(log, folder, progress=dies)
    # As if it had been in the middle of a file.
    (folder / "tile/entries/.new-half").write_bytes(b"half")
    assert tree_of(folder)["checkpoint"] == before
    found, checked = await problems(folder)
    assert (found, checked.size) == ([], 300)

    log.asked.clear()
    done = await mirror_of(log, folder)
    assert (done.before, done.checkpoint.size) == (300, 2560)
    await assert_good(folder, log)
    if after:
        # What was fetched is not fetched again.
        assert log.asked["tile/entries/002"] == 0
    assert not list(folder.rglob(".new-*"))


@pytest.mark.parametrize("after", range(1, 5))
async def test_death_between_the_last_files_leaves_a_mirror_that_is_right(
    tmp_path, after, monkeypatch
):
    """Keys are changed, and the run dies after each of the last writes; also of the first run."""
    log, folder = SignedLog().grow_to(10), tmp_path / "mirror"
    writes, put = [], mirror_module.put

    def dies(path, data):
        put(path, data)
        if path.name in {"mirror.json", "checkpoint"}:
            writes.append(path.name)
            if len(writes) == after:
                raise Killed

    for grown in (False, True):
        if grown:
            new = ed25519_signer(2)
            ring = ring_of([public_key(log.entry_signer), public_key(new)])
            log.entry_signer = new
            log.announce(ring)
            log.grow_to(30)
        with monkeypatch.context() as patch, suppress(Killed):
            writes.clear()
            patch.setattr(mirror_module, "put", dies)
            await mirror_of(log, folder)
        if (folder / "checkpoint").exists():
            found, _ = await problems(folder)
            assert found == []
            async with mirror_audit(folder, clock=time.time) as audit:
                last = audit.index.state().size - 1
                assert (await audit.auditor.details(last)).signature.valid
    await mirror_of(log, folder)
    assert read_pins(folder).keys_event == 10
    await assert_good(folder, log)


async def test_a_server_that_fails_in_the_middle_is_asked_again_by_the_next_run(tmp_path):
    log, folder = SignedLog().grow_to(256 * 10), tmp_path / "mirror"
    log.lies["tile/entries/009"] = Unavailable("a fault")
    with pytest.raises(Unavailable, match="a fault"):
        await mirror_of(log, folder)
    log.lies.clear()
    log.asked.clear()
    await mirror_of(log, folder)
    assert log.asked["tile/entries/003"] == 0
    await assert_good(folder, log)


async def test_a_token_that_is_not_an_auditors_is_said(tmp_path):
    log = SignedLog().grow_to(300)
    log.lies["tile/0/000"] = Denied("an auditor's token is needed")
    with pytest.raises(Denied):
        await mirror_of(log, tmp_path / "mirror")


# lies


@pytest.mark.parametrize("path", ["tile/entries/000", "tile/entries/001.p/44", "tile/0/000"])
@pytest.mark.parametrize("how", ["one bit", "cut short", "nothing", "more", "missing", "another"])
async def test_what_does_not_lead_to_the_root_is_never_kept(tmp_path, path, how):
    log, folder = SignedLog().grow_to(300), tmp_path / "mirror"
    data = log.files[path]
    log.lies[path] = {
        "one bit": flipped(data, 8 * len(data) // 2),
        "cut short": data[:-1],
        "nothing": b"",
        "more": data + b"\0",
        "missing": CorruptObject("too large"),
        "another": log.files["tile/0/001.p/44"],
    }[how]
    with pytest.raises((LogInconsistent, CorruptObject)):
        await mirror_of(log, folder)
    assert not (folder / "checkpoint").exists()
    assert log.lies[path] not in everything(folder).values()
    log.lies.clear()
    await mirror_of(log, folder)
    await assert_good(folder, log)


@pytest.mark.parametrize(
    "note",
    [b"", b"\0" * 100, b"x" * 2_000_000, b"cache.example.com/manifest/2026\n1\nAA==\n\n"],
)
async def test_a_checkpoint_that_nobody_signed_is_refused(tmp_path, note):
    log = SignedLog().grow_to(10)
    log.lies["checkpoint"] = note
    with pytest.raises(LogInconsistent, match=r"does not verify|not well formed"):
        await mirror_of(log, tmp_path / "mirror")


async def test_a_checkpoint_of_another_key_is_refused(tmp_path):
    log, folder = SignedLog().grow_to(10), tmp_path / "mirror"
    await mirror_of(log, folder)
    before = everything(folder)
    other = SignedLog(signer=OTHER_LOG_KEY).grow_to(20)
    with pytest.raises(LogInconsistent, match="does not verify"):
        await mirror_of(other, folder)
    assert everything(folder) == before


async def test_a_checkpoint_of_more_entries_than_there_are_ends_at_once(tmp_path):
    log = SignedLog().grow_to(10)
    log.lies["checkpoint"] = done(sign_checkpoint(Checkpoint(ORIGIN, 2**62, b"\1" * 32), LOG_KEY))
    with pytest.raises(LogInconsistent, match="missing"):
        await mirror_of(log, tmp_path / "mirror")
    assert sum(log.asked.values()) < 30


# another history


def evidence(folder):
    (found,) = (folder / "evidence").iterdir()
    return {path.name: path.read_bytes() for path in found.iterdir()}


async def test_a_log_that_was_put_back_is_refused_and_both_checkpoints_kept(tmp_path):
    log, folder = SignedLog().grow_to(300), tmp_path / "mirror"
    await mirror_of(log, folder)
    before = everything(folder)
    back = SignedLog().grow_to(200)
    for _ in range(2):
        with pytest.raises(HistoryChanged, match=r"put back to an older state.*evidence"):
            await mirror_of(back, folder)
    assert everything(folder) == before
    assert evidence(folder) == {
        "older.checkpoint": log.files["checkpoint"],
        "newer.checkpoint": back.files["checkpoint"],
    }
    # Put right, it goes on.
    log.grow_to(310)
    await mirror_of(log, folder)
    await assert_good(folder, log)


@pytest.mark.parametrize("size", [300, 301, 900])
async def test_two_histories_are_refused_and_proved(tmp_path, size):
    log, folder = SignedLog().grow_to(300), tmp_path / "mirror"
    await mirror_of(log, folder)
    before = everything(folder)
    fork = SignedLog().grow_to(size, start=7)
    with pytest.raises(HistoryChanged, match="contradict"):
        await mirror_of(fork, folder)
    assert everything(folder) == before
    kept = evidence(folder)
    older, newer = Contradiction.decode(kept["contradiction.json"]).verify(
        [LOG_KEY.verifier], origin=ORIGIN
    )
    assert (older.size, newer.size) == (300, size)
    assert kept["older.checkpoint"] == log.files["checkpoint"]


async def test_two_roots_for_one_size_are_proved_without_a_tile(tmp_path):
    log, folder = SignedLog().grow_to(300), tmp_path / "mirror"
    await mirror_of(log, folder)
    fork = SignedLog().grow_to(300, start=7)
    fork.files = {"checkpoint": fork.files["checkpoint"]}
    with pytest.raises(HistoryChanged):
        await mirror_of(fork, folder)
    assert "contradiction.json" in evidence(folder)


async def test_a_signed_checkpoint_that_nobody_can_show_is_kept_too(tmp_path):
    """Neither a proof of anything nor a log that goes on: what it hides may be found later."""
    log, folder = SignedLog().grow_to(300), tmp_path / "mirror"
    await mirror_of(log, folder)
    before = everything(folder)
    fork = SignedLog().grow_to(400, start=7)
    fork.lies = dict.fromkeys(fork.tree, b"")
    with pytest.raises(LogInconsistent, match="not shown to lead on from"):
        await mirror_of(fork, folder)
    assert everything(folder) == before
    assert set(evidence(folder)) == {"older.checkpoint", "newer.checkpoint"}


# damage


async def test_any_bit_of_any_tile_is_noticed_and_repaired(tmp_path):
    log, folder = SignedLog().grow_to(300), tmp_path / "mirror"
    await mirror_of(log, folder)
    chance = random.Random(4)
    for _ in range(10):
        name = chance.choice(sorted(log.tree))
        data = log.tree[name]
        (folder / name).write_bytes(flipped(data, chance.randrange(8 * len(data))))
        found, _ = await problems(folder)
        assert found, name
        assert all("--repair" in problem.remedy for problem in found)
        await mirror_of(log, folder, anew=True)
        await assert_good(folder, log)


@pytest.mark.parametrize("how", ["cut", "emptied", "gone", "grown", "a link", "a folder"])
@pytest.mark.parametrize("name", ["tile/entries/000", "tile/0/001.p/44", "tile/1/000.p/1"])
async def test_a_file_that_is_not_as_it_was_is_named_and_repaired(tmp_path, name, how):
    log, folder = SignedLog().grow_to(300), tmp_path / "mirror"
    await mirror_of(log, folder)
    path = folder / name
    data = path.read_bytes()
    path.unlink()
    match how:
        case "cut":
            path.write_bytes(data[:-7])
        case "emptied":
            path.write_bytes(b"")
        case "grown":
            path.write_bytes(data + b"x" * 32)
        case "a link":
            (tmp_path / "elsewhere").write_bytes(data)
            path.symlink_to(tmp_path / "elsewhere")
        case "a folder":
            path.mkdir()
    found, _ = await problems(folder)
    assert any(problem.path.startswith("tile/entries/00") for problem in found)
    if how == "a folder":
        path.rmdir()
    await mirror_of(log, folder, anew=True)
    await assert_good(folder, log)


async def test_an_edited_mirror_json_is_noticed(tmp_path):
    log, folder = SignedLog().grow_to(10), tmp_path / "mirror"
    await mirror_of(log, folder)
    new = ed25519_signer(2)
    log.announce(
        ring_of([public_key(log.entry_signer, status=KeyStatus.REVOKED), public_key(new)]), by=new
    )
    await mirror_of(log, folder)
    path = folder / "mirror.json"
    text = path.read_text()
    # The revoked key would count again.
    document = json.loads(text)
    path.write_text(json.dumps({**document, "keys_event": 0}))
    (problem,) = (await problems(folder))[0]
    assert (problem.path, problem.remedy) == ("mirror.json", "`audit mirror` with --repair")
    await mirror_of(log, folder, anew=True)
    assert path.read_text() == text
    for bad in (
        "",
        "{",
        "[]",
        text.replace(ORIGIN, "another.example.com/log", 1),
        text.replace('"v": 1', '"v": 2'),
        json.dumps({**document, "vkeys": []}),
        json.dumps({**document, "more": 1}),
        json.dumps({**document, "keys_event": -5}),
        json.dumps({**document, "untold": -5}),
    ):
        path.write_text(bad)
        with pytest.raises(CorruptObject, match="begin a new mirror"):
            read_pins(folder)
        with pytest.raises(CorruptObject, match="begin a new mirror"):
            await mirror_of(log, folder)


async def test_a_checkpoint_that_is_gone_makes_no_new_beginning(tmp_path):
    """Else a history that was changed would be taken for the first that was ever seen."""
    log, folder = SignedLog().grow_to(10), tmp_path / "mirror"
    await mirror_of(log, folder)
    (folder / "checkpoint").unlink()
    for anew in (False, True):
        with pytest.raises(LogInconsistent, match="is gone"):
            await mirror_of(SignedLog().grow_to(12, start=1), folder, anew=anew)
    (problem,) = (await problems(folder))[0]
    assert problem.path == "checkpoint"


async def test_a_mirror_that_never_came_to_its_end_is_not_called_damaged(tmp_path):
    log, folder = SignedLog().grow_to(10), tmp_path / "mirror"
    log.lies["checkpoint"] = NotFound("not here")
    with pytest.raises(Misconfigured, match="there is no log"):
        await mirror_of(log, folder)
    with pytest.raises(Misconfigured, match="to its end yet"):
        async with open_log_source(LogPlace(mirror=folder), clock=time.time):
            pass
    log.lies.clear()
    await mirror_of(log, folder)
    await assert_good(folder, log)
    log.lies["checkpoint"] = NotFound("not here")
    with pytest.raises(LogInconsistent, match="no checkpoint any more"):
        await mirror_of(log, folder)


async def test_keys_and_policies_that_are_gone_are_named_and_fetched(tmp_path):
    log, folder = SignedLog().grow_to(10), tmp_path / "mirror"
    await mirror_of(log, folder)
    names = sorted(
        path.relative_to(folder).as_posix()
        for kind in ("keys", "policies")
        for path in (folder / kind).iterdir()
    )
    for name in names:
        (folder / name).unlink()
    found, _ = await problems(folder)
    assert set(names) <= {problem.path for problem in found}
    await mirror_of(log, folder, anew=True)
    await assert_good(folder, log)


async def test_a_damaged_older_tile_says_what_to_do_in_an_ordinary_run(tmp_path):
    log, folder = SignedLog().grow_to(300), tmp_path / "mirror"
    await mirror_of(log, folder)
    (folder / "tile/0/000").write_bytes(b"\0" * 8192)
    log.grow_to(600)
    with pytest.raises(LogInconsistent, match="--repair"):
        await mirror_of(log, folder)
    await mirror_of(log, folder, anew=True)
    await assert_good(folder, log)


# the folder


async def test_thousands_of_policies_that_are_not_to_be_had_leave_a_mirror(tmp_path):
    log, folder = SignedLog().grow_to(3), tmp_path / "mirror"
    for number in range(2000):
        took = PolicyTookEffect(Digest.of(b"%d" % number), number + 2, Digest.of(b""))
        log.leaves.append(leaf_of_event(took, signer=log.entry_signer))
    log.publish()

    async def nowhere(_sha256):
        raise NotFound("not here")

    await mirror_of(log, folder, policy_text=nowhere)
    log.grow_to(2010)
    done = await mirror_of(log, folder, policy_text=nowhere)
    assert len(done.missing_policies) == 2001
    await assert_good(folder, log)


async def test_what_strangers_announce_fills_no_memory_and_asks_for_nothing(tmp_path):
    log, folder, asked = SignedLog(), tmp_path / "mirror", []
    right = KeysChanged(KeyRing.decode(log.ring).digest)
    junk = [leaf_of_event(right, signer=STRANGER)]
    for number in range(500):
        digest = Digest.of(b"%d" % number)
        junk.append(leaf_of_event(KeysChanged(digest), signer=STRANGER))
        junk.append(leaf_of_event(PolicyTookEffect(digest, 2, digest), signer=STRANGER))
    announced = Announced(log.ring)
    for index, leaf in enumerate(log.leaves):
        announced.read(index, leaf)
    tracemalloc.start()
    for index, leaf in enumerate(junk, len(log.leaves)):
        announced.read(index, bytes(bytearray(leaf)))
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert grown < len(b"".join(junk)) / 20
    assert announced.ring(newest=False)[0] == 0

    async def policy_text(sha256):
        asked.append(sha256)
        return await log.policy_text(sha256)

    log.leaves += junk
    log.publish()
    done = await mirror_of(log, folder, policy_text=policy_text)
    assert asked == list(log.policies)
    assert (done.missing_policies, done.judgement.bad_count) == ({}, len(junk))
    found, _ = await problems(folder)
    assert {problem.path.split("/")[0] for problem in found} == {"tile"}


async def test_a_log_whose_keys_sign_policies_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(mirror_entries, "MAX_POLICIES", 3)
    log, folder = SignedLog(), tmp_path / "mirror"
    for number in range(2):
        log.add_policy(b"version: %d" % number)
    await mirror_of(log, folder)
    for number in range(2, 4):
        log.add_policy(b"version: %d" % number)
    with pytest.raises(LogInconsistent, match="more than 3 policies"):
        await mirror_of(log, folder, anew=True)


async def test_two_runs_do_not_write_into_one_mirror(tmp_path):
    log, folder = SignedLog(), tmp_path / "mirror"
    with opened_mirror(folder, PINS), pytest.raises(Unavailable, match="another run"):
        await mirror_of(log, folder)
    await mirror_of(log, folder)


async def test_a_folder_with_something_else_in_it_is_not_made_a_mirror(tmp_path):
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(Misconfigured, match="neither empty nor a mirror"):
        await mirror_of(SignedLog(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(Misconfigured, match="cannot be used"):
        await mirror_of(SignedLog(), tmp_path / "no" / "such")
    with pytest.raises(Misconfigured, match="cannot be used"):
        await mirror_of(SignedLog(), tmp_path / "thesis.tex")


@pytest.mark.parametrize("name", ["tile", "tile/0/x.p", "keys", "policies", "evidence"])
async def test_a_mirror_that_somebody_else_made_leads_nowhere_else(tmp_path, name):
    """What no tree needs is removed, and in the place of a folder a link was put."""
    log, folder, mine = SignedLog().grow_to(300), tmp_path / "mirror", tmp_path / "mine"
    await mirror_of(log, folder)
    (mine / "x.p").mkdir(parents=True)
    for path in (mine / "thesis.tex", mine / "x.p/thesis.tex", mine / ".new-thesis"):
        path.write_bytes(b"...")
    path = folder / name
    if path.exists():
        path.rename(tmp_path / "away")
    path.symlink_to(mine)
    before = everything(mine)
    log.grow_to(310)
    with pytest.raises(CorruptObject, match="is a link"):
        await mirror_of(log, folder)
    assert everything(mine) == before
    path.unlink()
    await mirror_of(log, folder, anew=True)
    await assert_good(folder, log)
    (folder / "index.sqlite").symlink_to(mine / "index.sqlite")
    with pytest.raises(DamagedIndex, match="is a link"):
        async with mirror_audit(folder, clock=time.time):
            pass
    assert everything(mine) == before


async def test_a_mirror_of_another_log_is_not_gone_on_with(tmp_path):
    folder = tmp_path / "mirror"
    await mirror_of(SignedLog(), folder)
    theirs = new_pins((OTHER_LOG_KEY.verifier,), "elsewhere")
    with pytest.raises(Misconfigured, match="another key"), opened_mirror(folder, theirs):
        pass


async def test_a_full_disk_leaves_the_mirror_as_it_was(tmp_path):
    """The place of the next bundle cannot be written."""
    log, folder = SignedLog().grow_to(200), tmp_path / "mirror"
    await mirror_of(log, folder)
    log.grow_to(300)
    (folder / "tile/0/000").write_bytes(b"in the way")
    (folder / "tile/0/000").unlink()
    (folder / "tile/0/000").mkdir()
    (folder / "tile/0/000/x").write_bytes(b"")
    before = tree_of(folder)["checkpoint"]
    with pytest.raises((StorageUnavailable, Unavailable)):
        await mirror_of(log, folder)
    assert tree_of(folder)["checkpoint"] == before
