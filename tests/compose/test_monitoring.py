"""Looks of the monitor at a log in a folder: what is told when, and what the state remembers."""

import base64
import json
import threading

import anyio
import anyio.from_thread
import anyio.lowlevel
import pytest
from fakes.audit import T0, leaf_of, leaf_of_event, numbered
from fakes.signed_log import LOG_KEY, ORIGIN, SIGNER, SignedLog
from fakes.statements import ed25519_signer, public_key, ring_for
from fakes.witnesses import cosigner_of, policy_of
from world.server import free_port

from secure_cache.audit.watch import Watch
from secure_cache.audit.watch_rules import WatchRules
from secure_cache.audit.watch_signatures import SigningKeys
from secure_cache.client import monitor_state
from secure_cache.client.mirror_folder import KEYS, PINS, Pins, put
from secure_cache.client.monitor_state import StateFile, opened_state
from secure_cache.client.remote import ServerAddress
from secure_cache.compose import examining
from secure_cache.compose.examining import examine
from secure_cache.compose.log_source import LogPlace
from secure_cache.compose.monitoring import look
from secure_cache.model.digest import Digest
from secure_cache.model.errors import Malformed, Unavailable
from secure_cache.provenance.event import KeysChanged
from secure_cache.provenance.keys import KeyRing, KeyStatus, ring_of
from secure_cache.tlog.checkpoint import open_checkpoint
from secure_cache.tlog.witness_wire import add_signatures

pytestmark = pytest.mark.anyio

HOUR, DAY = 3600, 86_400
NOW = T0 + 10 * DAY
NEXT_KEY = ed25519_signer(2)
POLICY = str(Digest.of(b"version: 1\n"))
RULES = "version: 1\nexpect: [{ name: all, issuer: '*', namespace: 'demo:branch/main' }]\n"


class Outlet:
    def __init__(self):
        self.shown, self.posted, self.fails, self.left = [], [], False, []

    def show(self, alerts):
        self.shown += alerts

    def post(self, alerts):
        if self.fails:
            raise Unavailable("the webhook did not take the alerts: no answer")
        self.posted += alerts

    def leave(self, alerts):
        self.left += alerts


class Watched:
    """A log in a folder, and its monitor.

    Attributes:
        now: what the monitor's clock says.
    """

    def __init__(self, folder):
        self.folder, self.state = folder / "log", folder / "state.json"
        self.log, self.outlet, self.now = SignedLog(), Outlet(), NOW
        self.rules, self.place, self.broken, self.reached = RULES, {}, None, []

    def add(self, *entries):
        self.log.leaves += [leaf if isinstance(leaf, bytes) else leaf_of(leaf) for leaf in entries]
        self.log.publish()

    def show(self):
        for name, data in self.log.files.items():
            put(self.folder / name, data)
        keys = [n for n, leaf in enumerate(self.log.leaves) if b"key-ring" in payload(leaf)]
        vkeys = (str(LOG_KEY.verifier),)
        pins = Pins(v=1, origin=ORIGIN, vkeys=vkeys, source="a test", keys_event=keys[-1])
        put(self.folder / PINS, pins.encode())
        put(self.folder / KEYS / f"{Digest.of(self.log.ring)}.json", self.log.ring)

    async def look(self, *, begin=0, show=True):
        """The codes of the alerts that were shown; what was posted is in `outlet`."""
        if show:
            self.show()
        self.outlet.shown, self.outlet.posted = [], []
        place = LogPlace(**{"mirror": self.folder, **self.place})
        rules = WatchRules.parse(self.rules.encode(), name="rules.yaml")
        with opened_state(self.state) as file:
            looked = await look(
                place,
                rules,
                file,
                self.outlet,
                begin=begin,
                clock=lambda: self.now,
                progress=lambda *reached: self.reached.append(reached),
            )
        assert looked.alerts == len(self.outlet.shown) or looked.broken
        self.broken = looked.broken
        return [alert["alert"] for alert in self.outlet.shown]

    @property
    def posted(self):
        return [alert["alert"] for alert in self.outlet.posted]

    @property
    def remembered(self):
        return json.loads(self.state.read_text())


def payload(leaf):
    return base64.b64decode(json.loads(leaf)["payload"])


def entry(number, **changes):
    return numbered(number, **{"policy_sha256": POLICY, **changes})


@pytest.fixture
def watched(tmp_path):
    made = Watched(tmp_path)
    made.add(entry(2), entry(3))
    return made


NEWS = ["keys-changed", "policy-changed"]


