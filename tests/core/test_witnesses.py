"""The server and its witnesses: quorum, lies, silence, proof, and several replicas."""

import contextlib
import copy

import anyio
import pytest
from fakes.faults import Fault, FaultyStore
from fakes.logs import EAGER, ORIGIN, SIGNER, grow, grown_log, new_log, open_log, stores_of, until
from fakes.witnesses import NOW, Network, cosigner_of, make_witness, policy_of

from secure_cache.core.contradictions import Contradictions
from secure_cache.core.witness_http import Answer
from secure_cache.core.witnesses import Profile, Witnesses, WitnessOptions
from secure_cache.model.errors import LogInconsistent, Misconfigured, NoQuorum, NotFound
from secure_cache.storage import layout
from secure_cache.storage.memory import MemoryStore
from secure_cache.tlog.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from secure_cache.tlog.note import Ed25519NoteSigner, Note
from secure_cache.tlog.witness_policy import WitnessPolicy
from secure_cache.tlog.witness_wire import add_signatures

pytestmark = pytest.mark.anyio

NAMES = ("w1", "w2", "w3")
VERIFIERS = [SIGNER.verifier]


class Installation:
    """One log over one store, its state, and replicas that share witnesses."""

    def __init__(self, folder, *, names=NAMES, quorum="2", profile=Profile.FAIL_CLOSED, **options):
        self.store = MemoryStore()
        self.state = MemoryStore()
        self.network = Network({name: make_witness(folder / name, SIGNER, name) for name in names})
        self.policy = policy_of(names, quorum)
        self.options = WitnessOptions(profile=profile, **{"timeout_seconds": 0.5} | options)
        self.told = []

    def replica(self, *, clock=lambda: NOW, options=EAGER):
        log = open_log(self.store)
        contradictions = Contradictions(
            state=self.state,
            head=self.store,
            log=log,
            verifier=SIGNER.verifier,
            origin=ORIGIN,
        )
        witnesses = Witnesses(
            policy=self.policy,
            ask=self.network,
            head=self.store,
            log=log,
            verifier=SIGNER.verifier,
            contradictions=contradictions,
            options=self.options,
            clock=clock,
            tell=lambda event, facts: self.told.append((event, facts)),
        )
        service = open_log(
            self.store,
            options=options,
            witnesses=witnesses,
            tell=lambda event, facts: self.told.append((event, facts)),
        )
        return service, witnesses

    def events(self):
        return [event for event, _ in self.told if event != "witness.answered"]

    async def note(self):
        return (await self.store.get("checkpoint", max_bytes=1 << 20)).data

    async def size(self):
        return open_checkpoint(await self.note(), VERIFIERS, origin=ORIGIN).size

    async def witnessed_by(self):
        text = Note.parse(await self.note())
        names = set(self.policy.cosignatures(text.unverified_signatures))
        if self.policy.is_quorum(names):
            self.policy.verify(await self.note(), log=SIGNER.verifier)
        return {name.decode() for name in names}


@pytest.fixture
def make(tmp_path):
    return lambda **options: Installation(tmp_path, **options)


async def begun(installation):
    await new_log(installation.store)
    return installation


async def test_fail_closed_publishes_with_the_quorums_cosignatures(make):
    place = await begun(make())
    log, _ = place.replica()
    await grow(log, (3, 9, 300))
    assert len(await place.witnessed_by()) >= 2
    assert await place.size() == 300
    # What an auditor is given stands for itself.
    proof = await log.proof(7)
    witnessed = place.policy.verify(proof.checkpoint, log=SIGNER.verifier)
    assert proof.verify(b"record 7", VERIFIERS, origin=ORIGIN) == witnessed.checkpoint


async def test_fail_closed_waits_with_two_of_three_dead_and_loses_nothing(make):
    place = await begun(make())
    log, _ = place.replica()
    await grow(log, (3,))
    before = await place.note()
    place.network.dead = {"w2", "w3"}
    log, _ = place.replica()
    async with log.running():
        for number in range(20):
            await log.append(b"waiting %d" % number)
            await anyio.sleep(0.002)
        await until(lambda: "log.unavailable" in place.events())
        assert log.fault is None
        assert await place.note() == before
        assert "log.unwitnessed" in place.events()
        place.network.dead = {"w3"}
        await until(lambda: "log.witnessed" in place.events())
        assert await log.flush(60)
    assert await place.size() == 23
    assert await place.witnessed_by() == {"w1", "w2"}
    entries = {entry async for _, entry in log.entries()}
    assert {b"waiting %d" % number for number in range(20)} <= entries


