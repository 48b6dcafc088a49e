"""A witness that looks by itself: growth, forks, rollbacks, and servers that show rubbish."""

import copy
import json

import anyio
import pytest
from fakes.logs import ORIGIN, SIGNER, grow, grown_log
from fakes.witnesses import NOW, make_witness

from secure_cache.core.witness_follow import Contradicted, Follower
from secure_cache.model.errors import Denied, LogInconsistent, Malformed, NotFound, Unavailable
from secure_cache.storage.memory import MemoryStore
from secure_cache.tlog.checkpoint import Checkpoint, sign_checkpoint
from secure_cache.tlog.contradiction import Contradiction
from secure_cache.tlog.merkle import EMPTY_ROOT
from secure_cache.tlog.note import Ed25519NoteSigner, open_note
from secure_cache.tlog.reader import store_fetch
from secure_cache.tlog.witness import KnownLog

pytestmark = pytest.mark.anyio


class Following:
    """A follower, and the log that it is shown at the moment."""

    def __init__(self, folder, store):
        self.store = store
        self.witness = make_witness(folder, SIGNER)
        self.folder = folder
        self.paused = []
        self.follower = Follower(
            witness=self.witness,
            logs={ORIGIN: KnownLog(ORIGIN, (SIGNER.verifier,))},
            fetch=self.fetch,
            clock=lambda: NOW,
            pause=self.pause,
        )

    async def fetch(self, path):
        if path == "checkpoint":
            return (await self.store.get("checkpoint", max_bytes=1 << 20)).data
        return await store_fetch(self.store, self.store)(path)

    async def pause(self, seconds):
        self.paused.append(seconds)
        await anyio.lowlevel.checkpoint()

    async def look(self):
        return await self.follower.look()

    def evidence(self, kind):
        return sorted(self.folder.glob(f"*/evidence-{kind}-*"))


@pytest.fixture
def follow(tmp_path):
    return lambda store: Following(tmp_path / "state", store)


async def test_it_cosigns_growth_and_says_what_it_saw(follow):
    store = MemoryStore()
    log = await grown_log(store, (3,))
    following = follow(store)
    before = 0
    for size in (3, 5, 255, 256, 300, 300):
        if size > before:
            await grow(log, (size,))
        found = await following.look()
        assert (found.before, found.checkpoint.size) == (before, size)
        note = open_note(found.note, [following.witness._cosigners[0].verifier])
        assert Checkpoint.parse(note.text) == found.checkpoint
        before = size
    assert following.paused == []


async def test_an_empty_log_is_followed_from_its_beginning(follow):
    store = MemoryStore()
    log = await grown_log(store, ())
    following = follow(store)
    assert (await following.look()).checkpoint.size == 0
    await grow(log, (5,))
    assert (await following.look()).before == 0
    assert (await following.look()).before == 5


@pytest.mark.parametrize("sizes", [(5, 5), (5, 9), (8, 9), (4, 300), (256, 300)])
async def test_a_fork_is_told_with_proof_that_anybody_can_check(follow, sizes):
    before, after = sizes
    store, forged = MemoryStore(), MemoryStore()
    await grown_log(store, (before,))
    await grown_log(forged, (after,), entry=lambda i: b"forged %d" % i)
    following = follow(store)
    await following.look()
    kept = following.witness.last(ORIGIN)
    following.store = forged
    for _ in range(2):
        with pytest.raises(Contradicted, match="forked") as caught:
            await following.look()
        assert caught.value.kind == "fork"
    (file,) = following.evidence("fork")
    assert caught.value.evidence == str(file)
    older, newer = Contradiction.decode(file.read_bytes()).verify([SIGNER.verifier], origin=ORIGIN)
    assert (older.size, newer.size) == sizes
    assert following.witness.last(ORIGIN) == kept
    following.store = store
    await following.look()


async def test_a_rollback_is_told_after_a_second_look_with_both_signed_notes(follow):
    store = MemoryStore()
    log = await grown_log(store, (5,))
    old = copy.deepcopy(store)
    await grow(log, (9,))
    following = follow(store)
    await following.look()
    following.store = old
    with pytest.raises(Contradicted, match="rolled back") as caught:
        await following.look()
    assert caught.value.kind == "rollback"
    assert len(following.paused) == 1
    document = json.loads(following.evidence("rollback")[0].read_text())
    sizes = [
        Checkpoint.parse(open_note(document[name].encode(), [SIGNER.verifier]).text).size
        for name in ("cosigned", "servedLater")
    ]
    assert sizes == [9, 5]
    ours = [following.witness._cosigners[0].verifier]
    assert open_note(document["cosigned"].encode(), ours).signatures