async def test_each_entry_is_judged_once(watched):
    assert await watched.look() == NEWS
    assert await watched.look() == []
    watched.add(entry(4), leaf_of(entry(5), ed25519_signer(66)))
    assert await watched.look() == ["bad-signature"]
    assert watched.posted == ["bad-signature"]
    assert await watched.look() == []


@pytest.mark.parametrize("begin", [None, 2, 4])
async def test_a_first_look_that_begins_later_knows_what_was_announced_before(watched, begin):
    assert await watched.look(begin=begin) == []
    watched.add(entry(4), entry(5, policy_sha256="cd" * 32))
    assert await watched.look(begin=begin) == ["unknown-policy"]
    assert watched.remembered["policies"] == [POLICY]
    assert watched.remembered["policy_number"] == 1


async def test_a_first_look_beyond_the_log_is_a_mistake(watched):
    with pytest.raises(Malformed, match="the log has 4 entries"):
        await watched.look(begin=5)
    assert not watched.state.exists()


async def test_a_state_of_an_older_version_is_gone_on_with(watched):
    await watched.look()
    old = {name: watched.remembered[name] for name in ("v", "origin", "vkeys", "note", "next")}
    watched.state.write_text(json.dumps(old))
    watched.add(entry(4))
    assert await watched.look() == []
    assert watched.remembered["policies"] == [POLICY]


async def test_alerts_that_nobody_took_come_again_with_their_ids(watched):
    await watched.look()
    watched.add(*(entry(number, policy_sha256="cd" * 32) for number in range(4, 8)))
    watched.outlet.fails = True
    with pytest.raises(Unavailable):
        await watched.look()
    first = watched.outlet.shown
    watched.outlet.fails = False
    assert await watched.look() == ["unknown-policy"] * 4
    assert watched.outlet.posted == watched.outlet.shown == first
    assert len({alert["id"] for alert in first}) == 4


async def test_what_was_seen_while_nobody_took_alerts_is_remembered(watched):
    """Else a log could be put back for as long as a webhook is down."""
    await watched.look()
    before = list(watched.log.leaves)
    watched.rules += "max_age: 1d\n"
    watched.add(entry(4, policy_sha256="cd" * 32))
    watched.outlet.fails = True
    for _ in range(3):
        watched.now += DAY - HOUR
        watched.add(entry(len(watched.log.leaves)))
        with pytest.raises(Unavailable):
            await watched.look()
        # The log is reached, and lives: nobody says that it does not.
        assert [alert["alert"] for alert in watched.outlet.shown] == ["unknown-policy"]
    watched.log.leaves = before
    watched.log.publish()
    assert await watched.look() == ["history-changed"]


async def test_a_clock_that_was_wrong_hides_nothing_once_it_is_right(watched):
    watched.rules += "max_age: 1d\n"
    watched.now += 1000 * DAY
    await watched.look()
    watched.add(entry(4))
    watched.show()
    path = watched.folder / "tile/entries/000.p/5"
    assert path.exists()
    path.write_bytes(b"damaged")
    assert await watched.look(show=False) == ["log-inconsistent"]
    watched.now = NOW
    # It was told in the future: it is told again. Afterwards an hour counts as ever.
    assert await watched.look(show=False) == ["log-inconsistent"]
    assert watched.posted == ["log-inconsistent"]
    watched.show()
    await watched.look()
    watched.now += 2 * DAY
    assert await watched.look() == ["stale"]


@pytest.mark.parametrize(
    "changed",
    [
        {"vkeys": ["no key"]},
        {"alive_at": -1},
        {"signed_at": 1 << 60},
        {"standing": {"a": 1 << 60}},
        {"note": "no note"},
        {"next": -1},
    ],
)
async def test_a_state_with_anything_in_it_is_damaged_and_no_defect(watched, changed):
    await watched.look()
    watched.state.write_text(json.dumps({**watched.remembered, **changed}))
    assert await watched.look() == ["log-inconsistent"]


