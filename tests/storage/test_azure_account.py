"""Which account, as whom: what is accepted, what is refused, and that no secret is printed."""

import gc
import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest
from azure.storage.blob import ContainerSasPermissions, generate_container_sas
from fakes.azure import StaticToken, account_of, azure_options, azure_store, shared_container
from fakes.azure_identity_endpoint import ManagedIdentity, TokenService
from world.azurite import ACCOUNT_KEY, Azurite, running_azurite
from world.fault_proxy import FaultProxy
from world.wire_faults import LoseAnswer

from secure_cache.model.errors import (
    AlreadyExists,
    Misconfigured,
    NotFound,
    SecureCacheError,
    StorageForbidden,
    StorageUnavailable,
)
from secure_cache.storage.azure_blob import AzureAccount, AzureOptions
from secure_cache.storage.azure_blob import account as account_module

pytestmark = pytest.mark.anyio

KEY = "c2VjcmV0LWtleQ=="
BY_KEY = f"AccountName=abc;AccountKey={KEY}"


def by_string(text: str, **more: object) -> AzureOptions:
    return AzureOptions(credential="connection-string", connection_string=text, **more)


def sas_of(azurite: Azurite, permission: str) -> str:
    return generate_container_sas(
        azurite.account_name,
        shared_container(azurite),
        account_key=azurite.account_key,
        permission=ContainerSasPermissions.from_string(permission),
        expiry=datetime.now(UTC) + timedelta(hours=1),
    )


def store_by_sas(azurite: Azurite, permission: str, *, port: int | None = None, **more: object):
    endpoint = azurite.endpoint_at(port or azurite.port)
    text = f"BlobEndpoint={endpoint};SharedAccessSignature={sas_of(azurite, permission)}"
    return azure_store(azurite, port=port, connection_string=text, **more)


@pytest.mark.parametrize(
    ("options", "url"),
    [
        (AzureOptions("azure-cli", account_name="abc"), "https://abc.blob.core.windows.net"),
        (AzureOptions("azure-cli", endpoint="https://x.example/"), "https://x.example"),
        (by_string(BY_KEY, allow_account_key=True), "https://abc.blob.core.windows.net"),
        (
            by_string(f"{BY_KEY};EndpointSuffix=core.chinacloudapi.cn", allow_account_key=True),
            "https://abc.blob.core.chinacloudapi.cn",
        ),
        (
            by_string("BlobEndpoint=https://x.example/abc/;SharedAccessSignature=?sig=s"),
            "https://x.example/abc",
        ),
        (by_string(f"{BY_KEY};BlobEndpoint=http://127.0.0.1:1/abc"), "http://127.0.0.1:1/abc"),
        (by_string(f"{BY_KEY};BlobEndpoint=http://[::1]:1/abc;"), "http://[::1]:1/abc"),
        (
            by_string(f"{BY_KEY};BlobEndpoint=http://azurite:1/abc", allow_account_key=True),
            "http://azurite:1/abc",
        ),
    ],
    ids=["name", "url", "key", "cloud", "sas", "loopback", "loopback6", "emulator"],
)
def test_where_an_account_is(options, url):
    assert AzureAccount.connect(options).endpoint.url == url


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (AzureOptions("default"), "choose one of"),
        (AzureOptions("azure-cli"), "accountName"),
        (AzureOptions("azure-cli", account_name="a.evil.example/x"), "name of a storage account"),
        (AzureOptions("azure-cli", account_name="abc\n"), "name of a storage account"),
        (AzureOptions("azure-cli", endpoint="http://x.example"), "https only"),
        (AzureOptions("azure-cli", endpoint="http://127.0.0.1:1/a"), "https only"),
        (AzureOptions("azure-cli", endpoint="ftp://x.example"), "not an http"),
        (AzureOptions("azure-cli", endpoint="https://x.example:port"), "not a URL"),
        (AzureOptions("azure-cli", endpoint="https://x.example/?sig=SECRET"), "query"),
        (AzureOptions("azure-cli", endpoint="https://u:SECRET@x.example/"), "query"),
        (by_string(""), "NAME=VALUE"),
        (by_string("SECRET"), "NAME=VALUE"),
        (by_string("AccountName=abc;accountname=abd;AccountKey=SECRET"), "NAME=VALUE"),
        (by_string("AccountKey=c2VjcmV0"), "neither"),
        (by_string("AccountName=abc"), "one of"),
        (by_string(f"{BY_KEY};SharedAccessSignature=SECRET"), "one of"),
        (by_string("AccountName=abc;AccountKey=SECRET!"), "base64"),
        (by_string(f"BlobEndpoint=https://x.example;AccountKey={KEY}"), "without AccountName"),
        (by_string(BY_KEY), "allow_account_key"),
        (by_string(f"{BY_KEY};BlobEndpoint=http://127.0.0.1.x.example/"), "allow_account_key"),
        (by_string("BlobEndpoint=http://x.example;SharedAccessSignature=SECRET"), "https only"),
        (AzureOptions("workload-identity", account_name="abc"), "AZURE_TENANT_ID"),
        (AzureOptions("service-principal", account_name="abc"), "AZURE_TENANT_ID"),
        (
            AzureOptions(
                "service-principal",
                account_name="abc",
                environment={"AZURE_TENANT_ID": "t", "AZURE_CLIENT_ID": "c"},
            ),
            "AZURE_CLIENT_SECRET",
        ),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else None,
)
def test_what_can_not_be_meant_is_refused_before_any_request(options, said):
    with pytest.raises(Misconfigured, match=said) as caught:
        AzureAccount.connect(options)
    assert "=SECRET" not in str(caught.value)
    assert ":SECRET" not in str(caught.value)
    assert KEY not in str(caught.value)


