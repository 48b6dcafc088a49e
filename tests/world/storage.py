"""Where a real server keeps things in a test: a folder, or a real Azurite reached in two ways."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from fakes.azure_identity_endpoint import ManagedIdentity
from world.azurite import Azurite
from world.stored import InContainer, Stored

CONNECTION_STRING = "AZURE_STORAGE_CONNECTION_STRING"


@dataclass(frozen=True)
class Place:
    """What `init` is told, what is in the environment of every command, and the things there;
    without them they are in the installation's folder."""

    options: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    stored: Stored | None = None


class Storage(Protocol):
    """Gives each installation a place of its own."""

    def place(self) -> Place: ...


class InAFolder:
    """The embedded store, in the installation's own folder."""

    def place(self) -> Place:
        return Place()


class OnAzurite:
    """Over plain HTTP, by the account's key.

    Args:
        azurite: runs.
        port: of a proxy in front of it; by default its own.
    """

    def __init__(self, azurite: Azurite, *, port: int | None = None):
        self._azurite = azurite
        self._port = azurite.port if port is None else port

    def place(self) -> Place:
        container = self._azurite.create_container()
        return Place(
            ("--storage", "azure", "--container", container),
            {CONNECTION_STRING: self._azurite.connection_string_at(self._port)},
            InContainer(self._azurite, container),
        )


class OnAzuriteByToken:
    """Over TLS, as a managed identity whose tokens come from `identity`."""

    def __init__(self, azurite: Azurite, identity: ManagedIdentity):
        assert azurite.oauth
        self._azurite = azurite
        self._identity = identity

    def place(self) -> Place:
        container = self._azurite.create_container()
        return Place(
            (
                *("--storage", "azure", "--container", container),
                *("--credential", "managed-identity", "--endpoint", self._azurite.endpoint),
            ),
            {
                "SECURE_CACHE_STORAGE__CA_FILE": str(self._azurite.ca_file),
                **self._identity.environment,
            },
            InContainer(self._azurite, container),
        )


@contextmanager
def by_token(azurite: Azurite) -> Iterator[OnAzuriteByToken]:
    with ManagedIdentity() as identity:
        yield OnAzuriteByToken(azurite, identity)
