"""The parent's own bookkeeping, with real processes."""

import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys

import pytest
from fakes.edge import TESTS, wait_for
from structlog.testing import capture_logs

from secure_cache.http.connection_limits import ConnectionLimits
from secure_cache.http.server import ServerOptions, listen, raise_open_files, url_of
from secure_cache.model.errors import Misconfigured

PARENT = """
import json, os, sys
import structlog
from secure_cache.http.server import AppSource, ServerOptions
from secure_cache.http.supervisor import Hooks, run
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
run(
    AppSource("fakes.edge_app:build", "{}"),
    ServerOptions(port=0, workers=2),
    Hooks(
        on_ready=lambda url: print(json.dumps(["ready", url]), flush=True),
        on_worker_exit=lambda pid: print(json.dumps(["exit", pid]), flush=True),
        worker_env={"MARK_OF_A_WORKER": "1"},
    ),
)
"""

WORKER = "import sys; from secure_cache.http.worker import main; sys.exit(main(sys.argv[1:]))"


def marked(pid):
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123 - not a file of ours
            return b"MARK_OF_A_WORKER=1" in file.read()
    except OSError:
        return False


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:  # noqa: PTH123 - not a file of ours
        return [int(text) for text in file.read().split()]


def test_the_caller_hears_once_of_readiness_and_of_each_worker_that_ended():
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])},
    )
    try:
        assert json.loads(process.stdout.readline())[0] == "ready"
        first = children(process.pid)
        assert len(first) == 2
        assert all(marked(pid) for pid in first)
        os.kill(first[0], signal.SIGKILL)
        assert json.loads(process.stdout.readline()) == ["exit", first[0]]
        wait_for(lambda: len([pid for pid in children(process.pid) if marked(pid)]) == 2)
        second = children(process.pid)
        process.terminate()
        rest, _ = process.communicate(timeout=30)
        said = [json.loads(line) for line in rest.splitlines() if line.startswith("[")]
        assert sorted(said) == sorted(["exit", pid] for pid in second)
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()


def test_a_machine_without_a_free_file_for_a_moment_does_not_end_the_other_workers():
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])},
    )
    try:
        assert json.loads(process.stdout.readline())[0] == "ready"
        first, other = children(process.pid)
        limits = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (4, limits[1]))
        os.kill(first, signal.SIGKILL)
        assert json.loads(process.stdout.readline()) == ["exit", first]
        while "server.worker_not_started" not in process.stderr.readline():
            assert process.poll() is None
        assert children(process.pid) == [other]
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, limits)
        wait_for(lambda: len([pid for pid in children(process.pid) if marked(pid)]) == 2)
        process.terminate()
        process.communicate(timeout=60)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


def test_a_worker_ends_whose_parent_was_killed_before_it_read_that_the_worker_is_ready():
    """Such an end of the pair is reset and not closed. The port would have been taken for ever."""
    ours, theirs = socket.socketpair()
    options = ServerOptions(port=0, workers=2, drain_seconds=1)
    orders = {
        "factory": "fakes.edge_app:build",
        "argument": "{}",
        "options": options.to_json(),
        "index": 0,
    }
    with listen(options) as listener, theirs:
        fds = (theirs.fileno(), listener.fileno())
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER, *map(str, fds)],
            pass_fds=fds,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])},
        )
    try:
        with ours:
            ours.sendall(json.dumps(orders).encode() + b"\n")
            assert select.select([ours], [], [], 60)[0] == [ours]
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()


def test_the_limit_of_open_files_is_lifted_and_too_low_a_one_is_told():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        with capture_logs() as logs:
            raise_open_files(ServerOptions(limits=ConnectionLimits(max_connections=16)))
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
        assert logs == []
        with capture_logs() as logs:
            raise_open_files(ServerOptions(limits=ConnectionLimits(max_connections=10**9)))
        assert [line["event"] for line in logs] == ["server.few_open_files"]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1"])
def test_an_address_that_is_not_ours_is_a_setting_to_change(host):
    with pytest.raises(Misconfigured, match="change host or port"):
        listen(ServerOptions(host=host, port=0))


def test_a_free_port_is_found_and_named():
    with listen(ServerOptions(port=0)) as listener:
        assert url_of(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert listener.getsockname()[1] > 0


def test_options_reach_a_worker_unchanged():
    options = ServerOptions(host="::1", drain_seconds=1.5, limits=ConnectionLimits(max_headers=7))
    assert ServerOptions.from_json(json.loads(json.dumps(options.to_json()))) == options
