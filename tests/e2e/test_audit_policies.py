"""Was a policy loosened before it happened: asked of a real server, and of its stores."""

import json
import os
import subprocess

import pytest
from world.server import command, wait_until

from secure_cache.model.digest import Digest


def audit(server, *arguments):
    return run(server, "policies", *arguments)


def run(server, *arguments):
    environment = os.environ | server.reach | {"SECURE_CACHE_TOKEN": server.token(role="auditor")}
    return subprocess.run(
        [command(), "audit", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
    )


def loosen(server):
    """The log is made public, and closed again."""
    policy = server.config.parent / "policy.yaml"
    before = policy.read_text()
    server.edit_policy(lambda text: text + "log: { public: true }\n")
    loosened = policy.read_text()
    told(server, loosened)
    server.edit_policy(lambda _: before)
    told(server, before)
    return before, loosened


def told(server, text):
    """Wait until the log says that this policy took effect."""
    auditor, digest = server.token(role="auditor"), str(Digest.of(text.encode()))

    def newest():
        with server.client(auditor) as client:
            answer = client.get("/audit/v1/policies")
        return answer.status_code == 200 and answer.json()["policies"][-1]["sha256"] == digest

    wait_until(newest, "the policy to be told")


@pytest.mark.slow
def test_an_auditor_finds_the_policy_that_was_loosened(make_server, tmp_path):
    server = make_server(follow_seconds=0.2).start()
    wait_until(lambda: audit(server, "--server", server.url).stdout.count("\n") >= 2, "a policy")
    before, loosened = loosen(server)
    mirror = tmp_path / "mirror"
    done = run(server, "mirror", "--server", server.url, mirror)
    assert done.returncode == 0, done.stderr
    for place in (("--server", server.url), ("--store", server.config), ("--mirror", mirror)):
        done = audit(server, *place, "--json")
        assert done.returncode == 0, done.stderr
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        assert [row["verdict"] for row in rows] == [None, "loosened", "tightened"]
        assert [row["sha256"] for row in rows] == [
            str(Digest.of(text.encode())) for text in (before, loosened, before)
        ]
        table = audit(server, *place)
        assert "LOOSENED" in table.stdout
        assert "3 policies, 1 of them loosened the one before" in table.stderr

        compared = audit(server, *place, "--diff", "1", "2")
        assert compared.returncode == 0, compared.stderr
        assert "LOOSENED" in compared.stdout
        assert "  loosened: log: public" in compared.stdout
        assert "+log: { public: true }" in compared.stdout
        by_digest = audit(server, *place, "--json", "--diff", "2", rows[2]["sha256"][:12])
        assert json.loads(by_digest.stdout)["verdict"] == "tightened"
        assert audit(server, *place, "--diff", "1", "77").returncode == 1
        assert audit(server, *place, "--diff", "1", "x").returncode == 2
    assert "--log-key" in audit(server, "--server", server.url).stderr

    # Another text in the place of one that was in force is never shown as that policy.
    server.stop()
    server.stored.delete(f"state/policy/{2:012d}")
    done = audit(server, "--store", server.config)
    assert done.returncode == 0
    assert "unknown: a text is not kept here" in done.stdout
    assert audit(server, "--store", server.config, "--diff", "1", "2").returncode == 1