def test_options_and_endpoints_do_not_print_their_secrets():
    options = by_string(BY_KEY, allow_account_key=True, environment={"AZURE_CLIENT_SECRET": KEY})
    assert KEY not in repr(options)
    assert KEY not in repr(AzureAccount.connect(options).endpoint)


@pytest.mark.parametrize("prefix", ["records", "/", "../", "a//", ".probe/", "a b/"])
def test_a_prefix_is_a_folder_with_a_legal_name(prefix):
    account = AzureAccount.connect(by_string(BY_KEY, allow_account_key=True))
    with pytest.raises(Misconfigured):
        account.store("container", prefix, name="records")


async def test_a_certificate_file_that_holds_none_is_said(tmp_path):
    file = tmp_path / "ca.pem"
    file.write_text("nothing")
    options = AzureOptions(
        "managed-identity",
        endpoint="https://x.example",
        ca_file=file,
        token_credential=StaticToken(),
    )
    for _ in range(2):
        with pytest.raises(Misconfigured, match=r"ca\.pem"):
            await AzureAccount.connect(options).store("abc", name="records").head("a")
        file.unlink(missing_ok=True)


async def every_refusal(store) -> list[SecureCacheError]:
    """What each operation of the port raises."""

    async def listed() -> None:
        [info async for info in store.list("")]

    async def opened() -> None:
        async with store.open("a"):
            pass

    async def uploaded() -> None:
        async with store.begin_upload("a") as incoming:
            await incoming.write(b"x" * 5_000_000)
            await incoming.commit(size=5_000_000)

    errors = []
    for call in (
        store.head("a"),
        store.get("a", max_bytes=9),
        store.get_if_changed("a", version='"0x1"', max_bytes=9),
        store.create("a", b"x"),
        store.replace("a", b"x", expected='"0x1"'),
        store.delete("a"),
        store.check(),
        listed(),
        opened(),
        uploaded(),
    ):
        with pytest.raises(SecureCacheError) as caught:
            await call
        errors.append(caught.value)
    await store.close()
    return errors


async def test_a_missing_container_is_never_an_empty_cache(azurite):
    store = account_of(azurite).store("no-such-container", name="records")
    errors = await every_refusal(store)
    assert {type(error) for error in errors} == {Misconfigured}
    assert all("does not exist" in str(error) for error in errors)


async def test_a_wrong_key_is_forbidden_in_one_clear_line(azurite):
    text = azurite.connection_string.replace(ACCOUNT_KEY, KEY)
    errors = await every_refusal(azure_store(azurite, connection_string=text))
    assert {type(error) for error in errors} == {StorageForbidden}
    for error in errors:
        assert "403" in str(error)
        assert KEY not in str(error)
        assert len(str(error).splitlines()) == 1


@pytest.mark.parametrize(
    "token", [StaticToken(lifetime=-10), StaticToken("no.jwt.at-all")], ids=["expired", "garbage"]
)
async def test_a_bad_token_is_forbidden(azurite_oauth, token):
    errors = await every_refusal(azure_store(azurite_oauth, token_credential=token))
    assert {type(error) for error in errors} == {StorageForbidden}
    assert all(token._token not in str(error) for error in errors)


