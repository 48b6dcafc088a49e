"""Numbers: what is counted, that labels stay few, and that workers count together."""

import errno
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from secure_cache.core.telemetry import Finished, Silent, Telemetry
from secure_cache.model.errors import Unavailable
from secure_cache.observability.metrics import MAX_VALUES, Metrics
from secure_cache.observability.multiprocess import forget_worker, reserve_room, shared_numbers

ROOT = Path(__file__).resolve().parents[2]


def samples(metrics):
    content_type, text = metrics.render()
    assert content_type.startswith("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def value(metrics, name, **labels):
    return samples(metrics).get((f"secure_cache_{name}", tuple(sorted(labels.items()))))


def test_every_method_of_the_port_is_counted_by_metrics_and_by_silent():
    for instruments in (Metrics(), Silent()):
        port: Telemetry = instruments
        port.request_started()
        port.upload_started()
        port.upload_ended()
        port.request_finished(Finished("GET", "cache", 200, "hit", "", 0.1, 0, 10))
        port.stored(tier="trusted", size_bytes=5)
        port.served(tier="trusted", size_bytes=5)
        port.missed(reason="absent")
        port.denied(reason="denied")
        port.verification_failed(kind="digest")
        port.quarantined()
        port.token_verified()
        port.token_exchanged(ok=True)
        port.policy_reloaded(ok=False)
        port.log_committed(tree_size=7, entries=2, seconds=0.1)
        port.log_pending(entries=3)
        port.jwks_refreshed(issuer="gha", ok=True)
        port.index_behind(entries=4)
        port.storage_failed(kind="storage-unavailable")


def test_a_request_is_counted_once_and_is_open_while_it_lasts():
    metrics = Metrics()
    metrics.request_started()
    assert value(metrics, "open_requests") == 1
    finished = Finished("PUT", "cache", 403, "denied", "denied", 0.5, 100, 4)
    metrics.request_finished(finished)
    assert value(metrics, "open_requests") == 0
    labels = {
        "method": "PUT",
        "route": "cache",
        "status": "403",
        "outcome": "denied",
        "reason": "denied",
    }
    assert value(metrics, "requests_total", **labels) == 1
    assert value(metrics, "body_bytes_total", direction="in") == 100
    assert value(metrics, "body_bytes_total", direction="out") == 4
    assert value(metrics, "request_seconds_count", method="PUT", outcome="denied") == 1


def test_the_policy_gauge_falls_while_a_bad_file_is_refused():
    metrics = Metrics()
    assert value(metrics, "policy_good") == 1
    metrics.policy_reloaded(ok=False)
    assert value(metrics, "policy_good") == 0
    metrics.policy_reloaded(ok=True)
    assert value(metrics, "policy_good") == 1
    assert value(metrics, "policy_loaded_time_seconds") > 0


def test_no_caller_can_make_more_than_a_few_label_values():
    metrics = Metrics()
    for number in range(1000):
        metrics.missed(reason=f"r{number}")
        metrics.request_finished(Finished(f"M{number}", f"r{number}", number, f"o{number}"))
    values = {labels for name, labels in samples(metrics) if name == "secure_cache_missed_total"}
    assert len(values) == MAX_VALUES + 1
    assert value(metrics, "missed_total", reason="other") == 1000 - MAX_VALUES


def test_a_label_that_is_no_word_is_other():
    metrics = Metrics()
    for text in ("", "a b", "a\nb", 'a"b', "x" * 41, "ü"):
        metrics.denied(reason=text)
    assert value(metrics, "denied_total", reason="other") == 6


COUNT = """
import os, sys, json
from secure_cache.observability.metrics import Metrics
metrics = Metrics(shared=True)
metrics.stored(tier="trusted", size_bytes=10)
metrics.request_started()
metrics.log_committed(tree_size=int(sys.argv[1]), entries=1, seconds=0.1)
print(json.dumps([os.getpid(), metrics.render()[1].decode()]))
"""


def worker(environment, size):
    done = subprocess.run(
        [sys.executable, "-c", COUNT, str(size)],
        env={**os.environ, **environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=True,
        text=True,
    )
    return json.loads(done.stdout)


def test_workers_count_together_and_a_dead_one_has_no_open_requests():
    with shared_numbers() as environment:
        first, _ = worker(environment, 5)
        _, both = worker(environment, 4)
        assert 'secure_cache_stored_bytes_total{tier="trusted"} 20.0' in both
        assert "secure_cache_open_requests 2.0" in both
        assert "secure_cache_log_size 5.0" in both
        forget_worker(environment, first)
        _, text = worker(environment, 4)
        assert 'secure_cache_stored_bytes_total{tier="trusted"} 30.0' in text
        assert "secure_cache_open_requests 2.0" in text
        folder = Path(environment["PROMETHEUS_MULTIPROC_DIR"])
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.exists()


FULL = """
import os, sys
from secure_cache.core.telemetry import Finished
from secure_cache.observability.metrics import Metrics
from secure_cache.observability.multiprocess import reserve_room
reserve_room(os.environ, os.getpid())
metrics = Metrics(shared=True)
for number in range(600):
    one, other = divmod(number, 30)
    finished = Finished("GET", f"r{one}", 200, "hit", f"r{other}", 0.1, 1, 1)
    metrics.request_finished(finished)
print(metrics.render()[1].decode())
"""


def test_a_disk_that_is_full_later_takes_no_room_from_a_worker():
    """Its numbers are written as to memory: into a hole for which there is no room, that kills."""
    with shared_numbers() as environment:
        done = subprocess.run(
            [sys.executable, "-c", FULL],
            env={**os.environ, **environment, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=True,
            text=True,
        )
        assert 'secure_cache_body_bytes_total{direction="in"} 600.0' in done.stdout
        files = list(Path(environment["PROMETHEUS_MULTIPROC_DIR"]).glob("*.db"))
        assert len(files) == 7
        for file in files:
            status = file.stat()
            assert status.st_blocks * 512 >= status.st_size, file.name


def test_a_disk_that_is_full_already_is_named(monkeypatch):
    def full(_fd, _offset, _size):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with shared_numbers() as environment:
        with pytest.raises(Unavailable, match="No space left on device: make some"):
            reserve_room(environment, 1)
        (left,) = Path(environment["PROMETHEUS_MULTIPROC_DIR"]).iterdir()
        assert left.name == "lock"


def test_a_worker_that_cannot_be_forgotten_for_the_moment_ends_no_server(monkeypatch):
    def none_left(*_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with shared_numbers() as environment:
        gauge = Path(environment["PROMETHEUS_MULTIPROC_DIR"]) / "gauge_livesum_1.db"
        gauge.touch()
        with monkeypatch.context() as busy:
            busy.setattr(os, "scandir", none_left)
            forget_worker(environment, 1)
        assert gauge.exists()
        forget_worker(environment, 1)
        assert not gauge.exists()


def aged(folder):
    os.utime(folder, (1, 1))
    return folder


def test_a_folder_that_a_killed_server_left_behind_is_taken_away(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left = tmp_path / "secure-cache-metrics-left"
    left.mkdir(mode=0o700)
    (left / "counter_1.db").write_bytes(b"x")
    young = tmp_path / "secure-cache-metrics-young"
    young.mkdir(mode=0o700)
    other = tmp_path / "another-program"
    other.mkdir()
    (tmp_path / "secure-cache-metrics-link").symlink_to(other)
    with shared_numbers() as first:
        in_use = aged(Path(first["PROMETHEUS_MULTIPROC_DIR"]))
        aged(left)
        with shared_numbers():
            assert in_use.exists()
            assert not left.exists()
            assert young.exists()
            assert other.exists()
