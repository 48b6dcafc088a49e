"""Tries out what the storage grants and enforces, on two small objects with fixed names.

Their names are outside the grammar of the port: no caller can ask for them, no listing shows
them, and in a container whose objects can never be deleted they are made once. Several processes
may probe at once: one object is never deleted by us, of the other nobody minds whether it is.
"""

from collections.abc import Awaitable, Callable
from email.utils import parsedate_to_datetime
from typing import Any, Final

from azure.core import MatchConditions

from secure_cache.model.errors import Misconfigured
from secure_cache.storage.azure_blob.container import Container
from secure_cache.storage.azure_blob.errors import AzureFault, Kind
from secure_cache.storage.azure_blob.retry import OK
from secure_cache.storage.capabilities import StoreCapabilities

_FOLDER: Final = ".probe"
_KEPT: Final = ".probe/kept"
_DELETED: Final = ".probe/deleted"
_BODY: Final = b"secure-cache tries out here what this storage enforces\n"
_OTHER_BODY: Final = b"this should have been refused\n"
_STALE: Final = '"0x8D0000000000000"'
_REFUSED: Final = frozenset({Kind.FORBIDDEN, Kind.IMMUTABLE})


class Prober:
    def __init__(self, container: Container) -> None:
        self._container = container

    async def probe(self) -> StoreCapabilities:
        """See `AzureStore.probe`."""
        first = await self._put(_KEPT, _BODY, match_condition=MatchConditions.IfMissing)
        if first in _REFUSED and not await self._exists(_KEPT):
            # Not even the first object may be made: there is nothing to try the rest on.
            return StoreCapabilities(can_create=False)
        second = await self._put(_KEPT, _OTHER_BODY, match_condition=MatchConditions.IfMissing)
        if await self._exists(_FOLDER):
            raise Misconfigured(
                f"{self._container.name}: the account has a hierarchical namespace, where folders"
                " are listed as objects: use one without"
            )
        version, skew = await self._read_back(conditional=second != OK)
        stale = await self._put(_KEPT, _BODY, **_if_match(_STALE))
        fresh = await self._put(_KEPT, _BODY, **_if_match(version))
        deleted = await self._delete()
        return StoreCapabilities(
            can_create=True if {first, second} & {OK, Kind.EXISTS} else None,
            create_is_conditional=second != OK,
            # Another process may have replaced it between our look and our try: also a yes.
            can_replace=fresh in {OK, Kind.MISMATCH},
            replace_is_conditional=None if stale in _REFUSED else stale != OK,
            can_delete=deleted in {OK, Kind.MISSING},
            overwrite_refused=fresh == Kind.IMMUTABLE,
            delete_refused=deleted == Kind.IMMUTABLE,
            clock_skew_seconds=skew,
        )

    async def _put(self, name: str, body: bytes, **condition: Any) -> str:
        blob = self._container.blob_of_ours(name)
        return await self._try(
            lambda: blob.upload_blob(body, length=len(body), overwrite=True, **condition),
            Kind.EXISTS,
            Kind.MISMATCH,
        )

    async def _delete(self) -> str:
        await self._put(_DELETED, _BODY, match_condition=MatchConditions.IfMissing)
        blob = self._container.blob_of_ours(_DELETED)
        return await self._try(lambda: blob.delete_blob(delete_snapshots="include"), Kind.MISSING)

    async def _exists(self, name: str) -> bool:
        """Raises: StorageForbidden (not even this may be asked: a wrong key, for one)."""
        blob = self._container.blob_of_ours(name)
        calls = self._container.calls
        try:
            await calls.run("probe", calls.patience.small_read, blob.get_blob_properties)
        except AzureFault as fault:
            if fault.kind is Kind.MISSING:
                return False
            raise fault.public("probe", self._container.name) from fault
        return True

    async def _try(self, request: Callable[[], Awaitable[Any]], *expected: Kind) -> str:
        """What became of it: OK or the kind of refusal. Anything else is raised."""
        calls = self._container.calls
        try:
            await calls.run("probe", calls.patience.write, request)
        except AzureFault as fault:
            if fault.kind in _REFUSED or fault.kind in expected:
                return fault.kind
            raise fault.public("probe", self._container.name, write=True) from fault
        return OK

    async def _read_back(self, *, conditional: bool) -> tuple[str, float | None]:
        """The version and the storage's clock minus ours.

        Raises: Misconfigured (other bytes are there), StorageForbidden, StorageUnavailable.
        """
        blob = self._container.blob_of_ours(_KEPT)
        timing = self._container.calls.timing
        dates: list[str] = []

        async def request() -> tuple[str, bytes, float]:
            asked = timing.clock()
            answer = await blob.download_blob(
                offset=0,
                length=len(_BODY) + 1,
                decompress=False,
                raw_response_hook=lambda got: dates.append(got.http_response.headers.get("Date")),
            )
            data = await answer.readall()
            return answer.properties.etag, data, (asked + timing.clock()) / 2

        effort = self._container.calls.patience.small_read
        version, data, here = await self._container.ask("probe", _KEPT, effort, request)
        if data != _BODY and conditional:
            raise Misconfigured(f"{self._container.name}: {_KEPT} reads back with other bytes")
        return version, _skew(dates[-1] if dates else None, here)


def _if_match(version: str) -> dict[str, Any]:
    return {"etag": version, "match_condition": MatchConditions.IfNotModified}


def _skew(date: str | None, here: float) -> float | None:
    try:
        # A Date is cut to whole seconds: on average half a second early.
        return round(parsedate_to_datetime(date or "").timestamp() + 0.5 - here, 1)
    except ValueError:
        return None
