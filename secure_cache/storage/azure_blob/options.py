"""What the operator chose, and every figure of the adapter in one place."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from azure.core.credentials_async import AsyncTokenCredential

API_VERSION: Final = "2026-06-06"
"""Pinned, the same in production and in tests: the SDK's own default is newer than Azurite."""

MIB: Final = 1 << 20


class Credential(StrEnum):
    """How the server proves who it is. Always chosen, never guessed: a credential that tries
    one source after another picks up whatever identity happens to be on the machine."""

    MANAGED_IDENTITY = "managed-identity"
    WORKLOAD_IDENTITY = "workload-identity"
    SERVICE_PRINCIPAL = "service-principal"
    AZURE_CLI = "azure-cli"
    CONNECTION_STRING = "connection-string"


@dataclass(frozen=True, slots=True)
class Effort:
    """How long one operation is tried.

    Attributes:
        seconds: for the whole operation, with all its attempts and the pauses between them.
        attempt_seconds: for one attempt, so that one silent connection does not use it all.
        attempts: at most.
    """

    seconds: float
    attempt_seconds: float
    attempts: int


@dataclass(frozen=True, slots=True)
class Patience:
    """How long each kind of operation is tried, and how the pauses grow.

    Attributes:
        small_read: in the way of a request: a stalled storage must become a miss, soon.
        write: a whole small object, a block, a commit.
        piece: a range in the middle of a transfer. Longest: to Nx a transfer that breaks off is
            a failed build, where a miss would only have been slower.
        page: of a listing.
        peek: looking whether a write whose answer was lost took effect.
        base_seconds, cap_seconds: the pause after attempt n is random between nothing and
            base * 2**n, at most cap.
        retry_after_cap_seconds: the longest `Retry-After` that is obeyed.
    """

    small_read: Effort = Effort(10.0, 4.0, 4)
    write: Effort = Effort(30.0, 15.0, 5)
    piece: Effort = Effort(60.0, 20.0, 8)
    page: Effort = Effort(30.0, 15.0, 5)
    peek: Effort = Effort(5.0, 3.0, 3)
    base_seconds: float = 0.05
    cap_seconds: float = 2.0
    retry_after_cap_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class AzureOptions:
    """Which account, as whom.

    Attributes:
        credential: see `Credential`.
        account_name: stands for `https://NAME.blob.core.windows.net`, unless `endpoint` is given.
        endpoint: the URL of the account, for private clouds and Azurite.
        connection_string: for the credential of that name; says the endpoint itself.
        ca_file: certificates (PEM) to trust instead of the system's.
        allow_account_key: accept an account key for a host that is not this machine.
        environment: where the identities find their settings (`AZURE_CLIENT_ID` and so on).
        token_credential: used as it is instead of what `credential` names; for tests.
        connections: open to the storage at once.
        upload_bytes: bodies on their way in, of all uploads of this process together.
        read_ahead_bytes: bodies on their way out, likewise.
        patience: see there.
    """

    credential: str
    account_name: str | None = None
    endpoint: str | None = None
    connection_string: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    allow_account_key: bool = False
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    token_credential: AsyncTokenCredential | None = None
    connections: int = 64
    upload_bytes: int = 96 * MIB
    read_ahead_bytes: int = 64 * MIB
    patience: Patience = Patience()
