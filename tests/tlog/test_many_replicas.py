"""The simulation of `bench/simulate.py`, in small: real replicas, slow storage, a virtual clock.

Every run ends with fsck and with every acknowledged entry counted; a wrong log raises.
"""

from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture(name="play")
def simulation(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    import simulate

    # What the simulation puts there instead of threads must not stay.
    monkeypatch.setattr(
        "secure_cache.tlog.sequencer.run_sync", simulate.secure_cache.tlog.sequencer.run_sync
    )

    def play(**scene):
        usual = {"replicas": 4, "latency": 0.02, "rate": 50, "seconds": 10, "turn": "store"}
        return simulate.simulate(simulate.Scene(**(usual | scene)))

    return play


@pytest.mark.parametrize("latency", [0.005, 0.1])
def test_replicas_that_take_turns_keep_up_and_lose_no_swap(play, latency):
    result = play(replicas=20, latency=latency, rate=200, seconds=20)
    assert result.keeps_up
    assert result.refused == 0
    assert result.lost_swaps < 0.2


@pytest.mark.parametrize("turn", ["store", "none", "stuck"])
def test_replicas_that_die_lose_nothing_whether_the_hint_works_or_not(play, turn):
    for seed in range(2):
        result = play(turn=turn, deaths=4, seed=seed)
        assert result.entries > 20


def test_a_storage_account_at_its_limit_loses_nothing(play):
    result = play(rate=200, limit=200)
    assert result.throttled > 100
    assert result.entries > 10


def test_without_turns_replicas_work_against_each_other(play):
    alone, together = play(replicas=8, turn="none"), play(replicas=8)
    assert alone.lost_swaps > 10 * together.lost_swaps
    assert alone.requests_per_entry > 2 * together.requests_per_entry


def test_the_same_scene_gives_the_same_result(play):
    assert play(deaths=2) == play(deaths=2)
