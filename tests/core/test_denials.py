"""Counts of refusals: bounded, kept for all processes, and read back with doubt."""

import json
import random
from collections import Counter

import pytest
import structlog.testing
from fakes.clock import HeldClock
from fakes.faults import MUTATIONS, Fault, FaultyStore
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_cache.compose.denying import Denials
from secure_cache.core import denial_reading
from secure_cache.core.access import Caller
from secure_cache.core.denial_form import decode_counts, encode_counts, hour_of
from secure_cache.core.denial_reading import DenialReader
from secure_cache.core.denials import METHODS, Denial, DenialCounts, denial_of
from secure_cache.model.errors import (
    CorruptObject,
    Denied,
    ExpiredToken,
    InvalidToken,
    NotFound,
    Overloaded,
    Proved,
    Revoked,
    StorageUnavailable,
    TokenProblem,
    WrongFilter,
)
from secure_cache.model.identity import Identity
from secure_cache.model.tiers import Tier
from secure_cache.policy.decision import Decision
from secure_cache.storage import layout
from secure_cache.storage.memory import MemoryStore

pytestmark = pytest.mark.anyio

HOUR = 3600
NOW = 1_800_000_000
HOSTILE = "\x1b[31m<script>\u202e"


def caller(issuer="gha", project="demo", rule="pull-request", tier=Tier.CONTRIBUTOR):
    identity = Identity(issuer, HOSTILE, HOSTILE, (("actor", HOSTILE),), "0" * 64)
    decision = Decision(allowed=True, reason=HOSTILE, project=project, rule=rule, tier=tier)
    return Caller(identity, decision, policy=None)


ANONYMOUS = Caller(None, Decision(allowed=False, reason="no token"), policy=None)


@pytest.mark.parametrize(
    ("method", "error", "who", "expected"),
    [
        (
            "PUT",
            Denied(HOSTILE),
            caller(),
            ("PUT", "denied", "known", "gha", "demo", "pull-request", "contributor"),
        ),
        (
            "HEAD",
            Denied(),
            caller(project=None, rule=None, tier=None),
            ("GET", "denied", "known", "gha", "", "", ""),
        ),
        ("GET", Denied(), ANONYMOUS, ("GET", "denied", "anonymous", "", "", "", "")),
        ("GET", InvalidToken(HOSTILE), None, ("GET", "token-invalid", "unproved", "", "", "", "")),
        (
            "token",
            InvalidToken("", TokenProblem.MISSING),
            None,
            ("token", "token-invalid", "anonymous", "", "", "", ""),
        ),
        (
            "PUT",
            Revoked(HOSTILE).of(Proved("gha", "demo", "main", "trusted")),
            None,
            ("PUT", "revoked", "known", "gha", "demo", "main", "trusted"),
        ),
        (
            "GET",
            ExpiredToken(HOSTILE).of(Proved("gha")),
            None,
            ("GET", "token-expired", "known", "gha", "", "", ""),
        ),
        (HOSTILE, Denied(), ANONYMOUS, ("other", "denied", "anonymous", "", "", "", "")),
    ],
)
def test_what_is_counted_holds_no_text_of_a_stranger(method, error, who, expected):
    assert denial_of(method, error, who) == Denial(*expected)


def test_only_denials_are_counted():
    counts = DenialCounts(clock=HeldClock(NOW))
    for error in (NotFound(), Overloaded(), StorageUnavailable()):
        counts.count("GET", error, caller())
    assert counts.hours == {}


def test_beyond_the_bound_only_method_and_code_are_told_apart():
    counts = DenialCounts(clock=HeldClock(NOW), max_kinds=3)
    for number in range(10):
        counts.count("GET", Denied(), caller(project=f"p{number}"))
    counts.count("PUT", Revoked().of(Proved("gha")))
    (hour,) = counts.hours.values()
    assert hour.counts[Denial("GET", "denied", "other")] == 7
    assert hour.counts[Denial("PUT", "revoked", "other")] == 1
    assert sum(hour.counts.values()) == 11


async def test_hours_that_no_store_takes_are_dropped_in_the_end_and_said_to_be():
    clock = HeldClock(NOW)
    down = FaultyStore(MemoryStore(), lambda operation: Fault.BEFORE)
    denials = Denials(down, clock=clock)
    with structlog.testing.capture_logs() as logs:
        for _ in range(60):
            denials.counts.count("GET", Denied(), caller())
            await denials.records.keep()
            clock.advance(HOUR)
        assert [line["event"] for line in logs] == ["denials.not_kept"]
        assert len(denials.counts.hours) == 48
        down.plan = lambda operation: None
        await denials.records.keep()
        assert logs[-1] == {"event": "denials.lost", "count": 12, "log_level": "warning"}
    seen = await denials.reader.between(NOW, int(clock()))
    assert seen.total == 48
    assert denials.counts.hours == {}


