"""`secure-cache serve`: one line when it is ready, one line when it can not be."""

import os
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest

READY_SECONDS = 30


class Process:
    """The program itself."""

    def __init__(self, *arguments):
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "secure_cache", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def end(self, number=signal.SIGTERM):
        self.popen.send_signal(number)
        out, err = self.popen.communicate(timeout=READY_SECONDS)
        return self.popen.returncode, out, err

    def kill(self):
        if self.popen.poll() is None:
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.communicate()


@pytest.fixture
def serve(installation):
    running = []

    def start(*options):
        running.append(Process("serve", "--config", installation.config, "--port", 0, *options))
        return running[-1]

    yield start
    for process in running:
        process.kill()


@pytest.mark.parametrize("workers", [1, 2])
def test_it_prints_one_line_when_it_is_ready_and_ends_with_0(workers, serve):
    process = serve("--workers", workers)
    line = process.popen.stdout.readline()
    assert line.startswith("secure-cache listening on http://127.0.0.1:")
    url = line.removeprefix("secure-cache listening on ").strip()
    assert httpx.get(f"{url}/healthz", trust_env=False, timeout=60).status_code == 200
    code, rest, err = process.end()
    assert (code, rest) == (0, "")
    assert "Traceback" not in err


def test_ctrl_c_ends_it_like_sigterm(serve):
    process = serve()
    assert process.popen.stdout.readline()
    code, rest, err = process.end(signal.SIGINT)
    assert (code, rest) == (0, "")
    assert "Traceback" not in err


def test_options_reach_the_workers(serve):
    process = serve("--root-path", "/nx", "--strict-status", "--workers", 2)
    url = process.popen.stdout.readline().removeprefix("secure-cache listening on ").strip()
    answer = httpx.put(f"{url}/nx/v1/cache/a b", content=b"x", trust_env=False, timeout=60)
    assert answer.status_code == 400


@pytest.fixture
def refused(installation):
    """Runs `serve` where it must not start; gives the one line. Lines of JSON are the log's."""

    def refuse(code, *options):
        process = Process("serve", "--config", installation.config, *options)
        out, err = process.popen.communicate(timeout=READY_SECONDS)
        assert (process.popen.returncode, out) == (code, ""), err
        (line,) = [line for line in err.splitlines() if not line.startswith("{")]
        return line

    return refuse


def test_a_bad_policy_is_told_with_its_place(refused, installation):
    installation.edit_policy("tier: trusted", "tier: trusty")
    line = refused(2)
    assert line.startswith(f"secure-cache: {installation.policy}:")
    assert "E15" in line


@pytest.mark.parametrize("workers", [1, 2])
def test_a_taken_port_is_told_with_the_setting(workers, refused):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = refused(2, "--port", port, "--workers", workers)
    assert f"127.0.0.1:{port}" in line
    assert "port in [server]" in line


def test_a_policy_that_others_may_write_is_refused(refused, installation):
    installation.policy.chmod(0o666)
    assert f"chmod go-w {installation.policy}" in refused(2)


def test_keys_that_others_may_read_are_refused(refused, installation):
    installation.keys.chmod(0o755)
    assert f"chmod 700 {installation.keys}" in refused(2)


def test_a_setting_that_is_mistyped_is_named(refused, installation):
    text = installation.config.read_text().replace("[limits]", "[limits]\nmax_artifact_byte = 5")
    installation.config.write_text(text)
    assert "limits.max_artifact_byte" in refused(2)


@pytest.mark.parametrize(
    ("options", "setting"),
    [
        (["--root-path", "nx/"], "server.root_path"),
        (["--host", ""], "host"),
        (["--workers", "65"], "server.workers"),
    ],
)
def test_an_option_out_of_range_is_named(options, setting, refused):
    assert setting in refused(2, *options)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_damaged_log_is_integrity_and_says_what_to_do(workers, refused, installation):
    checkpoint = installation.log / "checkpoint"
    checkpoint.chmod(0o600)
    checkpoint.write_text(checkpoint.read_text().replace("\n0\n", "\n1\n"))
    line = refused(5, "--port", 0, "--workers", workers)
    assert str(installation.directory / "data") in line
    assert "secure-cache log fsck" in line


def test_a_log_that_is_gone_is_not_begun_anew(refused, installation):
    for path in (installation.log / "head", installation.log / "checkpoint"):
        path.unlink()
    line = refused(5, "--port", 0)
    assert "never begin the log anew" in line
    assert not (installation.log / "checkpoint").exists()


def test_a_server_that_is_killed_leaves_a_sound_log(serve, call, installation):
    process = serve("--workers", 2)
    assert process.popen.stdout.readline()
    time.sleep(0.2)
    process.kill()
    assert call("log", "fsck", "--config", installation.config).code == 0
