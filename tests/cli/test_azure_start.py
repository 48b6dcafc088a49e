"""`serve` over Azure: each way in which a start can fail has one clear line and its exit code."""

import json
import os
import subprocess
import time

import httpx
import pytest
from fakes.azure_identity_endpoint import ManagedIdentity
from world.azurite import Azurite
from world.fault_proxy import FaultProxy
from world.server import cli, command, wait_until
from world.wire_faults import Answer

CONNECTION_STRING = "AZURE_STORAGE_CONNECTION_STRING"
READY_SECONDS = 30
WRONG_KEY = "d3Jvbmcga2V5d3Jvbmcga2V5d3Jvbmcga2V5d3Jvbmcga2V5d3Jvbmcga2V5d3Jvbmcga2V5d3Jvbmcga2U="


def refused(status, code):
    return Answer(status, {"x-ms-error-code": code})


@pytest.fixture
def config(call, azurite, monkeypatch, tmp_path):
    """An installation, and in the environment what reaches it."""
    monkeypatch.setenv(CONNECTION_STRING, azurite.connection_string)
    container = azurite.create_container()
    done = call("init", tmp_path / "s", "--storage", "azure", "--container", container)
    assert done.code == 0, done.err
    return tmp_path / "s" / "secure-cache.toml"


def serve(config, *options):
    """A start that fails: its exit code, and what it said."""
    done = cli("serve", "--config", config, "--port", 0, *options)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done


def the_line(done) -> str:
    """The one for the person; what the server's log says beside it is JSON."""
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert line.startswith("secure-cache: ")
    return line


def test_a_wrong_key(config, azurite, monkeypatch):
    monkeypatch.setenv(
        CONNECTION_STRING, azurite.connection_string.replace(azurite.account_key, WRONG_KEY)
    )
    done = serve(config)
    assert done.returncode == 4
    assert "the key is wrong" in the_line(done)
    assert WRONG_KEY not in done.stderr


def test_a_wrong_key_seen_by_workers_is_told_once(config, azurite, monkeypatch):
    monkeypatch.setenv(
        CONNECTION_STRING, azurite.connection_string.replace(azurite.account_key, WRONG_KEY)
    )
    done = serve(config, "--workers", 2)
    assert done.returncode == 4
    assert done.stderr.count("secure-cache: ") == 1
    assert "the key is wrong" in done.stderr


def test_a_missing_container(config, monkeypatch):
    monkeypatch.setenv("SECURE_CACHE_STORAGE__CONTAINER", "not-there-at-all")
    done = serve(config)
    assert done.returncode == 2
    line = the_line(done)
    assert "store artifacts (not-there-at-all/artifacts/ at 127.0.0.1)" in line
    assert "ContainerNotFound" in line
    assert "az storage container create --name not-there-at-all" in line


def test_one_missing_container_among_six_is_named(config, monkeypatch):
    """What is in it must never be taken for missing: the cache would look empty and be refilled."""
    monkeypatch.setenv("SECURE_CACHE_STORAGE__CONTAINERS__PENDING", "gone")
    done = serve(config)
    assert done.returncode == 2
    assert "store pending (gone/ at 127.0.0.1)" in the_line(done)


def test_a_container_without_a_log(config, azurite, monkeypatch):
    monkeypatch.setenv("SECURE_CACHE_STORAGE__CONTAINER", azurite.create_container())
    done = serve(config)
    assert done.returncode == 5
    assert "the log has no checkpoint" in the_line(done)


def test_nobody_there(config, azurite, monkeypatch, tmp_path):
    gone = Azurite(tmp_path / "gone")
    monkeypatch.setenv(CONNECTION_STRING, gone.connection_string)
    done = serve(config)
    assert done.returncode == 3
    assert "no connection" in the_line(done)


def test_an_api_version_that_the_storage_does_not_know(config, azurite, monkeypatch):
    with FaultProxy(azurite.port) as proxy:
        monkeypatch.setenv(CONNECTION_STRING, azurite.connection_string_at(proxy.port))
        proxy.when(refused(400, "InvalidHeaderValue"))
        done = serve(config)
    assert done.returncode == 2
    assert "API version" in the_line(done)


def test_tiles_that_could_be_changed_where_that_is_not_accepted(config, monkeypatch):
    monkeypatch.setenv("SECURE_CACHE_STORAGE__REQUIRE_WORM", "true")
    done = serve(config)
    assert done.returncode == 2
    assert "storage.require_worm = true" in the_line(done)


def test_a_storage_that_ignores_conditions(config, azurite, monkeypatch):
    """Every promise rests on create-if-absent: an endpoint that only looks like Blob Storage."""
    with FaultProxy(azurite.port) as proxy:
        monkeypatch.setenv(CONNECTION_STRING, azurite.connection_string_at(proxy.port))
        etag = {"ETag": '"0x1"', "Last-Modified": "Sat, 21 Nov 2026 00:00:00 GMT"}
        proxy.when(Answer(201, etag), method="PUT", path=".probe/")
        done = serve(config)
    assert done.returncode == 2
    assert "the storage overwrites what create must leave alone" in the_line(done)


# with an identity and roles


