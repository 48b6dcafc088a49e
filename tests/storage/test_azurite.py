"""The Azurite of the tests is the real thing, and keeps what the tests suppose that it keeps."""

import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError
from azure.storage.blob import BlobServiceClient
from world.azurite import API_VERSION, Azurite, unsigned_token


class Token:
    def __init__(self, text):
        self.text = text

    def get_token(self, *_, **__):
        return AccessToken(self.text, 2**31)


def by_key(azurite):
    return BlobServiceClient.from_connection_string(
        azurite.connection_string, api_version=API_VERSION, retry_total=0
    )


def by_token(azurite, text):
    return BlobServiceClient(
        azurite.endpoint,
        credential=Token(text),
        api_version=API_VERSION,
        retry_total=0,
        connection_verify=str(azurite.ca_file),
    )


def test_a_stop_keeps_what_was_stored(tmp_path):
    azurite = Azurite(tmp_path / "azurite").start()
    try:
        name = azurite.create_container()
        with by_key(azurite) as client:
            client.get_blob_client(name, "a").upload_blob(b"kept")
            azurite.restart()
            assert client.get_blob_client(name, "a").download_blob().readall() == b"kept"
    finally:
        azurite.remove()


def test_two_tests_never_share_a_container(azurite):
    assert azurite.fresh_container() != azurite.fresh_container()


def test_over_tls_a_bearer_token_opens_it(azurite_oauth):
    name = azurite_oauth.create_container()
    with by_token(azurite_oauth, unsigned_token()) as client:
        client.get_blob_client(name, "a").upload_blob(b"by token")
        assert client.get_blob_client(name, "a").download_blob().readall() == b"by token"


@pytest.mark.parametrize(
    "text",
    [
        unsigned_token(lifetime=-120),
        unsigned_token(aud="https://vault.azure.net"),
        unsigned_token(iss="https://accounts.example/"),
    ],
    ids=["expired", "audience", "issuer"],
)
def test_a_bearer_token_of_another_kind_opens_nothing(azurite_oauth, text):
    with by_token(azurite_oauth, text) as client, pytest.raises(ClientAuthenticationError):
        client.create_container(azurite_oauth.fresh_container())
