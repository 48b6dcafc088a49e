"""Promises 1, 2 and 3 against every order of events that a search finds.

Jobs of all tiers store and read, the policy changes (tiers move, writers are revoked, epochs
begin), and somebody who can write the store damages, moves and rolls back what is in it. A small
model says what each request must answer. It knows nothing of how the cache works, and for a store
it looks at nothing but the caller's own namespace.
"""

import itertools
from dataclasses import dataclass, field

from anyio.from_thread import start_blocking_portal
from fakes.cache_world import AUDIENCE, cache_world
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from secure_cache.model.clock import rfc3339
from secure_cache.model.errors import AlreadyExists, CorruptObject, Denied, NotFound
from secure_cache.model.names import Namespace
from secure_cache.storage import layout

TIERS = ("contributor", "candidate", "trusted")
BRANCHES = ("main", "stage", "dev")
JOBS = (*BRANCHES, "1", "2")
KEYS = ("1", "2")
SIZES = (1, 70_000)


def namespace(job):
    return f"demo:branch/{job}" if job in BRANCHES else f"demo:pr/{job}"


@dataclass
class Written:
    """One artifact as it was stored, once and for all."""

    job: str
    data: bytes
    tier: int
    epoch: int
    at: int
    object_name: str
    record: bytes = b""
    inline: bool = False
    spoiled: bool = False
    condemned: bool = False


@dataclass
class Rules:
    """The policy, as the model sees it. `revoked`: namespace to the last second that it covers."""

    tiers: dict[str, int] = field(default_factory=lambda: {"main": 2, "stage": 1, "dev": 0})
    epochs: dict[str, int] = field(default_factory=dict)
    revoked: dict[str, int] = field(default_factory=dict)

    def tier(self, job):
        return self.tiers.get(job, 0)

    def reads(self, job):
        """The jobs whose entries `job` reads, the most trusted first, its own last."""
        above = [
            name
            for name in sorted(BRANCHES, key=lambda name: (-self.tier(name), name))
            if name != job and self.tier(name) > 0 and self.tier(name) >= self.tier(job)
        ]
        return [*above, job]

    def hides(self, written):
        return (
            written.tier != self.tier(written.job)
            or written.epoch < self.epochs.get(written.job, 0)
            or written.at <= self.revoked.get(written.job, 0)
        )

    def text(self):
        lines = [
            "version: 1",
            f"audience: {AUDIENCE}",
            "issuers: { self: { preset: self } }",
            "rulesets:",
            "  standard:",
        ]
        for name, when in [(name, f"branch: {name}") for name in BRANCHES] + [
            ("1", "pull_request: any")
        ]:
            reads = [f"branch/{other}" for other in self.reads(name)[:-1]] + ["self"]
            lines.append(
                f"    - {{ name: rule-{name}, when: {{ {when} }}, tier: {TIERS[self.tier(name)]},"
                f" write: self, read: [{', '.join(reads)}] }}"
            )
        lines += ["projects: { demo: { issuers: [self], ruleset: standard } }"]
        items = [f"'{namespace(job)}': {epoch}" for job, epoch in self.epochs.items()]
        lines += [f"epochs: {{ {', '.join(items)} }}"]
        lines += ["revocations:" if self.revoked else "revocations: []"]
        lines += [
            f"  - {{ id: r-{job}, match: {{ namespace: '{namespace(job)}' }},"
            f" until: '{rfc3339(until)}', reason: test }}"
            for job, until in self.revoked.items()
        ]
        return "\n".join(lines) + "\n"


DAMAGED = "a record that does not verify"


