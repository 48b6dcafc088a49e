"""What the operator hears of a storage that fails: numbers always, a line when it changes."""

from dataclasses import dataclass

import pytest
from structlog.testing import capture_logs

from secure_cache.compose.telling import StorageTeller
from secure_cache.observability.metrics import Metrics


@dataclass(frozen=True)
class Call:
    """One finished operation."""

    outcome: str = "ok"
    store: str = "records"
    operation: str = "get"
    seconds: float = 0.01
    attempts: int = 1


class Clock:
    """Seconds, as told."""

    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def told(clock, metrics):
    """Tells of calls; gives the lines that were logged for them."""
    teller = StorageTeller(metrics, clock=clock)

    def tell(*calls):
        with capture_logs() as lines:
            for call in calls:
                teller(call)
        return lines

    return tell


def test_answers_are_no_trouble(told):
    answers = ["ok", "missing", "exists", "version-mismatch", "unchanged", "immutable"]
    assert told(*[Call(outcome) for outcome in answers]) == []


@pytest.mark.parametrize(
    "outcome", ["unavailable", "timeout", "throttled", "forbidden", "misconfigured"]
)
def test_an_outage_is_one_line_however_many_requests_fail(outcome, told):
    (line,) = told(*[Call(outcome) for _ in range(500)])
    assert line == {
        "event": "storage.unavailable",
        "log_level": "error",
        "store": "records",
        "operation": "get",
        "why": outcome,
    }


def test_recovery_is_one_line_with_how_long_and_how_many(told, clock):
    assert len(told(Call("timeout"), Call("timeout"))) == 1
    clock.now += 20
    (line,) = told(Call(), Call(), Call())
    assert (line["event"], line["log_level"]) == ("storage.recovered", "warning")
    assert (line["store"], line["seconds"], line["failed"]) == ("records", 20.0, 2)


def test_a_store_that_flickers_fills_no_log(told, clock):
    lines = []
    for number in range(1000):
        clock.now += 0.01
        lines += told(Call("timeout" if number % 2 else "ok"))
    assert [line["event"] for line in lines] == ["storage.unavailable"]


def test_each_store_is_told_for_itself(told, clock):
    assert len(told(Call("timeout", store="head"), Call("timeout", store="state"))) == 2
    clock.now += 20
    (line,) = told(Call(store="head"))
    assert line["store"] == "head"


def test_every_operation_is_counted_with_its_attempts_and_time(told, metrics):
    told(Call(), Call("timeout", attempts=4, seconds=10.0), Call("missing"))
    _, text = metrics.render()
    numbers = dict(
        line.rsplit(" ", 1) for line in text.decode().splitlines() if not line.startswith("#")
    )
    requests = 'secure_cache_storage_requests_total{operation="get",outcome="%s",store="records"}'
    assert [numbers[requests % outcome] for outcome in ("ok", "timeout", "missing")] == ["1.0"] * 3
    retries = numbers['secure_cache_storage_retries_total{operation="get",store="records"}']
    assert retries == "3.0"
    assert numbers['secure_cache_storage_seconds_count{operation="get"}'] == "3.0"
    assert float(numbers['secure_cache_storage_seconds_sum{operation="get"}']) == pytest.approx(
        10.02
    )