@pytest.fixture
def by_identity(call, azurite_oauth, monkeypatch, tmp_path):
    """An installation that uses a managed identity; gives its settings and the identity."""
    monkeypatch.setenv("SECURE_CACHE_STORAGE__CA_FILE", str(azurite_oauth.ca_file))
    container = azurite_oauth.create_container()
    with ManagedIdentity() as identity:
        for name, value in identity.environment.items():
            monkeypatch.setenv(name, value)
        done = call(
            "init",
            tmp_path / "s",
            *("--storage", "azure", "--container", container),
            *("--credential", "managed-identity", "--endpoint", azurite_oauth.endpoint),
        )
        assert done.code == 0, done.err
        yield tmp_path / "s" / "secure-cache.toml", identity


def test_an_expired_credential(by_identity):
    config, identity = by_identity
    identity.lifetime = -600
    done = serve(config)
    assert done.returncode == 4
    assert "expired" in the_line(done)


def test_an_identity_that_gets_no_token(by_identity):
    config, identity = by_identity
    identity.status = 400
    done = serve(config)
    assert done.returncode == 4
    assert "no token could be got for the server's identity" in the_line(done)


ROLE = refused(403, "AuthorizationPermissionMismatch")


@pytest.fixture
def guarded(by_identity, azurite_oauth, monkeypatch):
    """As `by_identity`, behind a proxy that stands in for roles."""
    config, _ = by_identity
    with FaultProxy(azurite_oauth.port, certificate=azurite_oauth.certificate) as proxy:
        endpoint = azurite_oauth.endpoint_at(proxy.port)
        monkeypatch.setenv("SECURE_CACHE_STORAGE__ENDPOINT", endpoint)
        yield config, proxy


def test_a_missing_role_is_waited_for_and_then_told(guarded, monkeypatch):
    config, proxy = guarded
    monkeypatch.setenv("SECURE_CACHE_STORAGE__ROLE_WAIT_SECONDS", "1.2")
    proxy.when(ROLE, path="/head/")
    done = serve(config)
    assert done.returncode == 4
    assert "store head" in the_line(done)
    assert "AuthorizationPermissionMismatch" in the_line(done)
    events = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    (waited,) = [event for event in events if event["event"] == "storage.role_missing"]
    assert waited["wait_seconds"] == 1.2


def test_a_role_that_arrives_late_costs_no_restart(guarded):
    config, proxy = guarded
    proxy.when(ROLE, path="/records/", times=2)
    with subprocess.Popen(
        [command(), "serve", "--config", config, "--port", "0"],
        env=os.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        line = process.stdout.readline()
        assert line.startswith("secure-cache listening on ")
        url = line.split()[-1]
        ready = httpx.get(f"{url}/readyz", trust_env=False, timeout=60).json()
        numbers = httpx.get(f"{url}/metrics", trust_env=False, timeout=60).text
        process.terminate()
        _, err = process.communicate(timeout=READY_SECONDS)
    assert process.returncode == 0
    events = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    names = [event["event"] for event in events]
    assert names.count("storage.role_missing") == 1
    # Azurite has no roles and no locks, and strangers learn no more than this word.
    assert ready["checks"]["storage"] == "weaker than asked"
    assert ready["degraded"] is False
    (told,) = [event for event in events if event["event"] == "storage.capabilities"]
    assert told["tiles_locked"] is False
    assert any("WORM" in line for line in told["weak"])
    assert 'secure_cache_storage_requests_total{operation="probe"' in numbers
    assert 'outcome="forbidden",store="records"' in numbers
    assert 'secure_cache_storage_seconds_bucket{le="0.001",operation="probe"}' in numbers


@pytest.mark.slow
def test_when_the_storage_goes_away_builds_go_on_and_it_is_told_once(call, config, azurite):
    string = azurite.connection_string_at
    with FaultProxy(azurite.port) as proxy:
        environ = {**os.environ, CONNECTION_STRING: string(proxy.port)}
        token = call("token", "issue", "--config", config, "--project", "demo", "--branch", "main")
        headers = {"Authorization": f"Bearer {token.out.strip()}"}
        with subprocess.Popen(
            [command(), "serve", "--config", config, "--port", "0"],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            url = process.stdout.readline().split()[-1]
            with httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=60) as nx:
                assert nx.put("/v1/cache/1", content=b"before").status_code == 200
                proxy.refuse()
                away = [nx.get(f"/v1/cache/{key}") for key in range(2, 12)]
                lost = nx.put("/v1/cache/2", content=b"lost")
                ready = nx.get("/readyz")
                proxy.accept()
                wait_until(
                    lambda: nx.get("/v1/cache/99").headers["X-Secure-Cache-Reason"] == "miss",
                    "the storage to be used again",
                )
                # Quiet for so long that it is believed.
                time.sleep(6)
                assert nx.get("/v1/cache/1").content == b"before"
                again = nx.put("/v1/cache/2", content=b"again")
            process.terminate()
            _, err = process.communicate(timeout=READY_SECONDS)
    assert {answer.status_code for answer in away} == {404}
    reasons = {answer.headers["X-Secure-Cache-Reason"] for answer in (*away, lost)}
    assert reasons == {"storage-unavailable"}
    assert (lost.status_code, ready.status_code, again.status_code) == (403, 200, 200)
    events = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    told = [event for event in events if event.get("store") == "records"]
    assert [event["event"] for event in told] == ["storage.unavailable", "storage.recovered"]
    assert told[1]["failed"] >= 10
