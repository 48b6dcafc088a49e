"""Random histories of replicas and their witnesses, under the faults of store and network."""

import pytest
from fakes.log_world import Judged
from fakes.witness_world import NEVER, WitnessedWorld

from secure_cache.core import witness_asking, witnesses
from secure_cache.core.witnesses import Profile, Witnesses
from secure_cache.model.errors import NoQuorum
from secure_cache.tlog.witness_wire import add_signatures

pytestmark = pytest.mark.anyio

REQUESTS = 1500


@pytest.fixture(autouse=True)
def without_a_real_clock(monkeypatch):
    monkeypatch.setattr(witness_asking, "_FIRST_BACKOFF_SECONDS", 0.0)
    monkeypatch.setattr(witnesses, "_GRACE_SECONDS", NEVER)


@pytest.mark.parametrize("profile", list(Profile))
@pytest.mark.parametrize("seed", range(10))
async def test_no_history_with_witnesses_breaks_a_promise(seed, profile):
    world = WitnessedWorld(seed, profile=profile)
    await world.run(REQUESTS)
    assert world.acked
    assert world.cosigned


@pytest.mark.parametrize("seed", range(3))
async def test_fail_closed_with_one_dead_of_three_goes_on(seed):
    world = WitnessedWorld(100 + seed, profile=Profile.FAIL_CLOSED, dead=("w2",))
    await world.run(REQUESTS)
    assert len(world.roots) > 2


@pytest.mark.parametrize("seed", range(3))
async def test_fail_closed_with_two_dead_of_three_publishes_nothing_and_takes_everything(seed):
    world = WitnessedWorld(200 + seed, profile=Profile.FAIL_CLOSED, dead=("w1", "w2"))
    with pytest.raises(NoQuorum):
        await world.run(REQUESTS)
    assert world.failure is None
    assert world.acked
    # The empty log, and the one commit that is waiting.
    assert len(world.roots) == 2
    world.dead = set()
    await world.judge()


@pytest.mark.parametrize("seed", range(3))
async def test_fail_open_without_any_witness_goes_on(seed):
    world = WitnessedWorld(300 + seed, profile=Profile.FAIL_OPEN, dead=("w1", "w2", "w3"))
    await world.run(REQUESTS)
    assert world.acked
    assert len(world.roots) > 2


class PublishesWhateverItGot(Witnesses):
    """Fail-closed that forgets to count."""

    async def before_publishing(self, checkpoint, note, proof_from):
        try:
            return await super().before_publishing(checkpoint, note, proof_from)
        except NoQuorum:
            return add_signatures(note, [])


async def test_forgetting_to_count_is_caught():
    world = WitnessedWorld(
        1, profile=Profile.FAIL_CLOSED, witnesses=PublishesWhateverItGot, dead=("w1", "w2")
    )
    with pytest.raises(Judged, match="without a quorum"):
        await world.run(REQUESTS)
