"""The six stores in Azure Blob Storage: in which containers, as whom, with which needs.

The SDK is an extra and costs half a second: it is imported where a store of this kind is opened.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from secure_cache.model.errors import Misconfigured
from secure_cache.settings import Storage

if TYPE_CHECKING:
    from secure_cache.storage.azure_blob import AzureAccount, AzureStore, StorageCall

CONNECTION_STRING = "AZURE_STORAGE_CONNECTION_STRING"
_BY_CONNECTION_STRING = "connection-string"
_CHOICES = "managed-identity, workload-identity, service-principal or azure-cli"


@dataclass(frozen=True, slots=True)
class Need:
    """What the server does in a store beside reading and creating; see ADR 17.

    Attributes:
        write: stage blocks, for which the right to create does not suffice.
        replace: by compare-and-swap.
        delete: what is of no use any more.
    """

    write: bool = False
    replace: bool = False
    delete: bool = False


NEEDS: Mapping[str, Need] = {
    "artifacts": Need(write=True),
    "records": Need(replace=True),
    "tiles": Need(),
    "head": Need(replace=True),
    "pending": Need(delete=True),
    "state": Need(replace=True),
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a store is: a container, or a name prefix of one."""

    container: str
    prefix: str = ""
    host: str = ""
    account: str = ""

    def __str__(self) -> str:
        at = f" at {self.host}" if self.host else ""
        return f"{self.container}/{self.prefix}{at}"


def places_of(storage: Storage, *, host: str = "", account: str = "") -> dict[str, Place]:
    """Where each store is. The settings were checked: every store has a place of its own.

    Args:
        storage: the settings.
        host: where the account is, for messages.
        account: what it is called, for messages.
    """
    places = {}
    for name in NEEDS:
        own = getattr(storage.containers, name)
        prefix = "" if own else f"{name}/"
        places[name] = Place(own or storage.container or "", prefix, host, account)
    return places


async def make_containers(storage: Storage, *, environ: Mapping[str, str]) -> dict[str, bool]:
    """Make the containers that are missing, private; for each whether it was made now.

    Raises: Misconfigured, StorageForbidden, StorageUnavailable.
    """
    account = connect(storage, environ=environ)
    try:
        names = dict.fromkeys(place.container for place in places_of(storage).values())
        return {name: await account.create_container(name) for name in names}
    finally:
        await account.close()


def credential_of(storage: Storage, environ: Mapping[str, str]) -> str:
    """The identity that was chosen, never one that happens to be on the machine.

    Raises:
        Misconfigured: none was.
    """
    given = bool(environ.get(CONNECTION_STRING))
    chosen = storage.credential
    if chosen is None and not given:
        raise Misconfigured(
            f"storage.credential is missing: set it to {_CHOICES}, or set {CONNECTION_STRING}"
        )
    if chosen in (None, _BY_CONNECTION_STRING):
        if not given:
            raise Misconfigured(
                f"storage.credential = '{_BY_CONNECTION_STRING}' needs {CONNECTION_STRING}"
                " in the environment"
            )
        if storage.endpoint is not None:
            raise Misconfigured(
                f"{CONNECTION_STRING} says the endpoint itself: remove storage.endpoint, or choose"
                f" storage.credential: {_CHOICES}"
            )
        return _BY_CONNECTION_STRING
    return chosen


def is_by_role(storage: Storage, environ: Mapping[str, str]) -> bool:
    """Whether rights come from roles of an identity, and not with a key or signature."""
    return credential_of(storage, environ) != _BY_CONNECTION_STRING


def connect(
    storage: Storage,
    *,
    environ: Mapping[str, str],
    tell: Callable[["StorageCall"], None] = lambda _: None,
) -> "AzureAccount":
    """The account that the settings name. No I/O yet.

    Args:
        storage: checked settings of kind azure.
        environ: `os.environ` in the program.
        tell: told of each finished request.

    Raises:
        Misconfigured: the SDK is not installed, or the settings contradict each other.
    """
    credential = credential_of(storage, environ)
    try:
        from secure_cache.storage.azure_blob import (  # noqa: PLC0415 - an extra, see above
            AzureAccount,
            AzureOptions,
        )
    except ModuleNotFoundError as error:
        if (error.name or "secure_cache").startswith("secure_cache"):
            raise
        raise Misconfigured(
            f"storage.kind = 'azure' needs {error.name}, which is not installed:"
            " pip install 'secure-cache[azure]'"
        ) from None
    by_string = credential == _BY_CONNECTION_STRING
    options = AzureOptions(
        credential=credential,
        account_name=None if by_string else storage.account_name,
        endpoint=storage.endpoint,
        connection_string=environ[CONNECTION_STRING] if by_string else None,
        ca_file=storage.ca_file,
        allow_account_key=storage.allow_account_key,
        environment=environ,
    )
    account = AzureAccount.connect(options, tell=tell)
    _check_name(storage, account)
    return account


def open_azure(account: "AzureAccount", storage: Storage) -> dict[str, "AzureStore"]:
    """The six stores of an account. Closing the last one closes the account."""
    return {
        name: account.store(
            place.container,
            place.prefix,
            name=name,
            must_replace=NEEDS[name].replace,
            must_delete=NEEDS[name].delete,
        )
        for name, place in places_of(storage).items()
    }


def name_of(account: "AzureAccount", storage: Storage | None = None) -> str:
    """What the account is called, as far as anybody has said."""
    told = None if storage is None else storage.account_name
    return told or account.endpoint.account_name or account.endpoint.host.partition(".")[0]


def _check_name(storage: Storage, account: "AzureAccount") -> None:
    """The connection string and the settings must mean one account. An emulator has but one."""
    wanted, named = storage.account_name, name_of(account)
    local = account.endpoint.host in {"127.0.0.1", "::1", "localhost"}
    if wanted is not None and storage.endpoint is None and not local and named != wanted:
        raise Misconfigured(
            f"storage.accountName = {wanted!r}, but {CONNECTION_STRING} is for {named!r}:"
            " correct one of them"
        )