async def test_a_cache_that_is_a_moment_behind_is_no_rollback(follow):
    store = MemoryStore()
    log = await grown_log(store, (5,))
    old = copy.deepcopy(store)
    await grow(log, (9,))
    following = follow(store)
    await following.look()
    following.store = old

    async def catch_up(_seconds):
        following.store = store
        await anyio.lowlevel.checkpoint()

    following.follower._pause = catch_up
    assert (await following.look()).checkpoint.size == 9


async def test_what_does_not_lead_to_the_signed_root_is_not_cosigned(follow):
    store = MemoryStore()
    await grown_log(store, (300,))
    for name in ("tile/0/000", "tile/0/001.p/44", "tile/1/000.p/1"):
        damaged = copy.deepcopy(store)
        stored = await damaged.get(name, max_bytes=1 << 20)
        data = bytearray(stored.data)
        data[-1] ^= 1
        await damaged.replace(name, bytes(data), expected=stored.info.version)
        following = follow(store)
        following.store = damaged
        if following.witness.last(ORIGIN) is None and name == "tile/0/000":
            # The first look needs the right edge only.
            await following.look()
            continue
        with pytest.raises(LogInconsistent):
            await following.look()


async def test_a_tree_whose_tiles_are_not_shown_is_not_cosigned(follow):
    store = MemoryStore()
    log = await grown_log(store, (5,))
    following = follow(store)
    await following.look()
    await grow(log, (300,))
    await store.delete("tile/0/000")
    with pytest.raises(LogInconsistent, match="missing"):
        await following.look()
    assert following.witness.last(ORIGIN)[1].size == 5


async def test_strangers_are_not_followed(follow):
    async def shown(note):
        store = MemoryStore()
        await store.create("checkpoint", note)
        return await follow(store).look()

    stranger = Ed25519NoteSigner("stranger.example.com", bytes(32))
    forger = Ed25519NoteSigner(ORIGIN, bytes(32))
    empty = Checkpoint(ORIGIN, 0, EMPTY_ROOT)
    with pytest.raises(NotFound):
        await shown(await sign_checkpoint(Checkpoint(stranger.name, 0, EMPTY_ROOT), stranger))
    with pytest.raises(LogInconsistent):
        await shown(await sign_checkpoint(empty, forger))
    for rubbish in (b"", b"<html>", b"\xff"):
        with pytest.raises(Malformed):
            await shown(rubbish)
    with pytest.raises(Unavailable):
        await follow(MemoryStore()).look()


async def test_no_right_to_the_tiles_is_said_so(follow):
    store = MemoryStore()
    await grown_log(store, (5,))
    following = follow(store)

    async def closed(path):
        if path != "checkpoint":
            raise Denied("an auditor's token is needed")
        return await following.fetch(path)

    following.follower._fetch = closed
    with pytest.raises(Denied):
        await following.look()
    assert following.witness.last(ORIGIN) is None


async def test_a_witness_that_is_brought_newer_checkpoints_meanwhile_accuses_nobody(follow):
    """The log submits to the same witness while it looks: what it fetched a moment ago is then
    smaller than what was cosigned, and nobody has put anything back."""
    store = MemoryStore()
    log = await grown_log(store, (5,))
    following, submitted = follow(store), follow(store)
    await following.look()
    plain, size = following.fetch, 5

    async def fetch(path):
        nonlocal size
        data = await plain(path)
        if path == "checkpoint":
            size += 1
            await grow(log, (size,))
            await submitted.look()
        return data

    following.follower._fetch = fetch
    with pytest.raises(Unavailable, match="goes on"):
        await following.look()
    following.follower._fetch = plain
    assert (await following.look()).checkpoint.size == size
    assert not following.evidence("rollback")


async def test_two_followers_over_one_folder_agree(follow):
    store = MemoryStore()
    log = await grown_log(store, (5,))
    one, two = follow(store), follow(store)
    await one.look()
    await grow(log, (9,))
    async with anyio.create_task_group() as group:
        group.start_soon(one.look)
        group.start_soon(two.look)
    assert one.witness.last(ORIGIN) == two.witness.last(ORIGIN)
    assert one.witness.last(ORIGIN)[1].size == 9


async def test_a_state_that_others_change_all_the_time_is_given_up(follow, monkeypatch):
    from secure_cache.tlog.witness import OtherSize

    store = MemoryStore()
    await grown_log(store, (5,))
    following = follow(store)
    monkeypatch.setattr(following.witness, "add_checkpoint", lambda _request: OtherSize(7))
    with pytest.raises(Unavailable, match="another process"):
        await following.look()