KINDS = [
    Denial("GET", "denied", "anonymous"),
    Denial("PUT", "denied", "known", "gha", "demo", "main", "trusted"),
    Denial("token", "revoked", "known", "gha"),
    Denial("GET", "token-invalid", "unproved"),
]


def refuse(process, kind):
    """Count this kind."""
    errors = {"denied": Denied, "revoked": Revoked, "token-invalid": InvalidToken}
    error = errors[kind.code]()
    if kind.who == "known":
        process.counts.count(kind.method, error.of(Proved(*kind[3:])))
    else:
        process.counts.count(kind.method, error, ANONYMOUS if kind.who == "anonymous" else None)


@settings(max_examples=40)
@given(st.integers(0, 2**32))
async def test_processes_that_crash_and_stores_that_fail_lose_nothing_that_was_kept(seed):
    chance = random.Random(seed)
    clock = HeldClock(NOW)
    store = FaultyStore(MemoryStore(), lambda operation: None)

    def faults(operation):
        if operation.kind in MUTATIONS and chance.random() < 0.3:
            return chance.choice([Fault.BEFORE, Fault.LOST_BEFORE, Fault.LOST_AFTER])
        return None

    processes = [Denials(store, clock=clock) for _ in range(3)]
    expected = Counter()
    for _ in range(40):
        process = chance.choice(processes)
        kind = chance.choice(KINDS)
        refuse(process, kind)
        expected[int(clock()) // HOUR * HOUR, kind] += 1
        if chance.random() < 0.3:
            store.plan = faults
            await process.records.keep()
            store.plan = lambda operation: None
        if chance.random() < 0.1:
            clock.advance(chance.choice([60, HOUR, 5 * HOUR]))
        if chance.random() < 0.1:
            # It ends as a drain does, and another one begins.
            await process.keep_at_the_end()
            processes[processes.index(process)] = Denials(store, clock=clock)
    for process in processes:
        await process.keep_at_the_end()
    for reader in (DenialReader(store), processes[0].reader):
        seen = await reader.between(NOW, int(clock()))
        assert {(cell.start, cell.denial): cell.count for cell in seen.cells} == expected
        assert (seen.total, seen.unreadable, seen.cut) == (expected.total(), 0, False)
    names = [info.name async for info in store.list("denials/")]
    assert len(names) == len(set(names))


async def test_what_is_not_kept_yet_is_seen_by_the_process_itself():
    store, clock = MemoryStore(), HeldClock(NOW)
    ours, other = Denials(store, clock=clock), Denials(store, clock=clock)
    ours.counts.count("GET", Denied(), caller())
    assert (await ours.reader.between(NOW, NOW)).total == 1
    assert (await other.reader.between(NOW, NOW)).total == 0
    await ours.records.keep()
    ours.counts.count("GET", Denied(), caller())
    assert (await ours.reader.between(NOW, NOW)).total == 2
    assert (await other.reader.between(NOW, NOW)).total == 1


async def test_nothing_is_written_when_nothing_changed():
    writes = []
    store = FaultyStore(
        MemoryStore(), lambda operation: writes.append(operation.kind) if operation.data else None
    )
    denials = Denials(store, clock=HeldClock(NOW))
    await denials.records.keep()
    denials.counts.count("GET", Denied(), caller())
    for _ in range(3):
        await denials.records.keep()
    denials.counts.count("GET", Denied(), caller())
    await denials.records.keep()
    assert writes == ["create", "replace"]


async def test_only_the_hours_that_were_asked_for_are_read():
    clock = HeldClock(NOW - NOW % HOUR)
    denials = Denials(MemoryStore(), clock=clock)
    for _ in range(6):
        denials.counts.count("GET", Denied(), caller())
        await denials.records.keep()
        clock.advance(HOUR)
    first = int(NOW - NOW % HOUR)
    seen = await denials.reader.between(first + 2 * HOUR + 5, first + 4 * HOUR)
    assert [cell.start - first for cell in seen.cells] == [2 * HOUR, 3 * HOUR, 4 * HOUR]
    assert seen.by("hour")[0][0] == (layout_hour(first + 2 * HOUR),)
    assert seen.by("who", "tier") == ((("known", "contributor"), 3),)
    for since, until in ((first, first - 1), (first, first + 32 * 86_400)):
        with pytest.raises(WrongFilter):
            await denials.reader.between(since, until)


def layout_hour(at):
    name = layout.denials_of_hour(at // HOUR).split("/")[1]
    return f"{name[:4]}-{name[4:6]}-{name[6:8]}T{name[9:11]}:00:00Z"


def changed(**parts):
    document = {
        "v": 1,
        "hour": "2027-01-15T08:00:00Z",
        "counts": [[1, "GET", "denied", "known", "gha", "demo", "main", "trusted"]],
        **parts,
    }
    return json.dumps(document).encode()


BAD = [
    b"",
    b"{}",
    b"\xff",
    b"[" * 100_000,
    changed()[:-1],
    changed(v=2),
    changed(more=1),
    changed(hour="2027-01-15T09:00:00Z"),
    changed(counts=[[0, "GET", "denied", "known", "gha", "demo", "main", "trusted"]]),
    changed(counts=[[-1, "GET", "denied", "known", "gha", "demo", "main", "trusted"]]),
    changed(counts=[[2**60, "GET", "denied", "known", "gha", "demo", "main", "trusted"]]),
    changed(counts=[[True, "GET", "denied", "known", "gha", "demo", "main", "trusted"]]),
    changed(counts=[[1, "GET", "denied", "known", HOSTILE, "demo", "main", "trusted"]]),
    changed(counts=[[1, "GET", "denied", "known", "g" * 65, "demo", "main", "trusted"]]),
    changed(counts=[[1, "GRAB", "denied", "known", "gha", "demo", "main", "trusted"]]),
    changed(counts=[[1, "GET", "denied"]]),
    changed(counts=[[1, "GET", "denied", "known", "gha", "demo", "main", "trusted"]] * 2),
    b'{"v":1,"v":1,"hour":"2027-01-15T08:00:00Z","counts":[]}',
]


@pytest.mark.parametrize("data", BAD, ids=range(len(BAD)))
async def test_counts_that_nobody_counted_are_left_out_and_said_to_be(data):
    hour = NOW // HOUR
    assert decode_counts(hour, changed())
    with pytest.raises(CorruptObject):
        decode_counts(hour, data)
    store, clock = MemoryStore(), HeldClock(NOW)
    denials = Denials(store, clock=clock)
    denials.counts.count("GET", Denied(), caller())
    await denials.records.keep()
    await store.create(layout.denials(hour, "0" * 16), data)
    # What no process names so is nobody's.
    await store.create(f"{layout.DENIALS_PREFIX}junk", b"")
    await store.create(f"{layout.denials_of_hour(hour)}readme.txt", b"")
    seen = await DenialReader(store).between(NOW - HOUR, NOW + HOUR)
    assert (seen.total, seen.unreadable) == (1, 1)


counts = st.dictionaries(
    st.builds(
        Denial,
        st.sampled_from(METHODS),
        *[st.text("abcXYZ019-_", max_size=64) for _ in range(6)],
    ),
    st.integers(1, 2**53),
    max_size=20,
)


@given(st.integers(0, 10**6), counts)
def test_counts_are_read_as_they_were_written(hour, found):
    assert decode_counts(hour, encode_counts(hour, found)) == found
    assert hour_of(layout.denials(hour, "0123456789abcdef")) == hour


async def test_more_objects_than_are_read_are_cut_and_the_newest_are_shown(monkeypatch):
    monkeypatch.setattr(denial_reading, "MAX_OBJECTS", 4)
    clock = HeldClock(NOW)
    store = MemoryStore()
    for _ in range(6):
        denials = Denials(store, clock=clock)
        denials.counts.count("GET", Denied(), caller())
        await denials.records.keep()
        clock.advance(HOUR)
    seen = await DenialReader(store).between(NOW, int(clock()))
    assert seen.cut
    assert [cell.start for cell in seen.cells] == [
        (NOW // HOUR + number) * HOUR for number in (2, 3, 4, 5)
    ]


async def test_more_kinds_than_are_told_apart_are_cut_and_still_counted(monkeypatch):
    monkeypatch.setattr(denial_reading, "MAX_CELLS", 2)
    denials = Denials(MemoryStore(), clock=HeldClock(NOW))
    for number in range(5):
        denials.counts.count("GET", Denied(), caller(project=f"p{number}"))
    seen = await denials.reader.between(NOW, NOW)
    assert seen.cut
    assert seen.total == 5
    assert (("other",), 3) in seen.by("who")


async def test_a_store_that_fails_while_counts_are_read_is_an_error():
    store = FaultyStore(MemoryStore(), lambda operation: None)
    denials = Denials(store, clock=HeldClock(NOW))
    denials.counts.count("GET", Denied(), caller())
    await denials.records.keep()
    store.plan = lambda operation: Fault.BEFORE if operation.kind == "get" else None
    with pytest.raises(StorageUnavailable):
        await DenialReader(store).between(NOW, NOW)


async def test_what_was_read_is_held_within_bounds(monkeypatch):
    monkeypatch.setattr(denial_reading, "_REMEMBERED_KINDS", 4)
    gets = []
    store = FaultyStore(
        MemoryStore(),
        lambda operation: gets.append(operation.name) if operation.kind == "get" else None,
    )
    for _ in range(3):
        denials = Denials(store, clock=HeldClock(NOW))
        denials.counts.count("GET", Denied(), caller())
        await denials.records.keep()
    reader = DenialReader(store)
    for _ in range(2):
        assert (await reader.between(NOW, NOW)).total == 3
    assert len(reader._read) == 2
    assert len(gets) > 3
