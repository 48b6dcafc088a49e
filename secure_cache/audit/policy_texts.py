"""The texts of policies that were in force, where the server's journal keeps them."""

from typing import Protocol

from secure_cache.model.digest import Digest
from secure_cache.model.errors import CorruptObject
from secure_cache.storage import layout
from secure_cache.storage.ports import ObjectReader

MAX_TEXT_BYTES = 1024 * 1024


class PolicyTexts(Protocol):
    """Gives texts whose digest was verified."""

    async def text(self, number: int, sha256: str) -> bytes:
        """The policy that the log calls by this number and digest.

        Raises: NotFound (it is not kept), CorruptObject (what is kept is not that policy),
        StorageUnavailable, StorageForbidden.
        """
        ...


class StoredPolicyTexts:
    """In the `state` store, by number. Numbers and digests come from the log, and the store is
    believed in nothing."""

    def __init__(self, state: ObjectReader) -> None:
        self._state = state

    async def text(self, number: int, sha256: str) -> bytes:
        name = layout.policy_version(number)
        data = (await self._state.get(name, max_bytes=MAX_TEXT_BYTES)).data
        if str(Digest.of(data)) != sha256:
            raise CorruptObject(f"{name} is not the policy that the log says took effect")
        return data