async def test_a_storage_that_does_not_know_our_version_is_misconfigured(azurite, monkeypatch):
    monkeypatch.setattr(account_module, "API_VERSION", "2026-10-06")  # the SDK knows it
    errors = await every_refusal(azure_store(azurite))
    assert {type(error) for error in errors} == {Misconfigured}


async def test_a_certificate_that_nobody_vouches_for_is_not_talked_to(azurite_oauth):
    token = StaticToken()
    store = azure_store(azurite_oauth, ca_file=None, token_credential=token)
    with pytest.raises(StorageUnavailable, match="Certificate"):
        await store.head("a")
    await store.close()


async def test_one_token_serves_all_stores(azurite_oauth):
    token = StaticToken()
    account = account_of(azurite_oauth, token_credential=token)
    stores = [account.store(shared_container(azurite_oauth), f"s{n}/", name="s") for n in range(3)]
    async with anyio.create_task_group() as tasks:
        for store in stores * 5:
            tasks.start_soon(store.delete, "a")
    assert token.asked <= 15  # concurrent first requests may each ask; later ones do not
    asked = token.asked
    await stores[0].delete("a")
    assert token.asked == asked
    await account.close()
    assert token.closed


@pytest.fixture
def managed(monkeypatch):
    with ManagedIdentity() as endpoint:
        for name, value in endpoint.environment.items():
            monkeypatch.setenv(name, value)
        yield endpoint


async def test_a_managed_identity(azurite_oauth, managed):
    store = azure_store(
        azurite_oauth,
        token_credential=None,
        environment={**os.environ, "AZURE_CLIENT_ID": "of-the-user-assigned-one"},
    )
    await store.create("a", b"x")
    await store.close()
    [asked] = managed.requests
    assert asked.parameters["client_id"] == "of-the-user-assigned-one"


@pytest.mark.parametrize("status", [400, 401, 500])
async def test_a_managed_identity_that_gets_no_token(azurite_oauth, managed, status):
    managed.status = status
    store = azure_store(azurite_oauth, token_credential=None, environment=os.environ)
    with pytest.raises((StorageForbidden, StorageUnavailable)):
        await store.head("a")
    await store.close()


@pytest.fixture
def service(azurite_oauth):
    with TokenService(azurite_oauth.certificate) as service:
        yield service


async def test_a_service_principal(azurite_oauth, service):
    environment = {**service.environment, "AZURE_CLIENT_SECRET": service.SECRET}
    store = azure_store(
        azurite_oauth,
        credential="service-principal",
        token_credential=None,
        environment=environment,
    )
    await store.create("a", b"x")
    await store.close()
    assert len(service.requests) == 1


async def test_a_service_principal_that_is_refused(azurite_oauth, service):
    environment = {**service.environment, "AZURE_CLIENT_SECRET": "wrong-SECRET"}
    store = azure_store(
        azurite_oauth,
        credential="service-principal",
        token_credential=None,
        environment=environment,
    )
    with pytest.raises(StorageForbidden, match="AADSTS700027") as caught:
        await store.head("a")
    assert "SECRET" not in str(caught.value)
    await store.close()


async def test_a_workload_identity(azurite_oauth, service, tmp_path: Path):
    file = tmp_path / "token"
    file.write_text(service.ASSERTION)
    store = azure_store(
        azurite_oauth,
        credential="workload-identity",
        token_credential=None,
        environment={**service.environment, "AZURE_FEDERATED_TOKEN_FILE": str(file)},
    )
    await store.create("a", b"x")
    await store.close()
    assert len(service.requests) == 1


async def test_a_workload_identity_whose_file_is_not_there_is_said_once(
    azurite_oauth, service, tmp_path: Path, capsys
):
    """No outage: nobody but an operator can bring the file. The SDK says it again in words of its
    own, where a refusal quotes the whole answer of the token service."""
    file = tmp_path / "token"
    store = azure_store(
        azurite_oauth,
        credential="workload-identity",
        token_credential=None,
        environment={**service.environment, "AZURE_FEDERATED_TOKEN_FILE": str(file)},
    )
    with pytest.raises(StorageForbidden, match=f"no token .*{file}"):
        await store.head("a")
    await store.close()
    assert capsys.readouterr().err == ""


