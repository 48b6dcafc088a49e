"""The auditor's side of a real server: two workers, a crash, commands over HTTP and its stores."""

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from world.server import cli, command, wait_until


def audit(server, *arguments, token=None):
    environment = os.environ | server.reach
    environment |= {"SECURE_CACHE_TOKEN": token or server.token(role="auditor")}
    return subprocess.run(
        [command(), "audit", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
    )


def rows(done):
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def store(server, prefix, count):
    main, pr = server.token(), server.token(pr=7)
    with ThreadPoolExecutor(8) as pool:
        puts = [
            pool.submit(server.put, main if n % 2 else pr, f"{prefix}{n:03d}", b"data %d" % n)
            for n in range(count)
        ]
        assert {put.result().status_code for put in puts} == {200}


def indexed(server, entries):
    """Wait until so many stores are indexed."""
    auditor = server.token(role="auditor")

    def all_are():
        with server.client(auditor) as client:
            answer = client.get("/audit/v1/counts", params={"event": "stored"})
        return answer.status_code == 200 and answer.json()["total"] >= entries

    wait_until(all_are, "the index to catch up")


@pytest.mark.slow
@pytest.mark.every_storage
@pytest.mark.timeout(600)
def test_an_auditor_asks_a_server_that_crashed(make_server):
    server = make_server(workers=2, follow_seconds=0.2).start()
    store(server, "1", 40)
    server.kill9()
    server.start()
    store(server, "2", 40)
    indexed(server, 80)

    by_http = rows(audit(server, "query", "--server", server.url, "--json", "--limit", 1000))
    by_store = rows(audit(server, "query", "--store", server.config, "--json", "--limit", 1000))
    assert by_http == by_store
    assert [row["index"] for row in by_http] == list(range(len(by_http)))
    trusted = rows(
        audit(server, "query", "--server", server.url, "--json", "--tier", "trusted", "--newest")
    )
    assert {row["namespace"] for row in trusted} == {"demo:branch/main"}
    assert len(trusted) == 40

    number = trusted[0]["index"]
    for place in (("--server", server.url), ("--store", server.config)):
        done = audit(server, "show", *place, number)
        assert done.returncode == 0, done.stderr
        assert "signature      valid" in done.stdout
        assert "state          served (rule main)" in done.stdout
    server.revoke(namespace="demo:branch/main")
    wait_until(
        lambda: (
            "state          revoked (revocation"
            in audit(server, "show", "--server", server.url, number).stdout
        ),
        "the revocation to be seen",
    )

    done = cli(
        *("audit", "index", "check", "--log", "--config", server.config), environment=server.reach
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = [event for event in server.events() if event.get("event") == "audit.query"]
    assert {event["rule"] for event in told} == {"auditor"}

    developer = server.token(role="developer")
    done = audit(server, "query", "--server", server.url, token=developer)
    assert (done.returncode, done.stdout) == (4, "")
    done = audit(server, "query", "--server", server.url, "--tier", "root")
    assert done.returncode == 2
    assert "trusted, candidate, contributor" in done.stderr
    assert audit(server, "show", "--server", server.url, 99999).returncode == 1

    # Made anew beside the running server; its answers are the same.
    done = cli("audit", "index", "rebuild", "--config", server.config, environment=server.reach)
    assert done.returncode == 0, done.stderr
    server.stop()
    again = rows(audit(server, "query", "--store", server.config, "--json", "--limit", 1000))
    assert again[: len(by_http)] == by_http


@pytest.mark.slow
def test_an_index_that_was_deleted_beside_the_server_is_soon_there_again(make_server):
    server = make_server(follow_seconds=0.2).start()
    store(server, "1", 4)
    indexed(server, 4)
    for _ in range(3):
        for path in (server.data / "audit").glob("index.sqlite*"):
            if path.suffix != ".lock":
                path.unlink(missing_ok=True)
        # In far less time than what waits for a disk that is broken.
        indexed(server, 4)
    with server.client(server.token(role="auditor")) as client:
        status = client.get("/audit/v1/status").json()
    assert status["fault"] is None
    assert "audit.index_failed" not in {event.get("event") for event in server.events()}