class KilledError(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("after", [False, True])
async def test_a_monitor_that_is_killed_at_any_step_loses_no_alert(
    watched, tmp_path, monkeypatch, after
):
    monkeypatch.setattr(examining, "_BATCH", 3)
    watched.add(*(entry(number, policy_sha256="cd" * 32) for number in range(4, 12)))
    await watched.look()
    assert watched.reached == [(3, 12), (6, 12), (9, 12), (12, 12)]
    wanted = {alert["id"]: alert for alert in watched.outlet.shown}
    assert len(wanted) == 2 + 8
    steps, kill_at = 0, 1

    def dying(name, kind):
        real = getattr(kind, name)

        def step(*arguments):
            nonlocal steps
            steps += 1
            if steps == kill_at and not after:
                raise KilledError
            real(*arguments)
            if steps == kill_at:
                raise KilledError

        monkeypatch.setattr(kind, name, step)

    taken = []
    monkeypatch.setattr(Outlet, "post", lambda _, alerts: taken.extend(alerts))
    for name, kind in (("show", Outlet), ("post", Outlet), ("write", StateFile)):
        dying(name, kind)
    while True:
        watched.state, steps = tmp_path / f"{kill_at}.json", 0
        taken.clear()
        try:
            await watched.look()
        except KilledError:
            await watched.look()
        else:
            break
        # All of them, some perhaps twice, and then word for word the same.
        assert {alert["id"]: alert for alert in taken} == wanted
        assert all(alert == wanted[alert["id"]] for alert in taken)
        assert watched.remembered["next"] == 12
        taken.clear()
        assert await watched.look() == []
        kill_at += 1
    assert kill_at > 4 * 3


async def test_a_monitor_that_is_told_to_stop_does_not_wait_for_a_webhook(watched):
    await watched.look()
    watched.add(entry(4, policy_sha256="cd" * 32))
    began, answered = anyio.Event(), threading.Event()

    def hang(alerts):
        anyio.from_thread.run_sync(began.set, token=token)
        assert answered.wait(30)

    token, reached = anyio.lowlevel.current_token(), watched.remembered["next"]
    watched.outlet.post = hang
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watched.look)
        await began.wait()
        tasks.cancel_scope.cancel()
    assert not answered.is_set()
    answered.set()
    # It says so, and the next run tells it again.
    assert watched.outlet.left == watched.outlet.shown
    assert watched.remembered["next"] == reached
    del watched.outlet.post
    assert await watched.look() == ["unknown-policy"]
    assert watched.outlet.posted == watched.outlet.left


# What is wrong with the log as a whole ------------------------------------------------------------


async def test_a_log_that_is_not_proved_is_an_alert_that_stands(watched):
    await watched.look()
    watched.add(entry(4))
    watched.show()
    bundle = watched.folder / "tile/entries/000.p/5"
    good = bundle.read_bytes()
    bundle.write_bytes(good[:-1] + b"X")

    assert await watched.look(show=False) == ["log-inconsistent"]
    assert "tile/entries/000.p/5 is damaged" in watched.broken
    assert watched.posted == ["log-inconsistent"]
    # Each look shows it; the webhook gets it once an hour.
    assert await watched.look(show=False) == ["log-inconsistent"]
    assert watched.posted == []
    watched.now += HOUR
    assert await watched.look(show=False) == ["log-inconsistent"]
    assert watched.posted == ["log-inconsistent"]

    bundle.write_bytes(good)
    assert await watched.look(show=False) == []
    assert watched.broken is None
    assert watched.remembered["standing"] == {}


async def test_a_broken_log_is_told_whoever_is_down(watched):
    await watched.look()
    (watched.folder / "checkpoint").write_bytes(b"nonsense")
    watched.outlet.fails = True
    assert await watched.look(show=False) == ["log-inconsistent"]
    watched.outlet.fails = False
    # It was not taken: it is posted again, and at once.
    await watched.look(show=False)
    assert watched.posted == ["log-inconsistent"]


async def test_a_state_that_is_damaged_is_told_too(watched):
    await watched.look()
    watched.state.write_text(watched.state.read_text()[:-20])
    for _ in range(2):
        assert await watched.look() == ["log-inconsistent"]
        assert watched.posted == ["log-inconsistent"]
    assert "--from start" in watched.broken


async def test_too_few_witnesses_are_an_alert_also_at_the_first_look(watched):
    watched.place = {"witnesses": policy_of(["w1"])}
    for _ in range(2):
        assert await watched.look() == ["log-inconsistent"]
        assert "not witnessed enough" in watched.broken
    assert not watched.state.exists()
    cosign(watched, NOW)
    assert await watched.look() == NEWS
    assert watched.broken is None


async def test_no_evidence_takes_the_place_of_another(watched):
    watched.add(entry(4))
    await watched.look()
    evidence = watched.state.with_name("state.json.evidence")
    seen = set()
    for size, rewritten in ((4, False), (3, False), (5, True), (6, True)):
        other = SignedLog()
        numbers = range(2, size)
        other.leaves += [leaf_of(entry(number + 100 * rewritten)) for number in numbers]
        other.publish()
        watched.log = other
        assert await watched.look() == ["history-changed"]
        (new,) = set(evidence.iterdir()) - seen
        assert (new / "contradiction.json").exists() is rewritten
        assert str(new) in watched.broken
        seen.add(new)
        kept = {path: path.read_bytes() for path in evidence.rglob("*.*") if path.is_file()}
        # The same once more is no other evidence.
        assert await watched.look() == ["history-changed"]
        assert watched.posted == []
        assert {path: path.read_bytes() for path in kept} == kept
        assert set(evidence.iterdir()) == seen


