"""`init`, `storage` and `log fsck` over a real Azurite."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from azure.storage.blob import (
    AccountSasPermissions,
    BlobServiceClient,
    ResourceTypes,
    generate_account_sas,
)
from fakes.azure_identity_endpoint import ManagedIdentity
from world.azurite import Azurite
from world.fault_proxy import FaultProxy
from world.server import cli
from world.wire_faults import Answer, LoseAnswer, Reset

from secure_cache.compose.azure import NEEDS
from secure_cache.core.keystore import load_keystore
from secure_cache.settings import load_settings

CONNECTION_STRING = "AZURE_STORAGE_CONNECTION_STRING"


@pytest.fixture
def container(azurite, monkeypatch):
    """A fresh one, and the environment that reaches it."""
    monkeypatch.setenv(CONNECTION_STRING, azurite.connection_string)
    return azurite.create_container()


@pytest.fixture
def init(call, tmp_path):
    def make(container, *options, directory="server"):
        return call(
            "init", tmp_path / directory, "--storage", "azure", "--container", container, *options
        )

    return make


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_it_makes_keys_here_and_the_log_there(init, call, container, tmp_path):
    done = init(container, "--account-name", "devstoreaccount1")
    assert (done.code, done.out) == (0, f"{tmp_path / 'server'}\n")
    config = tmp_path / "server" / "secure-cache.toml"
    storage = load_settings(config, {}).storage
    assert (storage.kind, storage.container) == ("azure", container)
    assert storage.account_name == "devstoreaccount1"
    assert not (tmp_path / "server" / "data").exists()
    fsck = call("log", "fsck", "--config", config)
    assert fsck.code == 0
    assert load_keystore(tmp_path / "server" / "keys").log.name in fsck.out
    assert f"{container}/tiles/" in fsck.err


def test_the_connection_string_is_written_nowhere(init, azurite, container, tmp_path):
    done = init(container)
    assert azurite.account_key not in done.out + done.err
    for data in files(tmp_path / "server").values():
        assert azurite.account_key.encode() not in data


def test_another_log_in_the_container_is_never_touched(init, azurite, container, tmp_path):
    assert init(container).code == 0
    with FaultProxy(azurite.port) as proxy:
        done = init(container, directory="other")
        assert not proxy.requests
    assert done.code == 2
    assert "another installation's and is never overwritten" in done.err
    assert done.err.count("\n") == 1
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("store", sorted(NEEDS))
def test_whatever_stands_in_a_store_makes_it_somebody_elses(store, init, azurite, container):
    with BlobServiceClient.from_connection_string(
        azurite.connection_string, api_version="2026-06-06"
    ) as client:
        client.get_blob_client(container, f"{store}/something").upload_blob(b"x")
        client.get_blob_client(container, "0123456789").upload_blob(b"an entry of the Nx plugin")
    done = init(container)
    assert done.code == 2
    assert f"store {store} ({container}/{store}/ at 127.0.0.1) holds something" in done.err


def test_what_the_nx_plugin_left_in_the_container_is_no_hindrance(init, azurite, container):
    with BlobServiceClient.from_connection_string(
        azurite.connection_string, api_version="2026-06-06"
    ) as client:
        client.get_blob_client(container, "0123456789").upload_blob(b"an entry of the Nx plugin")
    assert init(container).code == 0


def test_a_folder_that_is_there_is_never_overwritten(init, container, tmp_path):
    assert init(container).code == 0
    before = files(tmp_path / "server")
    for options in ((), ("--url", "https://cache.example.com"), ("--account-name", "another")):
        done = init(container, *options)
        assert done.code == 2
        assert f"{tmp_path / 'server'} is there already" in done.err
    assert files(tmp_path / "server") == before


def test_a_missing_container_is_said_with_the_cure_and_nothing_is_left(init, container, tmp_path):
    done = init(f"{container}-not", "--account-name", "devstoreaccount1")
    assert done.code == 2
    assert "ContainerNotFound" in done.err
    assert f"az storage container create --name {container}-not" in done.err
    assert "--account-name devstoreaccount1" in done.err
    assert "secure-cache storage create" in done.err
    assert done.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_each_store_gets_a_container_of_its_own_where_that_is_asked_for(
    init, call, azurite, monkeypatch, tmp_path
):
    monkeypatch.setenv(CONNECTION_STRING, azurite.connection_string)
    name = azurite.fresh_container()
    assert init(name, "--separate-containers", "--create-containers").code == 0
    config = tmp_path / "server" / "secure-cache.toml"
    own = load_settings(config, {}).storage.containers
    assert {getattr(own, store) for store in NEEDS} == {f"{name}-{store}" for store in NEEDS}
    said = json.loads(call("storage", "create", "--config", config, "--json").out)
    assert said["containers"] == {f"{name}-{store}": False for store in NEEDS}
    assert call("log", "fsck", "--config", config).code == 0


WRITES_OF_THE_LOG = ["head/head", "head/checkpoint"]


@pytest.mark.parametrize("path", WRITES_OF_THE_LOG)
@pytest.mark.parametrize("fault", [Reset(), LoseAnswer()], ids=["not done", "done"])
def test_a_creation_that_was_cut_is_finished_by_the_same_command(  # noqa: PLR0917
    path, fault, init, call, azurite, container, monkeypatch, tmp_path
):
    """The keys are there and the log is not, or half of it, or all of it unknown to us."""
    with FaultProxy(azurite.port) as proxy:
        monkeypatch.setenv(CONNECTION_STRING, azurite.connection_string_at(proxy.port))
        proxy.when(fault, method="PUT", path=path)
        # What was written cannot be seen either, so nobody knows; the first look is before it.
        proxy.when(Reset(), method="HEAD", path=path, skip=1)
        done = init(container)
        assert done.code == 3, done.err
        assert "give the same command again" in done.err
        keys = files(tmp_path / "server" / "keys")
        assert keys
        proxy.clear()
        again = init(container)
        fsck = call("log", "fsck", "--config", tmp_path / "server" / "secure-cache.toml")
    complete = path == "head/checkpoint" and isinstance(fault, LoseAnswer)
    assert again.code == (2 if complete else 0), again.err
    assert files(tmp_path / "server" / "keys") == keys
    assert fsck.code == 0


def test_a_creation_is_not_finished_by_another_key(init, azurite, container, monkeypatch, tmp_path):
    with FaultProxy(azurite.port) as proxy:
        monkeypatch.setenv(CONNECTION_STRING, azurite.connection_string_at(proxy.port))
        proxy.when(Reset(), method="PUT", path="head/checkpoint")
        proxy.when(Reset(), method="HEAD", path="head/checkpoint", skip=1)
        assert init(container).code == 3
        proxy.clear()
        other = init(container, directory="other")
    assert other.code == 2
    assert not (tmp_path / "other").exists()


def test_when_another_log_took_the_place_meanwhile_it_is_left_alone(
    init, azurite, container, monkeypatch
):
    with FaultProxy(azurite.port) as proxy:
        monkeypatch.setenv(CONNECTION_STRING, azurite.connection_string_at(proxy.port))
        proxy.when(Reset(), method="PUT", path="head/head")
        proxy.when(Reset(), method="HEAD", path="head/head", skip=1)
        assert init(container).code == 3
        proxy.clear()
        assert init(container, directory="other").code == 0
        done = init(container)
    assert done.code == 2
    assert "another installation's" in done.err


@pytest.fixture
def server(init, container, tmp_path):
    assert init(container).code == 0
    return tmp_path / "server" / "secure-cache.toml"


def test_check_prints_what_each_store_grants_and_warns_of_what_is_too_much(server, call, container):
    done = call("storage", "check", "--config", server)
    assert done.code == 0
    head, *rows, clock = done.out.splitlines()
    assert head.split() == ["store", "create", "replace", "delete", "conditional", "WORM", "where"]
    assert [row.split()[0] for row in rows] == list(NEEDS)
    assert rows[2].split()[1:6] == ["yes", "yes", "yes", "yes", "no"]
    assert f"{container}/tiles/ at 127.0.0.1" in rows[2]
    assert clock.startswith("clock: ")
    assert "artifacts, records, tiles, head, state: the server's identity may delete" in done.err
    assert "no immutability policy (WORM)" in done.err


def test_check_says_the_same_to_programs(server, call, container):
    said = json.loads(call("storage", "check", "--config", server, "--json").out)
    assert (said["kind"], said["ok"], said["lacks"]) == ("azure", True, [])
    assert list(said["stores"]) == list(NEEDS)
    tiles = said["stores"]["tiles"]
    assert (tiles["container"], tiles["prefix"]) == (container, "tiles/")
    assert (tiles["create"], tiles["conditional_create"], tiles["worm"]) == (True, True, False)
    assert abs(tiles["clock_skew_seconds"]) < 30
    assert len(said["warnings"]) == 2


def test_check_leaves_nothing_that_a_listing_shows_and_may_be_repeated(server, call):
    for _ in range(2):
        assert call("storage", "check", "--config", server).code == 0
    assert call("log", "fsck", "--config", server).code == 0


def test_check_says_no_where_tiles_must_be_locked_and_are_not(server, call, monkeypatch):
    monkeypatch.setenv("SECURE_CACHE_STORAGE__REQUIRE_WORM", "true")
    done = call("storage", "check", "--config", server)
    assert done.code == 1
    assert "storage.require_worm = true" in done.err


@pytest.fixture
def signed(init, azurite_oauth, monkeypatch, tmp_path):
    """Makes an installation, then gives the environment a signature with these permissions only."""
    monkeypatch.setenv("SECURE_CACHE_STORAGE__CA_FILE", str(azurite_oauth.ca_file))
    monkeypatch.setenv(CONNECTION_STRING, azurite_oauth.connection_string)
    assert init(azurite_oauth.create_container()).code == 0

    def sign(permissions):
        sas = account_sas(azurite_oauth, permissions)
        string = f"BlobEndpoint={azurite_oauth.endpoint};SharedAccessSignature={sas}"
        monkeypatch.setenv(CONNECTION_STRING, string)
        return tmp_path / "server" / "secure-cache.toml", sas

    return sign


def account_sas(azurite: Azurite, permissions: str) -> str:
    return generate_account_sas(
        azurite.account_name,
        account_key=azurite.account_key,
        resource_types=ResourceTypes(service=True, container=True, object=True),
        permission=AccountSasPermissions.from_string(permissions),
        expiry=datetime.now(UTC) + timedelta(hours=1),
    )


@pytest.mark.parametrize(
    ("permissions", "lacking"),
    [
        # Where the probe exists, one who may not create is answered like one who may only create.
        ("rl", {*NEEDS} - {"tiles"}),
        # Create alone stages no blocks and replaces nothing.
        ("rcl", {*NEEDS} - {"tiles"}),
        ("rwl", {"pending"}),
        ("rwdl", set()),
    ],
)
def test_check_names_each_store_in_which_the_identity_lacks_a_right(
    permissions, lacking, signed, call
):
    config, sas = signed(permissions)
    done = call("storage", "check", "--config", config, "--json")
    assert done.code == (1 if lacking else 0), done.err
    said = json.loads(done.out)
    assert {line.partition(":")[0] for line in said["lacks"]} == lacking
    assert sas not in done.out + done.err


def test_a_start_without_a_right_is_refused_at_once_where_waiting_does_not_help(signed):
    config, sas = signed("rwl")
    done = cli("serve", "--config", config, "--port", 0)
    assert done.returncode == 4
    assert "store pending" in done.stderr
    assert "may not delete objects" in done.stderr
    assert sas not in done.stderr


def test_a_policy_on_the_tiles_is_noticed(server, call, azurite, monkeypatch):
    """Azurite has none: the proxy answers as Azure does to whoever would change what is kept."""
    refused = Answer(409, {"x-ms-error-code": "BlobImmutableDueToPolicy"})
    with FaultProxy(azurite.port) as proxy:
        monkeypatch.setenv(CONNECTION_STRING, azurite.connection_string_at(proxy.port))
        monkeypatch.setenv("SECURE_CACHE_STORAGE__REQUIRE_WORM", "true")
        proxy.when(refused, method="DELETE", path="/tiles/")
        proxy.when(
            refused, method="PUT", path="/tiles/", where=lambda seen: "if-match" in seen.headers
        )
        done = call("storage", "check", "--config", server)
    assert done.code == 0, done.err
    assert done.out.splitlines()[3].split()[:6] == ["tiles", "yes", "no", "no", "yes", "yes"]
    assert "WORM" not in done.err


def test_a_managed_identity_is_used_when_it_is_chosen(init, call, azurite_oauth, monkeypatch):
    monkeypatch.setenv("SECURE_CACHE_STORAGE__CA_FILE", str(azurite_oauth.ca_file))
    container = azurite_oauth.create_container()
    with ManagedIdentity() as identity:
        for name, value in identity.environment.items():
            monkeypatch.setenv(name, value)
        done = init(
            container, "--credential", "managed-identity", "--endpoint", azurite_oauth.endpoint
        )
        assert done.code == 0, done.err
        assert identity.requests


def test_the_extra_settings_of_another_account_are_not_mixed_up(server, call, monkeypatch):
    monkeypatch.setenv(
        CONNECTION_STRING,
        "AccountName=another;AccountKey=a2V5;BlobEndpoint=https://another.blob.core.windows.net",
    )
    monkeypatch.setenv("SECURE_CACHE_STORAGE__ALLOW_ACCOUNT_KEY", "true")
    monkeypatch.setenv("SECURE_CACHE_STORAGE__ACCOUNTNAME", "myaccount")
    done = call("storage", "check", "--config", server)
    assert done.code == 2
    assert "storage.accountName = 'myaccount'" in done.err
    assert "is for 'another'" in done.err


@pytest.mark.parametrize(
    ("credential", "said"),
    [
        ("connection-string", f"needs {CONNECTION_STRING}"),
        ("workload-identity", "needs AZURE_TENANT_ID"),
        ("service-principal", "needs AZURE_TENANT_ID"),
    ],
)
def test_a_chosen_identity_that_is_not_there_is_said(credential, said, server, call, monkeypatch):
    monkeypatch.delenv(CONNECTION_STRING)
    monkeypatch.setenv("SECURE_CACHE_STORAGE__CREDENTIAL", credential)
    monkeypatch.setenv("SECURE_CACHE_STORAGE__ACCOUNTNAME", "myaccount")
    done = call("storage", "check", "--config", server)
    assert done.code == 2
    assert said in done.err
    assert done.err.count("\n") == 1