async def test_a_container_that_is_gone_while_witnesses_are_asked_is_told_as_it_is(make):
    """And not in a group of errors, which would end the server."""
    place = make(profile=Profile.FAIL_OPEN)
    place.store = FaultyStore(place.store)
    log, witnesses = (await begun(place)).replica()
    await grow(log, (3,))
    assert await witnesses.refresh()
    await grow(log, (300,))
    gone = Misconfigured("no container")
    place.store.plan = lambda o: Fault.raising(gone) if o.name.startswith("tile/") else None
    with pytest.raises(Misconfigured):
        await witnesses.refresh()


async def test_fail_closed_never_publishes_without_a_quorum_whoever_is_dead(make):
    place = await begun(make())
    log, _ = place.replica()
    for dead in ({"w1", "w2", "w3"}, {"w1", "w2"}, {"w2", "w3"}):
        place.network.dead = dead
        size = await place.size()
        log, _ = place.replica()
        async with log.running():
            await log.append(b"held back by %d" % len(dead))
            with pytest.raises(NoQuorum):
                await log.flush(5)
        assert await place.size() == size


async def test_fail_closed_asks_no_longer_than_it_may(make):
    place = await begun(make(timeout_seconds=0.05))
    log, _ = place.replica()
    place.network.silent = set(NAMES)
    async with log.running():
        await log.append(b"x")
        with pytest.raises(NoQuorum), anyio.fail_after(20):
            await log.flush(20)


async def test_a_silent_witness_beside_a_quorum_costs_a_grace_and_no_failure(make):
    place = await begun(make(timeout_seconds=60))
    log, _ = place.replica()
    place.network.silent = {"w3"}
    with anyio.fail_after(30):
        await grow(log, (3,))
    assert await place.witnessed_by() == {"w1", "w2"}
    assert "witness.failed" not in place.events()


async def test_fail_open_publishes_at_once_and_adds_cosignatures_when_they_come(make):
    place = await begun(make(profile=Profile.FAIL_OPEN))
    log, witnesses = place.replica()
    await grow(log, (3,))
    assert await place.witnessed_by() == set()
    published = await log.published()
    assert await witnesses.refresh()
    assert len(await place.witnessed_by()) >= 2
    while await witnesses.refresh():
        pass
    assert await place.witnessed_by() == set(NAMES)
    assert not await witnesses.refresh()
    assert await log.published() == published
    assert await log.checkpoint_note() == await place.note()
    await grow(log, (9,))
    assert await place.witnessed_by() == set()


async def test_fail_open_never_stops_for_the_dead_the_silent_or_the_lying(make):
    place = await begun(make(profile=Profile.FAIL_OPEN, timeout_seconds=0.05))
    log, witnesses = place.replica()
    place.network.dead = {"w1"}
    place.network.silent = {"w2"}
    place.network.lies = {
        "w3": Answer(409, b"999999\n"),
        "w3 shown": Answer(200, b"whatever you like\n\n\xe2\x80\x94 x AAAAAAAA\n"),
    }
    async with log.running():
        for size in range(1, 6):
            await log.append(b"%d" % size)
            assert await log.flush(60)
            assert not await witnesses.refresh()
            assert await place.size() == size
        await witnesses.check()
    assert log.fault is None
    assert {"witness.failed", "witness.claimed", "log.unwitnessed"} <= set(place.events())
    assert "witness.proved" not in place.events()