async def test_a_signed_checkpoint_that_nobody_can_show_is_kept(watched):
    await watched.look()
    first = watched.remembered["note"].encode()
    other = SignedLog()
    other.leaves += [leaf_of(entry(number)) for number in range(100, 110)]
    other.publish()
    (watched.folder / "checkpoint").write_bytes(other.files["checkpoint"])
    for _ in range(2):
        assert await watched.look(show=False) == ["log-inconsistent"]
    assert watched.posted == []
    (pair,) = watched.state.with_name("state.json.evidence").iterdir()
    assert (pair / "older.checkpoint").read_bytes() == first
    assert (pair / "newer.checkpoint").read_bytes() == other.files["checkpoint"]
    assert str(pair) in watched.broken


async def test_a_log_that_was_put_back_and_grows_is_one_alert_and_fills_no_disk(
    watched, monkeypatch
):
    monkeypatch.setattr(monitor_state, "_MAX_PAIRS", 3)
    watched.add(*(entry(number) for number in range(4, 20)))
    await watched.look()
    watched.log, ids = SignedLog(), set()
    for number in range(2, 8):
        watched.add(entry(number))
        assert await watched.look() == ["history-changed"]
        ids.add(watched.outlet.shown[0]["id"])
        assert watched.posted == (["history-changed"] if number == 2 else [])
    assert len(ids) == 1
    assert len(list(watched.state.with_name("state.json.evidence").iterdir())) == 3
    assert "could not be kept" in watched.broken


# Signs of life ------------------------------------------------------------------------------------


def cosign(watched, at):
    note = watched.log.files["checkpoint"]
    checkpoint = open_checkpoint(note, [LOG_KEY.verifier], origin=ORIGIN)
    watched.log.files["checkpoint"] = add_signatures(
        note, [cosigner_of("w1").cosign(checkpoint, at)]
    )


async def test_a_log_that_does_not_grow_is_stale_by_the_clock_here(watched):
    watched.rules += "max_age: 1d\n"
    watched.add(entry(4, stored_at=NOW - HOUR))
    assert await watched.look() == NEWS
    watched.now += DAY - HOUR
    assert await watched.look() == []
    watched.now += 1
    assert await watched.look() == ["stale"]
    assert watched.posted == ["stale"]
    assert await watched.look() == ["stale"]
    assert watched.posted == []
    # An old date is no sign of death: it grew after the last look.
    watched.add(entry(5))
    assert await watched.look() == []


async def test_a_date_in_the_future_hides_nothing(watched):
    watched.rules += "max_age: 1d\n"
    watched.add(entry(4, stored_at=NOW + 1000 * DAY))
    assert await watched.look() == [*NEWS, "stale"]
    watched.add(entry(5, stored_at=NOW + 1000 * DAY))
    assert await watched.look() == []
    watched.now += DAY + 1
    assert await watched.look() == ["stale"]


async def test_a_witness_is_a_sign_of_life_but_not_from_the_future(watched):
    watched.rules += "max_age: 1d\n"
    watched.place = {"witnesses": policy_of(["w1"])}
    cosign(watched, NOW)
    await watched.look()
    watched.now += 3 * DAY
    cosign(watched, watched.now - HOUR)
    assert await watched.look() == []
    cosign(watched, watched.now + 1000 * DAY)
    assert await watched.look() == ["stale"]


async def test_a_log_that_cannot_be_reached_for_long_is_stale_too(watched):
    watched.rules += "max_age: 1d\n"
    watched.add(entry(4, stored_at=NOW))
    await watched.look()
    watched.place = {"mirror": None, "server": ServerAddress(f"http://127.0.0.1:{free_port()}")}
    for later, shown, posted in ((0, [], []), (DAY + 1, STALE, STALE), (0, STALE, [])):
        watched.now += later
        with pytest.raises(Unavailable):
            await watched.look()
        assert [alert["alert"] for alert in watched.outlet.shown] == shown
        assert watched.posted == posted
    watched.place = {}
    watched.add(entry(5, stored_at=watched.now))
    assert await watched.look() == []
    assert watched.remembered["standing"] == {}


STALE = ["stale"]


# Keys ---------------------------------------------------------------------------------------------


