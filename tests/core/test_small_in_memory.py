"""Small artifacts of hot records: no second request, each proved at use, within a budget."""

import os

import pytest
from fakes.cache_world import cache_world
from fakes.faults import FaultyStore
from hypothesis import given
from hypothesis import strategies as st

from secure_cache.core.budget import Budget
from secure_cache.core.catalog import Catalog
from secure_cache.model.errors import CorruptObject
from secure_cache.provenance.record import INLINE_BYTES

pytestmark = pytest.mark.anyio


def asked(world):
    store: FaultyStore = world.stores["records"]
    kinds = [operation.kind for operation in store.operations]
    store.operations.clear()
    return kinds


async def test_a_small_artifact_costs_one_request_and_a_hot_one_a_look_at_its_version():
    async with cache_world() as world:
        main = world.caller(branch="main")
        data = os.urandom(INLINE_BYTES)
        await world.store(main, "1", data)
        world._assemble_over_the_same_log()
        asked(world)

        assert await world.fetch(main, "1") == data
        assert asked(world) == ["get"]
        assert await world.fetch(main, "1") == data
        assert asked(world) == ["get_if_changed"]


async def test_what_stands_in_memory_is_proved_at_each_use():
    async with cache_world() as world:
        main = world.caller(branch="main")
        await world.store(main, "1", b"genuine")
        assert await world.fetch(main, "1") == b"genuine"
        name, ((version, _), cost) = next(iter(world.catalog._behind._kept.items()))
        world.catalog._behind.keep(name, (version, b"changed"), cost_bytes=cost)

        with pytest.raises(CorruptObject):
            await world.fetch(main, "1")


async def test_many_small_artifacts_stay_within_the_budget_and_are_all_served():
    async with cache_world() as world:
        main = world.caller(branch="main")
        world.catalog = world.get._catalog = world.put._catalog = Catalog(
            records=world.stores["records"],
            state=world.stores["state"],
            ring=lambda: world.ring,
            reload_ring=world.catalog._reload_ring,
            clock=world.clock,
            telemetry=world.catalog._telemetry,
            remembered_bytes=20_000,
            artifact_bytes=100_000,
        )
        bodies = {str(number): os.urandom(10_000 + number) for number in range(30)}
        for key, body in bodies.items():
            await world.store(main, key, body)
        for _ in range(2):
            for key, body in bodies.items():
                assert await world.fetch(main, key) == body
                assert world.catalog._behind.taken_bytes <= 100_000
                assert world.catalog._held.taken_bytes <= 20_000
        assert 2 < len(world.catalog._behind) < 10
        assert 2 < len(world.catalog._held) < 10


@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 60), st.booleans()), max_size=60),
    st.one_of(st.none(), st.integers(0, 4)),
)
def test_a_budget_is_never_exceeded_and_forgets_the_least_used(steps, most):
    budget, model = Budget(100, max_count=most), {}
    for key, cost, look in steps:
        if look:
            if key in model:
                model[key] = model.pop(key)
            assert budget.get(key) == (key if key in model else None)
            continue
        budget.keep(key, key, cost_bytes=cost)
        model.pop(key, None)
        if cost <= 100:
            model[key] = cost
        while sum(model.values()) > 100 or (most is not None and len(model) > most):
            del model[next(iter(model))]
        assert budget.taken_bytes == sum(model.values())
        assert len(budget) == len(model)
