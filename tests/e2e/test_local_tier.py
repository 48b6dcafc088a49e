"""The whole server with a local tier: several workers share it, and no change of it is served."""

import concurrent.futures
import os
import random

import pytest
from world.server import NotReadyError, wait_until

pytestmark = pytest.mark.timeout(120)

LARGE = 9 * 1024 * 1024


@pytest.fixture
def tiered(make_server, tmp_path):
    folder = tmp_path / "tier"
    environment = {
        "SECURE_CACHE_LOCAL_TIER__PATH": str(folder),
        "SECURE_CACHE_LOCAL_TIER__MAX_BYTES": str(32 << 20),
    }
    server = make_server(workers=2, environment=environment)
    server.start()
    return server, folder


def files(folder):
    return [path for path in folder.iterdir() if path.is_file() and path.name[0] != "."]


def sizes(folder):
    return sorted(path.stat().st_size for path in files(folder))


def number(server, name):
    """The sum of a metric over its labels."""
    with server.client() as client:
        lines = client.get("/metrics").text.splitlines()
    found = [line for line in lines if line.startswith(name)]
    return sum(float(line.rsplit(" ", 1)[1]) for line in found)


def test_many_readers_workers_and_restarts_share_what_was_verified(tiered):
    server, folder = tiered
    token = server.token(branch="main")
    source = random.Random(3)
    bodies = {str(key): source.randbytes(size) for key, size in enumerate((70_000, LARGE, 0, 9))}
    for key, body in bodies.items():
        assert server.put(token, key, body).status_code == 200
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        keys = [*bodies] * 6
        answers = [*pool.map(lambda key: server.get(token, key).content, keys)]
    assert answers == [bodies[key] for key in keys]
    # What is small enough stands behind its record, and never comes here.
    wait_until(lambda: sizes(folder) == [70_000, LARGE], "the files to get their names")
    # One download for each worker, at the most.
    assert number(server, "secure_cache_tier_fills_total") <= 4
    assert number(server, "secure_cache_tier_taken_bytes") >= LARGE

    server.kill9()
    server.start()
    assert server.get(token, "1").content == bodies["1"]
    assert number(server, "secure_cache_tier_fills_total") == 0
    assert number(server, 'secure_cache_tier_reads_total{outcome="hit"}') == 1


def test_a_tier_whose_every_file_was_changed_serves_what_was_stored(tiered):
    server, folder = tiered
    token = server.token(branch="main")
    body = os.urandom(LARGE)
    assert server.put(token, "1", body).status_code == 200
    for state in ("running", "down"):
        assert server.get(token, "1").content == body
        wait_until(lambda: files(folder), "the file to get its name")
        if state == "down":
            server.stop()
        for path in files(folder):
            path.write_bytes(os.urandom(LARGE))
        if state == "down":
            server.start()
        assert server.get(token, "1").content == body
    assert "artifact.quarantined" not in server.logs()
    assert "tier.damaged" in server.logs()


def test_what_is_revoked_is_not_served_from_the_tier(tiered):
    server, folder = tiered
    token = server.token(branch="main")
    assert server.put(token, "1", os.urandom(70_000)).status_code == 200
    assert server.get(token, "1").status_code == 200
    wait_until(lambda: files(folder), "the file to get its name")
    server.stop()
    server.revoke(key="1")
    server.start()
    assert server.get(token, "1").status_code == 404


def test_a_tier_that_others_may_open_is_refused_with_a_line_that_says_what_to_do(tiered):
    server, folder = tiered
    server.stop()
    folder.chmod(0o755)
    with pytest.raises(NotReadyError) as refused:
        server.start()
    assert f"chmod 700 {folder}" in refused.value.logs
    assert "Traceback" not in refused.value.logs