def revoke_first_key(watched):
    """As `keys rotate` and `keys revoke`: another key signs from then on."""
    ring = ring_of([public_key(SIGNER, status=KeyStatus.REVOKED), public_key(NEXT_KEY)])
    watched.log.ring = ring.encode()
    event = KeysChanged(ring.digest, added=(NEXT_KEY.keyid,), revoked=(SIGNER.keyid,))
    watched.add(leaf_of_event(event, signer=NEXT_KEY))


@pytest.mark.parametrize("begin", [0, 3, 5])
async def test_entries_from_before_a_revocation_raise_no_alarm(watched, begin):
    revoke_first_key(watched)
    watched.add(leaf_of(entry(5), NEXT_KEY), entry(6))
    found = await watched.look(begin=begin)
    assert found.count("bad-signature") == 1
    assert watched.outlet.shown[-1]["index"] == 6
    assert watched.remembered["revoked"] == {SIGNER.keyid: 4}
    # The place is remembered, and nobody is asked for it again.
    watched.add(entry(7), leaf_of(entry(8), NEXT_KEY))
    assert await watched.look() == ["bad-signature"]


async def test_keys_that_are_pinned_and_old_learn_of_a_revocation_from_the_log(watched):
    watched.place = {"keys": ring_of([public_key(SIGNER), public_key(NEXT_KEY)])}
    revoke_first_key(watched)
    watched.add(entry(5))
    assert await watched.look() == [*NEWS, "keys-changed", "bad-signature"]


async def test_a_ring_that_is_not_the_announced_one_is_not_believed(watched):
    await watched.look()
    ring = ring_for(SIGNER, NEXT_KEY)
    old = watched.log.ring
    watched.log.announce(ring)
    watched.show()
    pins = json.loads((watched.folder / PINS).read_text())
    (watched.folder / PINS).write_text(json.dumps(pins | {"keys_event": 0}))
    put(watched.folder / KEYS / f"{Digest.of(old)}.json", old)
    # It tells what it found, and judges it again when the keys are the right ones.
    assert await watched.look(show=False) == ["keys-changed", "log-inconsistent"]
    assert watched.remembered["next"] == 4
    assert await watched.look() == ["keys-changed"]


async def test_a_retired_key_that_signs_again_is_told_of_also_looks_later(watched):
    old = public_key(SIGNER, not_after=T0 + HOUR, status=KeyStatus.RETIRED)
    ring = ring_of([old, public_key(NEXT_KEY)])
    watched.log.announce(ring, by=NEXT_KEY)
    watched.add(entry(5), leaf_of(entry(6, stored_at=T0 + 3 * HOUR), NEXT_KEY))
    assert await watched.look() == [*NEWS, "keys-changed"]
    assert watched.remembered["signed_at"] == T0 + 3 * HOUR
    watched.add(entry(7))
    assert await watched.look() == ["late-signature"]
    assert await watched.look() == []


# Many ---------------------------------------------------------------------------------------------


async def test_many_entries_are_examined_by_other_processes_and_the_same_is_found():
    leaves = [leaf_of(entry(number)) for number in range(600)]
    leaves[7] = b"junk"
    leaves[300] = leaf_of(entry(300), NEXT_KEY)
    leaves[520] = leaf_of_event(KeysChanged(Digest.of(b"r"), revoked=(NEXT_KEY.keyid,)))
    keys = SigningKeys(KeyRing((public_key(SIGNER),)))

    def watch():
        return Watch(WatchRules.parse(RULES.encode(), name="r"), keys, [POLICY], now=NOW)

    found = [
        watch().settle(5, leaves, await examine(watch(), 5, leaves, apart=apart))
        for apart in (False, True)
    ]
    assert found[0] == found[1]
    alerts, settled = found[0]
    assert settled == 521
    # Their order counts wherever they are examined.
    end = T0 + 20
    old = public_key(SIGNER, not_after=end, status=KeyStatus.RETIRED)
    keys = SigningKeys(ring_of([old, public_key(NEXT_KEY)]))
    late = [leaf_of(entry(number % 20)) for number in range(1200)]
    late[0] = leaf_of(entry(0, stored_at=end + 2 * HOUR), NEXT_KEY)
    for apart in (False, True):
        made = watch()
        found, _ = made.settle(5, late, await examine(made, 5, late, apart=apart))
        assert [alert.index for alert in found] == list(range(6, 1205))
        assert made.newest == end + 2 * HOUR
    assert [(alert.index, alert.alert) for alert in alerts] == [
        (12, "unreadable"),
        (305, "bad-signature"),
        (525, "keys-changed"),
    ]
