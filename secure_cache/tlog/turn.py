"""Which of many replicas sequences: a small object that they pass on by compare-and-swap.

A hint, never a safety argument. Two who both believe that the turn is theirs only do work twice:
the swap of the head decides. Without it every replica with something to log reads what all the
others wrote and all but one do so in vain.

No clock is compared with another's. A holder changes the object again and again (`keep`). Who
wants the turn and sees the same version for `expiry_seconds` of its own time takes it over.
"""

import contextlib
from collections.abc import Callable
from typing import Self

import anyio
import msgspec

from secure_cache.model.errors import (
    AlreadyExists,
    CorruptObject,
    NotFound,
    StorageUnavailable,
    VersionMismatch,
)
from secure_cache.storage import layout
from secure_cache.storage.ports import ObjectStore, StoredObject

EXPIRY_SECONDS = 5.0
"""A holder that says nothing for so long has lost its turn. Five times what lies between two of
its signs of life, so that one or two slow requests do not cost it the turn."""

_MAX_BYTES = 4096


class _Note(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who has the turn (nobody: empty), and a number that changes with each sign of life."""

    holder: str
    beat: int

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """What somebody else has scribbled counts as nobody's turn."""
        try:
            return msgspec.json.decode(data, type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return cls("", 0)


class StoreTurn:
    """The Turn port for replicas that share nothing but a store.

    Args:
        store: the log's `head` store.
        random_bytes: such as `os.urandom`; names this process.
        expiry_seconds: see `EXPIRY_SECONDS`.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        random_bytes: Callable[[int], bytes],
        expiry_seconds: float = EXPIRY_SECONDS,
    ) -> None:
        self._store = store
        self._name = random_bytes(16).hex()
        self._expiry = expiry_seconds
        self._beat = 0
        self._held = ""
        self._seen = ""
        self._seen_at = 0.0
        self._one_at_a_time = anyio.Lock()

    async def try_take(self) -> bool:
        """True when nobody has it, or whoever has it has given no sign of life for too long.

        When the object cannot be read or written for as long, the turn is ours: then the hint is
        broken, and the log must not stand still for it.

        Raises: StorageForbidden.
        """
        try:
            async with self._one_at_a_time:
                return await self._try_take()
        except (StorageUnavailable, CorruptObject):
            return self._is_stale("unknown")

    async def keep(self) -> bool:
        """Give a sign of life; False when somebody has taken over. Raises: StorageForbidden."""
        async with self._one_at_a_time:
            return await self._keep()

    async def give_back(self) -> None:
        """Does nothing when the turn is not ours. What cannot be given back expires."""
        async with self._one_at_a_time:
            held, self._held = self._held, ""
            if held:
                with contextlib.suppress(StorageUnavailable, VersionMismatch):
                    await self._write("", expected=held)

    async def _try_take(self) -> bool:
        try:
            found = await self._store.get(layout.TURN, max_bytes=_MAX_BYTES)
        except NotFound:
            return await self._make()
        holder = _Note.decode(found.data).holder
        if holder not in ("", self._name) and not self._is_stale(found.info.version):
            return False
        return await self._take(found)

    async def _keep(self) -> bool:
        if not self._held:
            return False
        try:
            self._held = await self._write(self._name, expected=self._held)
        except VersionMismatch:
            self._held = ""
            # Our own sign of life, of which the answer was lost, looks like somebody else's.
            return await self._try_take()
        except StorageUnavailable:
            return True
        return True

    async def _make(self) -> bool:
        try:
            made = await self._store.create(layout.TURN, self._note(self._name))
        except AlreadyExists:
            return False
        self._held = made.version
        return True

    async def _take(self, found: StoredObject) -> bool:
        try:
            self._held = await self._write(self._name, expected=found.info.version)
        except VersionMismatch:
            return False
        return True

    async def _write(self, holder: str, *, expected: str) -> str:
        written = await self._store.replace(layout.TURN, self._note(holder), expected=expected)
        return written.version

    def _note(self, holder: str) -> bytes:
        self._beat += 1
        return msgspec.json.encode(_Note(holder, self._beat))

    def _is_stale(self, version: str) -> bool:
        now = anyio.current_time()
        if version != self._seen:
            self._seen, self._seen_at = version, now
        return now - self._seen_at >= self._expiry
