"""The ObjectStore in a container of Azure Blob Storage.

Semantics of the service: https://learn.microsoft.com/rest/api/storageservices/blob-service-rest-api
An object's version is its ETag. The storage's word is not a proof: no read names a stable
identity, and whoever serves bytes verifies them.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from azure.core import MatchConditions
from azure.storage.blob import BlobProperties

from secure_cache.model.errors import CorruptObject, VersionMismatch
from secure_cache.storage.azure_blob.budget import ByteBudget
from secure_cache.storage.azure_blob.container import (
    Container,
    info_of,
    is_version,
    total_size,
)
from secure_cache.storage.azure_blob.errors import AzureFault, Kind
from secure_cache.storage.azure_blob.listing import list_objects
from secure_cache.storage.azure_blob.probing import Prober
from secure_cache.storage.azure_blob.reading import AzureReading
from secure_cache.storage.azure_blob.upload import AzureUpload
from secure_cache.storage.azure_blob.writes import peek, put_if_absent, put_if_unchanged
from secure_cache.storage.capabilities import StoreCapabilities
from secure_cache.storage.ports import ObjectInfo, StoredObject

Released = Callable[["AzureStore"], Awaitable[None]]


class AzureStore:
    """An ObjectStore. Made by `AzureAccount.store`."""

    def __init__(
        self,
        container: Container,
        *,
        uploads: ByteBudget,
        read_ahead: ByteBudget,
        must_replace: bool,
        must_delete: bool,
        released: Released,
    ) -> None:
        """See `AzureAccount.store`."""
        self._container = container
        self._uploads = uploads
        self._read_ahead = read_ahead
        self._must_replace = must_replace
        self._must_delete = must_delete
        self._released = released

    async def head(self, name: str) -> ObjectInfo:
        blob = self._container.blob(name)
        effort = self._container.calls.patience.small_read
        properties = await self._container.ask("head", name, effort, blob.get_blob_properties)
        return info_of(name, properties)

    async def get(self, name: str, *, max_bytes: int) -> StoredObject:
        try:
            return await self._fetch(name, max_bytes, {})
        except AzureFault as fault:
            raise fault.public("get", name) from fault

    async def get_if_changed(
        self, name: str, *, version: str, max_bytes: int
    ) -> StoredObject | None:
        unless: dict[str, Any] = {}
        if is_version(version):
            unless = {"etag": version, "match_condition": MatchConditions.IfModified}
        try:
            return await self._fetch(name, max_bytes, unless)
        except AzureFault as fault:
            if fault.kind is Kind.UNCHANGED:
                return None
            raise fault.public("get_if_changed", name) from fault

    def open(self, name: str) -> AzureReading:
        return AzureReading(self._container, name, budget=self._read_ahead)

    def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        return list_objects(self._container, prefix, start_after)

    async def create(self, name: str, data: bytes) -> ObjectInfo:
        return await put_if_absent(self._container, name, self._container.blob(name), data)

    def begin_upload(self, name: str) -> AzureUpload:
        return AzureUpload(self._container, name, budget=self._uploads)

    async def replace(self, name: str, data: bytes, *, expected: str) -> ObjectInfo:
        blob = self._container.blob(name)
        if not is_version(expected):
            raise VersionMismatch(f"replace {name}: no object has the version {expected[:80]!r}")
        return await put_if_unchanged(self._container, name, blob, data, expected=expected)

    async def delete(self, name: str, *, expected: str | None = None) -> bool:
        """False also when the answer to our own first attempt was lost."""
        blob = self._container.blob(name)
        conditions: dict[str, Any] = {}
        if expected is not None:
            if not is_version(expected):
                raise VersionMismatch(f"delete {name}: no object has this version")
            conditions = {"etag": expected, "match_condition": MatchConditions.IfNotModified}

        async def request() -> None:
            await blob.delete_blob(delete_snapshots="include", **conditions)

        calls = self._container.calls
        try:
            await calls.run("delete", calls.patience.write, request)
        except AzureFault as fault:
            if fault.kind is Kind.MISSING:
                return False
            # A condition on what is absent is answered like one that another version fails.
            if fault.kind is Kind.MISMATCH and (await peek(self._container, name, blob)).missing:
                return False
            raise fault.public("delete", name, write=True) from fault
        return True

    async def probe(self) -> StoreCapabilities:
        """Try out what the storage grants this identity here, and what it enforces.

        Leaves two small objects behind, under names that no listing shows.

        Raises: Misconfigured, StorageForbidden, StorageUnavailable.
        """
        return await Prober(self._container).probe()

    async def check(self) -> None:
        """Prove that creating, reading and what else was demanded work, with the conditions
        that every promise of the cache rests on.

        Raises: Misconfigured, StorageForbidden, StorageUnavailable.
        """
        found = await self.probe()
        found.require(
            store=self._container.calls.store,
            must_replace=self._must_replace,
            must_delete=self._must_delete,
        )

    async def close(self) -> None:
        await self._released(self)

    async def _fetch(self, name: str, max_bytes: int, unless: dict[str, Any]) -> StoredObject:
        """In one ranged GET. Raises: AzureFault, CorruptObject."""
        blob = self._container.blob(name)
        calls = self._container.calls

        async def request() -> tuple[BlobProperties, bytes]:
            answer = await blob.download_blob(
                offset=0, length=max_bytes + 1, decompress=False, **unless
            )
            return answer.properties, await answer.readall()

        try:
            properties, data = await calls.run("get", calls.patience.small_read, request)
        except AzureFault as fault:
            if fault.kind is not Kind.RANGE:
                raise
            return await self._empty(name, unless)
        size = total_size(properties.content_range)
        if size > max_bytes:
            raise CorruptObject(f"{name} has {size} bytes, more than {max_bytes}")
        if len(data) != size:
            raise CorruptObject(f"{name}: {len(data)} of {size} bytes could be read")
        return StoredObject(info_of(name, properties, size), data)

    async def _empty(self, name: str, unless: dict[str, Any]) -> StoredObject:
        """An empty object has no range that could be asked for."""
        blob = self._container.blob(name)
        calls = self._container.calls

        async def request() -> BlobProperties:
            return await blob.get_blob_properties(**unless)

        properties = await calls.run("head", calls.patience.small_read, request)
        if properties.size:
            raise AzureFault(Kind.UNAVAILABLE, "the object was replaced while it was read")
        return StoredObject(info_of(name, properties), b"")
