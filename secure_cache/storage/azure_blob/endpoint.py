"""Where the account is, and whether its secret may be used there."""

import base64
import binascii
import ipaddress
import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from secure_cache.model.errors import Misconfigured
from secure_cache.storage.azure_blob.options import AzureOptions, Credential

_ACCOUNT_NAME: Final = re.compile(r"[a-z0-9]{3,24}")
_SUFFIX: Final = "core.windows.net"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A checked account URL, with the secret of a connection string if one came with it.

    Attributes:
        url: without query and trailing slash.
        account_name: the name that an account key signs for; empty without a key.
        account_key, sas: at most one of them is not empty. Never printed.
    """

    url: str
    account_name: str = ""
    account_key: str = field(default="", repr=False)
    sas: str = field(default="", repr=False)

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""


def endpoint_of(options: AzureOptions) -> Endpoint:
    """The account that the options name.

    Raises:
        Misconfigured: no account or two, a malformed one, or a secret where it may not be used.
            The message never holds the secret.
    """
    if options.credential == Credential.CONNECTION_STRING:
        endpoint = _of_connection_string(options.connection_string or "")
    else:
        endpoint = Endpoint(_url_of(options.account_name, options.endpoint))
    _check(endpoint, options)
    return endpoint


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _url_of(account_name: str | None, url: str | None) -> str:
    if url is not None:
        return url.rstrip("/")
    if account_name is None:
        raise Misconfigured("the azure storage needs storage.accountName or storage.endpoint")
    if _ACCOUNT_NAME.fullmatch(account_name) is None:
        raise Misconfigured(
            f"storage.accountName {account_name[:40]!r} is not the name of a storage account:"
            " 3 to 24 small letters and digits"
        )
    return f"https://{account_name}.blob.{_SUFFIX}"


def _of_connection_string(text: str) -> Endpoint:
    """See https://learn.microsoft.com/azure/storage/common/storage-configure-connection-string ."""
    pairs = [part.partition("=") for part in text.strip().strip(";").split(";")]
    fields = {name.strip().lower(): value.strip() for name, _, value in pairs}
    if any(not equals for _, equals, _ in pairs) or len(fields) != len(pairs):
        raise Misconfigured("the connection string is not a list of different NAME=VALUE;")
    name = fields.get("accountname", "")
    url = fields.get("blobendpoint", "")
    if not url:
        if _ACCOUNT_NAME.fullmatch(name) is None:
            raise Misconfigured("the connection string has neither BlobEndpoint nor AccountName")
        protocol = fields.get("defaultendpointsprotocol", "https")
        url = f"{protocol}://{name}.blob.{fields.get('endpointsuffix', _SUFFIX)}"
    key, sas = fields.get("accountkey", ""), fields.get("sharedaccesssignature", "").lstrip("?")
    if bool(key) == bool(sas):
        raise Misconfigured(
            "the connection string needs one of AccountKey and SharedAccessSignature"
        )
    if key and not name:
        raise Misconfigured("the connection string has an AccountKey without AccountName")
    _check_key(key)
    return Endpoint(url.rstrip("/"), name, key, sas)


def _check_key(key: str) -> None:
    """The SDK would find out at the first request only."""
    try:
        base64.b64decode(key, validate=True)
    except binascii.Error:
        raise Misconfigured("the connection string's AccountKey is not base64") from None


def _check(endpoint: Endpoint, options: AzureOptions) -> None:
    _check_url(endpoint.url)
    local = is_loopback(endpoint.host)
    if endpoint.account_key and not local and not options.allow_account_key:
        raise Misconfigured(
            f"an account key for {endpoint.host} can delete and forge everything in the account:"
            " use an identity (storage.credential), or set storage.allow_account_key = true"
        )
    # An account key signs requests and is not sent; a token or a SAS would be readable by all.
    if not endpoint.url.startswith("https://") and (
        not (local or endpoint.account_key) or (options.credential != Credential.CONNECTION_STRING)
    ):
        raise Misconfigured(
            f"{endpoint.url}: tokens are sent over https only; set storage.endpoint to https://"
        )


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises on a port that is none
    except ValueError:
        raise Misconfigured("the endpoint of the storage is not a URL") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise Misconfigured("the endpoint of the storage is not an http or https URL")
    if parts.query or parts.fragment or parts.username is not None:
        # A SAS in the URL would be printed wherever the URL is.
        raise Misconfigured(
            f"the endpoint on {parts.hostname} has a query, fragment or user in it: a shared"
            " access signature belongs into a connection string"
        )
