"""Stores in a real Azurite, each under a name prefix of its own, and what tests do to them."""

import secrets
from collections.abc import Callable
from functools import cache
from typing import Any, Self

from azure.core.credentials import AccessToken
from world.azurite import Azurite, unsigned_token

from secure_cache.storage.azure_blob import (
    AzureAccount,
    AzureOptions,
    AzureStore,
    Patience,
    StorageCall,
    Tell,
)
from secure_cache.storage.azure_blob.options import Effort

QUICK = Patience(
    small_read=Effort(5.0, 1.0, 4),
    write=Effort(10.0, 2.0, 5),
    piece=Effort(10.0, 2.0, 6),
    page=Effort(5.0, 2.0, 4),
    peek=Effort(2.0, 1.0, 3),
    base_seconds=0.001,
    cap_seconds=0.01,
    retry_after_cap_seconds=0.2,
)
"""Pauses that a test can bear."""


class StaticToken:
    """A token credential that always gives the same; Azurite looks at its claims alone."""

    def __init__(self, token: str | None = None, *, lifetime: float = 3600) -> None:
        self._token = token or unsigned_token(lifetime=lifetime)
        self.asked = 0
        self.closed = False

    async def get_token(self, *_scopes: str, **_: Any) -> AccessToken:
        self.asked += 1
        return AccessToken(self._token, 4_000_000_000)

    async def close(self) -> None:
        self.closed = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


@cache
def shared_container(azurite: Azurite) -> str:
    return azurite.create_container()


def azure_options(azurite: Azurite, *, port: int | None = None, **more: Any) -> AzureOptions:
    """The account of this Azurite, perhaps behind a proxy's port: with a bearer token when it is
    one for OAuth, else with its key."""
    port = azurite.port if port is None else port
    if azurite.oauth:
        chosen: dict[str, Any] = {
            "credential": "managed-identity",
            "endpoint": azurite.endpoint_at(port),
            "ca_file": azurite.ca_file,
            "token_credential": StaticToken(),
        }
    else:
        chosen = {
            "credential": "connection-string",
            "connection_string": azurite.connection_string_at(port),
        }
    return AzureOptions(**{**chosen, **more})


def fresh_prefix() -> str:
    return f"t{secrets.token_hex(8)}/"


def azure_store(
    azurite: Azurite, *, port: int | None = None, prefix: str | None = None, **more: Any
) -> AzureStore:
    """A store, by default a fresh one, whose closing closes its account."""
    return account_of(azurite, port=port, **more).store(
        shared_container(azurite), prefix or fresh_prefix(), name="records"
    )


def account_of(
    azurite: Azurite,
    *,
    port: int | None = None,
    tell: Tell | None = None,
    timing: Any = None,
    **more: Any,
) -> AzureAccount:
    told: Callable[[StorageCall], None] = tell or (lambda _: None)
    options = azure_options(azurite, port=port, **{"patience": QUICK, **more})
    return AzureAccount.connect(options, tell=told, timing=timing)
