"""The fake identity endpoints satisfy Microsoft's own clients, and Azurite their tokens."""

import time

import pytest
from azure.core.exceptions import ClientAuthenticationError
from azure.identity.aio import (
    ClientSecretCredential,
    ManagedIdentityCredential,
    WorkloadIdentityCredential,
)
from azure.storage.blob.aio import BlobServiceClient
from fakes.azure_identity_endpoint import CLIENT, TENANT, ManagedIdentity, TokenService
from world.azurite import API_VERSION

pytestmark = pytest.mark.anyio
SCOPE = "https://storage.azure.com/.default"


@pytest.fixture
def identity(monkeypatch):
    with ManagedIdentity() as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
def service(azurite_oauth):
    with TokenService(azurite_oauth.certificate) as running:
        yield running


def storage(azurite, credential):
    return BlobServiceClient(
        azurite.endpoint,
        credential=credential,
        api_version=API_VERSION,
        retry_total=0,
        connection_verify=str(azurite.ca_file),
    )


async def test_a_managed_identity_opens_azurite_with_one_token(identity, azurite_oauth):
    name = azurite_oauth.create_container()
    async with ManagedIdentityCredential() as credential, storage(azurite_oauth, credential) as at:
        for number in range(3):
            await at.get_blob_client(name, f"b{number}").upload_blob(b"x")
    assert len(identity.requests) == 1


async def test_a_token_lives_as_long_as_it_was_told(identity):
    identity.lifetime = 100
    async with ManagedIdentityCredential() as credential:
        token = await credential.get_token(SCOPE)
    assert 0 < token.expires_on - time.time() <= 100


async def test_an_expired_token_opens_nothing(identity, azurite_oauth):
    identity.lifetime = -120
    name = azurite_oauth.create_container()
    async with ManagedIdentityCredential() as credential, storage(azurite_oauth, credential) as at:
        with pytest.raises(ClientAuthenticationError):
            await at.get_blob_client(name, "b").upload_blob(b"x")


@pytest.mark.parametrize("status", [400, 403])
async def test_an_endpoint_that_refuses_gives_no_token(identity, status):
    identity.status = status
    async with ManagedIdentityCredential() as credential:
        with pytest.raises(ClientAuthenticationError):
            await credential.get_token(SCOPE)


async def test_another_hosts_header_gets_no_token(identity, monkeypatch):
    monkeypatch.setenv("IDENTITY_HEADER", "guessed")
    async with ManagedIdentityCredential() as credential:
        with pytest.raises(ClientAuthenticationError):
            await credential.get_token(SCOPE)
    assert (identity.requests, identity.refused > 0) == ([], True)


async def test_a_workload_identity_opens_azurite(service, azurite_oauth, tmp_path):
    name = azurite_oauth.create_container()
    file = tmp_path / "token"
    file.write_text(service.ASSERTION)
    credential = WorkloadIdentityCredential(
        tenant_id=TENANT,
        client_id=CLIENT,
        token_file_path=str(file),
        authority=service.url,
        connection_verify=str(azurite_oauth.ca_file),
    )
    async with credential, storage(azurite_oauth, credential) as at:
        await at.get_blob_client(name, "b").upload_blob(b"x")
    assert len(service.requests) == 1


async def test_a_client_secret_opens_azurite(service, azurite_oauth):
    name = azurite_oauth.create_container()
    credential = ClientSecretCredential(
        TENANT,
        CLIENT,
        service.SECRET,
        authority=service.url,
        connection_verify=str(azurite_oauth.ca_file),
    )
    async with credential, storage(azurite_oauth, credential) as at:
        await at.get_blob_client(name, "b").upload_blob(b"x")
    assert len(service.requests) == 1


async def test_a_wrong_client_secret_gets_no_token(service, azurite_oauth):
    credential = ClientSecretCredential(
        TENANT,
        CLIENT,
        "guessed",
        authority=service.url,
        connection_verify=str(azurite_oauth.ca_file),
    )
    async with credential:
        with pytest.raises(ClientAuthenticationError):
            await credential.get_token(SCOPE)
    assert service.requests == []