async def test_the_azure_cli_is_asked_when_it_is_chosen(azurite_oauth, tmp_path, monkeypatch):
    token = StaticToken()._token
    program = tmp_path / "az"
    program.write_text(
        "#!/bin/sh\n"
        f'echo \'{{"accessToken": "{token}", "expiresOn": "2099-01-01 00:00:00.000000"}}\'\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    store = azure_store(azurite_oauth, credential="azure-cli", token_credential=None)
    await store.create("a", b"x")
    await store.close()


async def test_the_azure_cli_that_is_not_there_is_said(azurite_oauth, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    store = azure_store(azurite_oauth, credential="azure-cli", token_credential=None)
    with pytest.raises(StorageForbidden, match="CredentialUnavailableError"):
        await store.head("a")
    await store.close()


async def test_an_identity_that_may_only_create(azurite):
    with FaultProxy(azurite.port) as proxy:
        store = store_by_sas(azurite, "rcl", port=proxy.port)
        first = await store.create("a", b"x")
        with pytest.raises(AlreadyExists):
            await store.create("a", b"y")
        with pytest.raises(StorageForbidden):
            await store.replace("a", b"y", expected=first.version)
        with pytest.raises(StorageForbidden):
            await store.delete("a")
        assert [info async for info in store.list("")] == [first]
        proxy.when(LoseAnswer(), method="PUT", times=1)
        assert await store.create("b", b"x") == await store.head("b")
        await store.check()
        await store.close()


async def test_an_identity_that_may_only_read(azurite):
    writer = azure_store(azurite)
    info = await writer.create("a", b"x")
    reader = store_by_sas(azurite, "rl", prefix=writer._container.prefix)
    assert await reader.head("a") == info
    with pytest.raises(NotFound):
        await reader.head("b")
    with pytest.raises(StorageForbidden):
        await reader.create("b", b"x")
    with pytest.raises(StorageForbidden, match="may not create"):
        await reader.check()
    await writer.close()
    await reader.close()


async def test_containers_are_made_once_and_private(azurite):
    account = account_of(azurite)
    name = azurite.fresh_container()
    assert await account.create_container(name) is True
    assert await account.create_container(name) is False
    assert await account.container(name).get_container_access_policy() == {
        "public_access": None,
        "signed_identifiers": [],
    }
    for wrong in ("A", "a", "no_underscores"):
        with pytest.raises(Misconfigured):
            await account.create_container(wrong)
    await account.close()


async def test_the_last_store_closes_the_account_and_the_next_use_opens_it_anew(azurite_oauth):
    token = StaticToken()
    account = account_of(azurite_oauth, token_credential=token)
    first = account.store(shared_container(azurite_oauth), "x/", name="a")
    second = account.store(shared_container(azurite_oauth), "y/", name="b")
    await first.delete("a")
    await first.close()
    assert not token.closed
    await second.delete("a")
    await second.close()
    assert token.closed
    assert await second.delete("a") is False
    await account.close()
    await account.close()
    gc.collect()


def test_an_account_belongs_to_one_event_loop_until_it_is_closed(azurite):
    store = azure_store(azurite)
    account = account_of(azurite)
    store = account.store(shared_container(azurite), "x/", name="a")

    async def use() -> None:
        await store.delete("a")

    async def use_and_close() -> None:
        await store.delete("a")
        await account.close()

    anyio.run(use_and_close)
    anyio.run(use_and_close)

    async def in_two() -> None:
        await store.delete("a")
        with pytest.raises(Misconfigured, match="two event loops"):
            await anyio.to_thread.run_sync(anyio.run, use)
        await account.close()

    anyio.run(in_two)


async def test_a_store_that_dies_in_the_middle_of_an_upload(tmp_path):
    with running_azurite(tmp_path) as azurite:
        store = azure_store(azurite)
        await store.create("before", b"x")

        async def upload() -> None:
            async with store.begin_upload("a") as incoming:
                await incoming.write(b"x" * 9_000_000)
                await anyio.to_thread.run_sync(azurite.kill9)
                await incoming.write(b"x" * 9_000_000)
                await incoming.commit(size=18_000_000)

        with pytest.raises(StorageUnavailable):
            await upload()
        await anyio.to_thread.run_sync(azurite.start)
        account = account_of(azurite)
        # It may have forgotten the container, but it never tells of a part of the object.
        await account.create_container(store._container.name)
        await account.close()
        with pytest.raises(NotFound):
            await store.head("a")
        await store.close()


def test_options_of_the_emulator_are_complete(azurite, azurite_oauth):
    assert azure_options(azurite).credential == "connection-string"
    assert azure_options(azurite_oauth).token_credential is not None
