"""One container, or one name prefix of it, with the loop that asks for its blobs."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar

from azure.storage.blob import BlobProperties
from azure.storage.blob.aio import BlobClient, ContainerClient

from secure_cache.storage.azure_blob.errors import AzureFault
from secure_cache.storage.azure_blob.options import Effort
from secure_cache.storage.azure_blob.retry import Calls
from secure_cache.storage.ports import ObjectInfo, check_name

_T = TypeVar("_T")

NONCE_FIELD: Final = "w"
"""The metadata field by which a writer knows its own work again. Never leaves this package."""

_ETAG: Final = re.compile(r'"[!#-~]{1,100}"')


@dataclass(frozen=True, slots=True)
class Container:
    """Where the objects of one store are.

    Attributes:
        name: of the container.
        prefix: before each object's name; empty or ending in a slash.
        client: gives the SDK's client of the running event loop.
        calls: makes requests.
    """

    name: str
    prefix: str
    client: Callable[[], ContainerClient]
    calls: Calls

    def blob(self, name: str) -> BlobClient:
        """Raises: Misconfigured (an illegal name)."""
        return self.blob_of_ours(check_name(name))

    def blob_of_ours(self, name: str) -> BlobClient:
        """For names outside the grammar of the port, which no caller can ask for."""
        return self.client().get_blob_client(self.prefix + name)

    async def ask(
        self,
        operation: str,
        name: str,
        effort: Effort,
        request: Callable[[], Awaitable[_T]],
        *,
        write: bool = False,
    ) -> _T:
        """Raises: an error of our tree."""
        try:
            return await self.calls.run(operation, effort, request)
        except AzureFault as fault:
            raise fault.public(operation, name, write=write) from fault


def is_version(text: str) -> bool:
    """Whether it can be one of ours. `*` is none: as a condition it would match everything."""
    return _ETAG.fullmatch(text) is not None


def info_of(name: str, properties: BlobProperties, size: int | None = None) -> ObjectInfo:
    return ObjectInfo(
        name,
        properties.size if size is None else size,
        version_of(properties.etag),
        _seconds(properties.last_modified),
    )


def info_of_write(name: str, size: int, answer: dict[str, Any]) -> ObjectInfo:
    return ObjectInfo(name, size, version_of(answer["etag"]), _seconds(answer["last_modified"]))


def version_of(etag: str | None) -> str:
    """Listings give ETags without quotes, everything else gives them with."""
    return f'"{(etag or "").strip(chr(34))}"'


def total_size(content_range: str | None) -> int:
    """Of `bytes 0-9/100`, the 100 (RFC 9110, 14.4).

    Raises:
        ValueError: it is not of that form.
    """
    return int((content_range or "").rpartition("/")[2])


def _seconds(moment: datetime | None) -> float:
    return 0.0 if moment is None else moment.timestamp()
