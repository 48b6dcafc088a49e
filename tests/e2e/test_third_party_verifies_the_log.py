"""Promise 4: a Go program verifies the log of a running server, and its folder on disk."""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx
import pytest
from interop.go_tool import go_tool, run_tool

pytestmark = pytest.mark.interop

ENTRIES = 300
"""More than one full tile."""


@pytest.fixture
def check():
    return partial(run_tool, go_tool("tlogcheck"))


def fill(server, prefix):
    main, pr = server.token(branch="main"), server.token(pr=1)
    with ThreadPoolExecutor(16) as pool:
        puts = [
            pool.submit(server.put, main if number % 2 else pr, f"{prefix}{number}", b"data")
            for number in range(ENTRIES)
        ]
        assert {put.result().status_code for put in puts} == {200}


def published(server, size):
    end = time.monotonic() + 30
    while server.checkpoint()[0] < size:
        assert time.monotonic() < end, "the log does not catch up"
        time.sleep(0.1)


@pytest.mark.parametrize("workers", [1, 2])
def test_go_verifies_a_running_servers_log_over_http_and_on_disk(
    make_server, check, workers, tmp_path
):
    server = make_server(workers=workers).start()
    fill(server, "1")
    published(server, ENTRIES)
    before = tmp_path / "before"
    before.write_bytes(httpx.get(f"{server.url}/log/checkpoint", timeout=60).content)
    fill(server, "2")
    published(server, 2 * ENTRIES)
    vkey = httpx.get(f"{server.url}/log/vkeys", timeout=60).text.strip()
    auditor, developer = server.token(role="auditor"), server.token(role="developer")

    done = check("-vkey", vkey, "-from", before, f"{server.url}/log", token=auditor)
    assert done.returncode == 0, done.stderr
    assert "1 earlier size" in done.stdout
    assert check("-vkey", vkey, f"{server.url}/log", token=developer).returncode != 0

    server.stop()
    done = check("-vkey", vkey, "-from", before, server.data / "log")
    assert done.returncode == 0, done.stderr
    assert server.fsck().returncode == 0


@pytest.mark.every_storage
def test_a_policy_that_makes_the_log_public_lets_anybody_verify_it(server, check):
    fill(server, "1")
    published(server, ENTRIES)
    vkey = httpx.get(f"{server.url}/log/vkeys", timeout=60).text.strip()
    assert check("-vkey", vkey, f"{server.url}/log").returncode != 0
    server.edit_policy(lambda text: text + "log: { public: true }\n")
    time.sleep(2)

    assert check("-vkey", vkey, f"{server.url}/log").returncode == 0