LIES = {
    "nothing": Answer(200, b""),
    "nonsense": Answer(200, b"nonsense\n"),
    "a short signature": Answer(200, "— w1.example.com AAAAAAAA\n".encode()),
    "no size": Answer(409, b""),
    "a size below nothing": Answer(409, b"-1\n"),
    "a size from the future": Answer(409, b"99999999999\n"),
    "the size that was asked": Answer(409, b"0\n"),
    "another tree": Answer(422, b""),
    "no such log": Answer(404, b""),
    "no such key": Answer(403, b""),
    "not well formed": Answer(400, b""),
    "go elsewhere": Answer(302, b""),
    "broken": Answer(500, b"x" * 65_536),
    "a flipped signature": lambda honest: Answer(200, honest.body.replace(b"A", b"B", 1)),
    "an empty line": lambda honest: Answer(200, honest.body * 3 + b"\n"),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_counts_as_no_answer(make, lie):
    place = await begun(make(quorum="any", profile=Profile.FAIL_OPEN))
    log, witnesses = place.replica()
    await grow(log, (3,))
    place.network.lies = {"w1": LIES[lie]}
    for _ in range(3):
        await witnesses.refresh()
    assert await place.witnessed_by() == {"w2", "w3"}
    place.policy.verify(await place.note(), log=SIGNER.verifier)
    await witnesses.check()


async def test_another_witness_cosignature_or_one_of_another_tree_is_not_taken(make):
    place = await begun(make(profile=Profile.FAIL_OPEN))
    log, witnesses = place.replica()
    await grow(log, (3,))
    published = await log.published()
    other = Checkpoint(ORIGIN, 3, bytes(32))
    place.network.lies = {
        "w1": Answer(200, str(cosigner_of("w2").cosign(published, 5)).encode()),
        "w2": Answer(200, str(cosigner_of("w2").cosign(other, 5)).encode()),
    }
    await witnesses.refresh()
    assert await place.witnessed_by() == {"w3"}


async def test_a_witness_that_was_away_is_brought_from_where_it_was(make):
    place = await begun(make())
    log, _ = place.replica()
    await grow(log, (3,))
    place.network.dead = {"w3"}
    await grow(log, (9, 300))
    place.network.dead = set()
    fresh, witnesses = place.replica()
    while await witnesses.refresh():
        pass
    assert await place.witnessed_by() == set(NAMES)
    assert place.network.witnesses["w3"].last(ORIGIN)[1] == await fresh.published()


async def test_replicas_share_the_work_and_neither_fears_the_other(make):
    place = await begun(make())
    replicas = [place.replica() for _ in range(3)]
    async with anyio.create_task_group() as group:
        for number, (log, _) in enumerate(replicas):
            group.start_soon(write_some, log, number)
    assert await place.size() == 60
    assert len(await place.witnessed_by()) >= 2
    assert "log.faulted" not in place.events()
    assert "witness.proved" not in place.events()
    assert "witness.claimed" not in place.events()


async def write_some(log, number):
    async with log.running():
        for item in range(20):
            await log.append(b"%d of replica %d" % (item, number))
            await anyio.sleep(0.001)
        while not await flushed(log):
            pass


async def flushed(log):
    try:
        return await log.flush(60)
    except NoQuorum:
        # Two replicas asked one witness at a time; nothing is lost by asking again.
        return False


async def test_refreshing_replicas_race_with_publishing_ones(make):
    place = await begun(make(profile=Profile.FAIL_OPEN))
    (log, one), (_, other) = place.replica(), place.replica()

    async def refresh(witnesses):
        while True:
            await witnesses.refresh()
            await anyio.sleep(0.001)

    async with anyio.create_task_group() as group:
        group.start_soon(refresh, one)
        group.start_soon(refresh, other)
        await grow(log, range(1, 40))
        group.cancel_scope.cancel()
    while await one.refresh():
        pass
    assert await place.size() == 39
    assert await place.witnessed_by() == set(NAMES)
    assert "witness.proved" not in place.events()


async def rolled_back(make, *, profile):
    """All of the log and all of the state put back together, by somebody with all rights."""
    place = await begun(make(profile=profile))
    log, witnesses = place.replica()
    await grow(log, (5,))
    await witnesses.refresh()
    old = copy.deepcopy(place.store)
    await grow(log, (9,))
    await witnesses.refresh()
    place.store = old
    return place


@pytest.mark.parametrize("profile", list(Profile))
async def test_log_and_state_put_back_together_are_noticed_by_the_witness(make, profile):
    place = await rolled_back(make, profile=profile)
    log, witnesses = place.replica()
    async with log.running():
        await log.append(b"another sixth entry")
        with anyio.fail_after(20):
            while log.fault is None:
                with contextlib.suppress(LogInconsistent):
                    await witnesses.refresh()
                await anyio.sleep(0.01)
        assert "witness.proved" in place.events()
        assert "log.faulted" in place.events()
        with pytest.raises(LogInconsistent):
            await log.append(b"refused")
    kept = [info.name async for info in place.state.list(layout.CONTRADICTION_PREFIX)]
    assert len(kept) == 1
    # A later start, and every other replica, finds it without asking anybody.
    place.network.dead = set(NAMES)
    _, later = place.replica()
    with pytest.raises(LogInconsistent, match="signed with this log's key"):
        await later.check()


async def test_a_log_put_back_to_its_newest_state_goes_on(make):
    place = await begun(make())
    log, witnesses = place.replica()
    await grow(log, (5,))
    old = copy.deepcopy(place.store)
    await grow(log, (9,))
    newest, place.store = place.store, old
    log, witnesses = place.replica()
    with pytest.raises(LogInconsistent):
        await witnesses.refresh()
    with pytest.raises(LogInconsistent):
        await witnesses.check()
    place.store = newest
    log, witnesses = place.replica()
    await witnesses.check()
    await grow(log, (12,))


@pytest.mark.parametrize("sizes", [(5, 5), (5, 9), (9, 5)])
async def test_a_fork_is_proved_by_the_checkpoint_that_the_witness_holds(make, sizes):
    """Somebody with our key showed the witness another log."""
    ours, theirs = sizes
    place = await begun(make(profile=Profile.FAIL_OPEN))
    forged = await grown_log(MemoryStore(), (theirs,), entry=lambda i: b"forged %d" % i)
    from secure_cache.tlog.witness_wire import AddCheckpoint

    place.network.witnesses["w1"].add_checkpoint(
        AddCheckpoint(0, (), await forged.checkpoint_note())
    )
    log, witnesses = place.replica()
    await grow(log, (ours,))
    with pytest.raises(LogInconsistent):
        await witnesses.refresh()
    assert ("witness.proved") in place.events()
    with pytest.raises(LogInconsistent):
        await log.flush()


async def test_a_claim_with_a_checkpoint_of_another_key_or_log_proves_nothing(make):
    place = await begun(make(profile=Profile.FAIL_OPEN))
    log, witnesses = place.replica()
    await grow(log, (5,))
    stranger = Ed25519NoteSigner(ORIGIN, bytes(32))
    for shown in (
        await sign_checkpoint(Checkpoint(ORIGIN, 99, bytes(32)), stranger),
        await sign_checkpoint(
            Checkpoint("other", 99, bytes(32)),
            Ed25519NoteSigner("other", SIGNER._key.private_bytes_raw()),
        ),
        b"",
    ):
        place.network.lies = {"w1": Answer(422, b""), "w1 shown": Answer(200, shown)}
        _, witnesses = place.replica()
        await witnesses.refresh()
        await witnesses.check()
    assert place.events().count("witness.claimed") == 3


async def test_a_confused_witness_that_shows_what_agrees_is_no_alarm(make):
    place = await begun(make(profile=Profile.FAIL_OPEN))
    log, witnesses = place.replica()
    await grow(log, (5,))
    while await witnesses.refresh():
        pass
    await grow(log, (9,))
    place.network.lies = {"w1": Answer(422, b"")}
    _, witnesses = place.replica()
    await witnesses.refresh()
    await witnesses.check()
    assert "witness.claimed" not in place.events()
    assert "witness.proved" not in place.events()


async def test_old_cosignatures_are_renewed_and_a_wrong_clock_is_not_asked_for_ever(make):
    place = await begun(make(profile=Profile.FAIL_OPEN, refresh_seconds=600))
    log, witnesses = place.replica()
    await grow(log, (5,))
    while await witnesses.refresh():
        pass
    note = await place.note()
    _, later = place.replica(clock=lambda: NOW + 601)
    await later.refresh()
    asked = len(place.network.asked)
    # Their clocks stand still: what they gave now is as old by its time as what they gave then.
    await later.refresh()
    assert len(place.network.asked) == asked
    for witness in place.network.witnesses.values():
        witness._clock = lambda: NOW + 700
    _, much_later = place.replica(clock=lambda: NOW + 701)
    assert await much_later.refresh()
    assert await place.note() != note
    assert len(Note.parse(await place.note()).unverified_signatures) == 4


async def test_a_wrong_line_in_a_witness_name_is_removed(make):
    place = await begun(make(profile=Profile.FAIL_OPEN))
    log, witnesses = place.replica()
    await grow(log, (5,))
    wrong = cosigner_of("w1").cosign(Checkpoint(ORIGIN, 6, bytes(32)), int(NOW))
    stored = await place.store.get("checkpoint", max_bytes=1 << 20)
    spoiled = add_signatures(stored.data, [wrong])
    await place.store.replace("checkpoint", spoiled, expected=stored.info.version)
    place.network.dead = {"w1"}
    while await witnesses.refresh():
        pass
    assert await place.witnessed_by() == {"w2", "w3"}
    place.policy.verify(await place.note(), log=SIGNER.verifier)


async def test_only_looking_asks_nobody_and_knows_whether_it_is_witnessed(make):
    place = await begun(make(profile=Profile.FAIL_OPEN))
    log, witnesses = place.replica()
    assert not await witnesses.refresh()
    await grow(log, (5,))
    assert not await witnesses.refresh(asks=False)
    assert place.network.asked == []
    assert "log.unwitnessed" not in place.events()
    assert witnesses.trouble is None
    witnesses._unwitnessed_since -= 61
    assert "too few" in witnesses.trouble


async def test_what_an_operator_takes_away_while_it_is_looked_at_ends_no_server(make):
    place = await begun(make())
    await place.state.create(layout.contradiction("0" * 64), b"gone in a moment\n")
    place.state = FaultyStore(
        place.state, lambda o: Fault.raising(NotFound(o.name)) if o.kind == "get" else None
    )
    _, witnesses = place.replica()
    await witnesses.check()


async def test_a_text_that_our_key_did_not_sign_stops_nobody(make):
    place = await begun(make())
    await place.state.create(layout.contradiction("0" * 64), b"go away\n")
    _, witnesses = place.replica()
    await witnesses.check()


async def test_what_runs_beside_the_log_tells_its_troubles_and_goes_on(make):
    place = await begun(make(profile=Profile.FAIL_OPEN))
    log, witnesses = place.replica()
    await grow(log, (5,))
    checkpoint = await place.store.get("checkpoint", max_bytes=1 << 20)
    await place.store.delete("checkpoint")
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: witnesses.run(asks=True))
        await until(lambda: "witness.not_asked" in place.events())
        await place.store.create("checkpoint", checkpoint.data)
        await until(lambda: place.network.asked)
        group.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("text", "profile"),
    [
        ("quorum none\n", Profile.FAIL_OPEN),
        ("{w1}quorum none\n", Profile.FAIL_CLOSED),
        ("{w1}{mute}group g all w1 mute\nquorum g\n", Profile.FAIL_CLOSED),
        ("{stranger}{w1}quorum w1\n", Profile.FAIL_OPEN),
        ("{ftp}quorum w1\n", Profile.FAIL_OPEN),
        ("{query}quorum w1\n", Profile.FAIL_OPEN),
    ],
)
async def test_a_policy_that_can_not_work_is_refused_at_the_start(make, text, profile):
    key, mute = cosigner_of("w1").verifier, cosigner_of("mute").verifier
    parts = {
        "w1": f"witness w1 {key} http://w1\n",
        "mute": f"witness mute {mute}\n",
        "ftp": f"witness w1 {key} ftp://w1\n",
        "query": f"witness w1 {key} http://user@w1?a\n",
        "stranger": f"log {Ed25519NoteSigner('stranger', bytes(32)).verifier}\n",
    }
    place = make(profile=profile)
    place.policy = WitnessPolicy.parse(text.format(**parts).encode())
    with pytest.raises(Misconfigured):
        place.replica()


async def test_our_own_log_in_the_policy_is_right(make):
    place = make()
    place.policy = policy_of(NAMES, "2", log=SIGNER.verifier)
    place.replica()
    assert stores_of(place.store)["head"] is place.store