class Isolation(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.serial = itertools.count(1)
        self.rules = Rules()
        self.places = {}
        self.history = {}
        self.portal_context = start_blocking_portal()
        self.portal = self.portal_context.__enter__()
        self.world_context = self.portal.wrap_async_context_manager(cache_world())
        self.world = self.world_context.__enter__()

    def teardown(self):
        self.world_context.__exit__(None, None, None)
        self.portal_context.__exit__(None, None, None)

    @initialize(places=st.sets(st.tuples(st.sampled_from(JOBS), st.sampled_from(KEYS)), min_size=3))
    def begin(self, places):
        self.world.edit(self.rules.text())
        for job, key in sorted(places):
            self.store_one(job, key, 1)

    def now(self):
        return int(self.world.clock())

    def caller(self, job):
        if job in BRANCHES:
            return self.world.caller(branch=job, family=f"of-{job}")
        return self.world.caller(pull_request=job, base="main", family=f"of-{job}")

    def stored_record(self, job, key):
        name = layout.record(Namespace.parse(namespace(job)), key)
        return name, self.world.stores["records"].inner

    # what jobs do

    @rule(
        places=st.lists(st.tuples(st.sampled_from(JOBS), st.sampled_from(KEYS)), min_size=1),
        size=st.sampled_from(SIZES),
    )
    def store(self, places, size):
        for job, key in places:
            self.store_one(job, key, size)

    def store_one(self, job, key, size):
        data = f"{next(self.serial)} by {job}".encode().ljust(size, b".")
        standing = self.places.get((job, key))
        visible = isinstance(standing, Written) and not (
            self.rules.hides(standing) or standing.condemned
        )
        try:
            entry = self.portal.call(self.world.store, self.caller(job), key, data)
        except AlreadyExists:
            assert visible, "refused for something outside the caller's own namespace"
            return
        except Denied:
            assert self.now() <= self.rules.revoked.get(job, 0)
            return
        assert not visible, "an entry that can be read was replaced"
        assert self.now() > self.rules.revoked.get(job, 0), "a revoked writer has stored"
        written = Written(
            job=job,
            data=data,
            tier=self.rules.tier(job),
            epoch=self.rules.epochs.get(job, 0),
            at=self.now(),
            object_name=layout.artifact(entry.entry_id, entry.stored_at),
        )
        name, records = self.stored_record(job, key)
        written.record = self.portal.call(lambda: records.get(name, max_bytes=1 << 20)).data
        # Small artifacts stand behind their record, in the same object.
        written.inline = written.record.endswith(data)
        self.places[job, key] = written
        self.history.setdefault((job, key), []).append(written)

    @rule(wait=st.integers(0, 100))
    def everybody_reads(self, wait):
        self.world.clock.advance(wait)
        for job, key in itertools.product(JOBS, KEYS):
            self.read(job, key)

    def read(self, job, key):
        expected = NotFound
        for other in self.rules.reads(job):
            place = self.places.get((other, key))
            if place is None:
                continue
            if place == DAMAGED:
                expected = CorruptObject
                break
            if self.rules.hides(place) or place.condemned:
                continue
            if place.spoiled:
                place.condemned = True
                expected = CorruptObject
            else:
                expected = place
            break
        try:
            data = self.portal.call(self.world.fetch, self.caller(job), key)
        except (NotFound, CorruptObject) as refusal:
            assert type(refusal) is expected  # noqa: PT017
            return
        assert isinstance(expected, Written), f"{data[:40]!r} was served instead of a miss"
        assert data == expected.data
        assert expected.tier >= self.rules.tier(job), "bytes of a lower tier reached a higher one"

    # what the admin does

    @rule(job=st.sampled_from(BRANCHES), tier=st.sampled_from((0, 1, 2)))
    def move_to_a_tier(self, job, tier):
        self.rules.tiers[job] = tier
        self.world.edit(self.rules.text())

    @rule(job=st.sampled_from(JOBS), what=st.sampled_from(("revoke", "forgive", "epoch")))
    def take_back(self, job, what):
        if what == "revoke":
            self.rules.revoked[job] = self.now()
        elif what == "forgive":
            self.rules.revoked.pop(job, None)
        else:
            self.rules.epochs[job] = self.rules.epochs.get(job, 0) + 1
        self.world.edit(self.rules.text())

    # what somebody does who can write the store

    def overwrite(self, job, key, data):
        name, records = self.stored_record(job, key)

        async def change():
            try:
                stored = await records.get(name, max_bytes=1 << 20)
            except NotFound:
                await records.create(name, data)
            else:
                await records.replace(name, data, expected=stored.info.version)

        self.portal.call(change)

    @rule(
        pick=st.integers(0, 99),
        what=st.sampled_from(("copy", "older", "record")),
        data=st.data(),
        look=st.booleans(),
    )
    def tamper_with_a_record(self, pick, what, data, look):
        place = self.one_of(self.history, pick)
        held = self.places.get(place)
        if what == "older" and place is not None:
            older = data.draw(st.sampled_from(self.history[place]))
            self.overwrite(*place, older.record)
            self.places[place] = older
            older.spoiled = older.spoiled and not older.inline
        elif isinstance(held, Written):
            others = [other for other in itertools.product(JOBS, KEYS) if other != place]
            other = place if what == "record" else data.draw(st.sampled_from(others))
            changed = bytes([held.record[60] ^ (other == place)])
            self.overwrite(*other, held.record[:60] + changed + held.record[61:])
            self.places[other] = DAMAGED
        if look:
            self.everybody_reads(0)

    @rule(pick=st.integers(0, 99), look=st.booleans())
    def tamper_with_the_bytes(self, pick, look):
        place = self.one_of([at for at, held in self.places.items() if held != DAMAGED], pick)
        if place is not None and not self.places[place].spoiled:
            self.spoil(place)
        if look:
            self.everybody_reads(0)

    def one_of(self, places, pick):
        found = sorted(places)
        return found[pick % len(found)] if found else None

    def spoil(self, place):
        written = self.places[place]
        if written.inline:
            self.overwrite(*place, written.record[:-1] + bytes([written.record[-1] ^ 1]))
        else:
            artifacts = self.world.stores["artifacts"].inner

            async def change():
                stored = await artifacts.get(written.object_name, max_bytes=1 << 20)
                changed = b"?" + stored.data[1:]
                await artifacts.replace(written.object_name, changed, expected=stored.info.version)

            self.portal.call(change)
        written.spoiled = True

    @invariant()
    def trusted_entries_come_first(self):
        """The model itself: nobody reads below its own tier, or its own before a higher one."""
        for job in JOBS:
            tiers = [self.rules.tier(other) for other in self.rules.reads(job)]
            assert tiers == sorted(tiers, reverse=True)
            assert min(tiers) == self.rules.tier(job)


class TestNoLowerTierReachesAHigherOneInAnyOrderOfEvents(Isolation.TestCase):
    settings = settings(
        max_examples=50,
        stateful_step_count=20,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
