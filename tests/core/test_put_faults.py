"""Promises 4 and 6: each write of a store fails before and after taking effect, at each step."""

import pytest
from fakes.cache_world import cache_world
from fakes.faults import MUTATION_FAULTS, FailOnce, Fault, no_faults

from secure_cache.model.errors import AlreadyExists, NotFound, SecureCacheError
from secure_cache.provenance.verify import VerifiedEntry, verify_statement

pytestmark = pytest.mark.anyio

DATA = b"d" * 70_000
"""Too large to stand behind its record."""

STEPS = {
    "artifact": ("artifacts", "commit", ""),
    "pending": ("pending", "create", "pending/"),
    "record": ("records", "create", ""),
}


async def logged_entries(world):
    """The ids of all entries in the published log, each as often as it stands there."""
    await world.log.flush()
    ids = []
    async for _, leaf in world.log.entries():
        statement = verify_statement(leaf, world.ring)
        if isinstance(statement, VerifiedEntry):
            ids.append(statement.entry.entry_id)
    return ids


async def put_under(world, step, fault, data=DATA):
    """A store during which one write fails; gives back the entry, or the error."""
    store, kind, prefix = STEPS[step]
    plan = FailOnce(fault, kind, prefix)
    world.stores[store].plan = plan
    try:
        outcome = await world.store(world.caller(branch="main"), "1", data)
    except SecureCacheError as error:
        outcome = error
    world.stores[store].plan = no_faults
    assert plan.happened
    return outcome


@pytest.mark.parametrize("fault", MUTATION_FAULTS, ids=["before", "lost-before", "lost-after"])
@pytest.mark.parametrize("step", STEPS)
async def test_what_was_acknowledged_is_readable_and_logged_once_and_nothing_unlogged_is_readable(
    step, fault
):
    async with cache_world() as world:
        outcome = await put_under(world, step, fault)
        logged = await logged_entries(world)
        assert len(logged) == len(set(logged))
        try:
            data = await world.fetch(world.caller(branch="main"), "1")
        except NotFound:
            assert isinstance(outcome, SecureCacheError)
        else:
            held = await world.catalog.find(world.namespace("demo:branch/main"), "1")
            assert data == DATA
            assert held.entry.entry_id in logged
        if not isinstance(outcome, SecureCacheError):
            assert outcome.entry_id in logged


@pytest.mark.parametrize("fault", MUTATION_FAULTS, ids=["before", "lost-before", "lost-after"])
@pytest.mark.parametrize("step", STEPS)
async def test_after_a_failed_store_the_client_may_try_again_and_then_reads_its_bytes(step, fault):
    async with cache_world() as world:
        first = await put_under(world, step, fault)
        main = world.caller(branch="main")
        try:
            await world.store(main, "1", DATA)
        except AlreadyExists:
            assert not isinstance(first, SecureCacheError)

        assert await world.fetch(main, "1") == DATA


async def test_a_lost_answer_of_the_record_is_resolved_as_a_success():
    async with cache_world() as world:
        outcome = await put_under(world, "record", Fault.LOST_AFTER)
        held = await world.catalog.find(world.namespace("demo:branch/main"), "1")

        assert outcome.entry_id == held.entry.entry_id


@pytest.mark.parametrize("fault", MUTATION_FAULTS, ids=["before", "lost-before", "lost-after"])
@pytest.mark.parametrize("step", ["pending", "record"])
async def test_the_same_holds_for_an_artifact_that_stands_behind_its_record(step, fault):
    async with cache_world() as world:
        outcome = await put_under(world, step, fault, b"small")
        logged = await logged_entries(world)
        if not isinstance(outcome, SecureCacheError):
            assert await world.fetch(world.caller(branch="main"), "1") == b"small"
            assert outcome.entry_id in logged
        else:
            with pytest.raises(NotFound):
                await world.fetch(world.caller(branch="main"), "1")


async def test_a_store_that_cannot_be_logged_is_never_readable():
    async with cache_world() as world:
        world.stores["pending"].plan = lambda operation: (
            Fault.BEFORE if operation.name.startswith("pending/") else None
        )
        with pytest.raises(SecureCacheError):
            await world.store(world.caller(branch="main"), "1", DATA)
        world.stores["pending"].plan = no_faults

        with pytest.raises(NotFound):
            await world.fetch(world.caller(branch="main"), "1")


@pytest.mark.parametrize("store", ["records", "artifacts", "state"])
async def test_a_store_that_does_not_answer_is_never_read_as_missing_something(store):
    async with cache_world() as world:
        main, pr = world.caller(branch="main"), world.caller(pull_request="7", base="main")
        await world.store(pr, "1", b"poison" * 10_000)
        await world.store(main, "1", b"good" * 10_000)
        world._assemble_over_the_same_log()
        world.stores[store].plan = lambda operation: (
            Fault.BEFORE if operation.kind in {"get", "head", "open"} else None
        )
        with pytest.raises(SecureCacheError) as caught:
            await world.fetch(pr, "1")
        world.stores[store].plan = no_faults

        assert caught.value.code == "storage-unavailable"
        assert await world.fetch(pr, "1") == b"good" * 10_000
