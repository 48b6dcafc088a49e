"""Promise 4: policies and keys that take effect are told to the log, each at least once."""

from contextlib import suppress

import anyio
import anyio.lowlevel
import pytest
from fakes.cache_world import POLICY, cache_world
from fakes.faults import MUTATION_FAULTS, FailOnce, Fault, no_faults

from secure_cache.core.journal import Journal
from secure_cache.model.digest import Digest
from secure_cache.model.errors import AlreadyExists, SecureCacheError
from secure_cache.provenance.event import EntryQuarantined, EntryRemoved, PolicyTookEffect
from secure_cache.provenance.verify import VerifiedEvent, verify_statement
from secure_cache.storage import layout

pytestmark = pytest.mark.anyio


def journal_of(world, **arguments):
    """One more process's."""
    return Journal(
        **{
            "log": world.log,
            "state": world.stores["state"],
            "signer": lambda: world.signer,
            "clock": world.clock,
            "server": "secure-cache/test",
        }
        | arguments
    )


async def no_time(_seconds):
    await anyio.lowlevel.checkpoint()


async def told(world):
    await world.log.flush()
    events = []
    async for _, leaf in world.log.entries():
        statement = verify_statement(leaf, world.ring)
        if isinstance(statement, VerifiedEvent):
            events.append(statement.event.what)
    return events


async def test_a_policy_is_told_once_however_many_processes_start_with_it():
    async with cache_world() as world:
        for _ in range(3):
            await world.journal.policy_in_force(b"first")
        await world.journal.policy_in_force(b"second")
        await world.journal.policy_in_force(b"first")

        assert await told(world) == [
            PolicyTookEffect(Digest.of(b"first"), 1, None),
            PolicyTookEffect(Digest.of(b"second"), 2, Digest.of(b"first")),
            PolicyTookEffect(Digest.of(b"first"), 3, Digest.of(b"second")),
        ]


async def test_processes_that_start_at_the_same_moment_tell_a_policy_once():
    """Of a first start with four workers, five in six told something twice or more."""
    async with cache_world() as world:
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(journal_of(world).policy_in_force, b"first")

        assert await told(world) == [PolicyTookEffect(Digest.of(b"first"), 1, None)]


async def test_what_a_process_that_died_has_not_told_is_told_when_it_has_had_its_time():
    waits = []

    async def pause(seconds):
        waits.append(seconds)

    async with cache_world() as world:
        await world.stores["state"].create(layout.policy_version(1), b"first")
        await journal_of(world, pause=pause).policy_in_force(b"first")

        assert await told(world) == [PolicyTookEffect(Digest.of(b"first"), 1, None)]
        assert 1 < sum(waits) < 10


@pytest.mark.parametrize("fault", MUTATION_FAULTS, ids=["before", "lost-before", "lost-after"])
@pytest.mark.parametrize(
    ("store", "prefix", "nth"),
    [("state", "policy/", 1), ("state", "policy/", 2), ("pending", "", 1)],
)
async def test_a_failure_at_any_step_leaves_no_policy_untold(store, prefix, nth, fault):
    async with cache_world() as world:
        plan = FailOnce(fault, "create", prefix, nth)
        world.stores[store].plan = plan
        with suppress(SecureCacheError):
            await world.journal.policy_in_force(b"first")
        world.stores[store].plan = no_faults
        assert plan.happened
        await world.journal.policy_in_force(b"first")

        assert PolicyTookEffect(Digest.of(b"first"), 1, None) in await told(world)


async def test_the_policy_that_was_told_can_be_read_back_for_the_auditor():
    async with cache_world() as world:
        await world.journal.policy_in_force(POLICY.encode())
        stored = await world.stores["state"].get(layout.policy_version(1), max_bytes=1 << 20)

        assert stored.data == POLICY.encode()


async def test_keys_are_told_with_what_changed():
    async with cache_world() as world:
        await world.journal.keys_in_force(world.ring)
        await world.journal.keys_in_force(world.ring)
        (event,) = await told(world)

        assert event.added == (world.signer.keyid,)
        assert event.ring == world.ring.digest


async def test_a_quarantine_and_a_replacement_are_told():
    async with cache_world() as world:
        main = world.caller(branch="main")
        first = await world.store(main, "1", b"f" * 70_000)
        await world.stores["artifacts"].delete(layout.artifact(first.entry_id, first.stored_at))
        with pytest.raises(SecureCacheError):
            await world.fetch(main, "1")
        second = await world.store(main, "1", b"second")
        quarantined, removed = await told(world)

        assert isinstance(quarantined, EntryQuarantined)
        assert quarantined.entry_id == first.entry_id
        assert isinstance(removed, EntryRemoved)
        assert (removed.entry_id, removed.replaced_by) == (first.entry_id, second.entry_id)
        assert removed.line == "quarantine"


@pytest.mark.parametrize(
    ("edit", "line"),
    [
        ("revocations:\n  - { id: r1, match: { tid: bad }, reason: x }\n", "revocation r1"),
        ("epochs: { 'demo:branch/main': 1 }\n", "epoch of demo:branch/main"),
    ],
)
async def test_what_hid_an_entry_is_told_when_its_key_is_written_again(edit, line):
    async with cache_world() as world:
        first = await world.store(world.caller(branch="main", family="bad"), "1", b"first")
        world.edit(POLICY + edit)
        second = await world.store(world.caller(branch="main", family="good"), "1", b"second")
        (removed,) = await told(world)

        assert (removed.entry_id, removed.replaced_by) == (first.entry_id, second.entry_id)
        assert removed.line == line


async def test_a_log_that_is_full_does_not_undo_a_quarantine():
    class Full:
        async def append(self, leaf):
            raise SecureCacheError("full")

    async with cache_world() as world:
        journal = journal_of(world, log=Full())
        entry = await world.store(world.caller(branch="main"), "1", b"first")

        await journal.quarantined(entry, "a\nreason")


@pytest.mark.parametrize("name", ["zzz", "000000000002.bak", "old/000000000001", "1", ".told"])
async def test_a_strangers_file_among_the_versions_is_nobodys_version(name):
    """A file of any other name once ended the task that tells the log, and with it the server."""
    async with cache_world() as world:
        await world.journal.policy_in_force(b"first")
        with suppress(SecureCacheError):
            await world.stores["state"].create(layout.POLICY_PREFIX + name, b"junk")
        await world.journal.policy_in_force(b"second")

        assert [event.number for event in await told(world)] == [1, 2]


async def test_a_process_that_loses_the_race_for_a_number_still_tells_its_own_policy():
    async with cache_world() as world:
        state = world.stores["state"]

        class Slow:
            def __getattr__(self, name):
                return getattr(state, name)

            async def create(self, name, data):
                if name == layout.policy_version(1):
                    await state.inner.create(name, b"other")
                return await state.create(name, data)

        await journal_of(world, state=Slow(), pause=no_time).policy_in_force(b"mine")

        assert await told(world) == [
            PolicyTookEffect(Digest.of(b"other"), 1, None),
            PolicyTookEffect(Digest.of(b"mine"), 2, Digest.of(b"other")),
        ]


async def test_a_process_that_loses_the_race_to_an_equal_policy_leaves_it_to_the_winner():
    async with cache_world() as world:
        state = world.stores["state"]
        plan = FailOnce(Fault.raising(AlreadyExists("quicker"), after=True), "create", "policy/")
        state.plan = plan
        await world.journal.policy_in_force(b"mine")

        assert plan.happened
        assert await told(world) == []
