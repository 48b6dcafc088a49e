"""What the server itself did, told to the transparency log: policies, keys, quarantines.

Policies and key rings are numbered in the `state` store; creating the next number decides which
of several processes tells the log. A crash between the two leaves an untold number; the next
process to look gives its creator a while and then tells it, so that every one is told at least
once, and once only where nobody crashed.
"""

import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import anyio
import structlog

from secure_cache.model.clock import Clock
from secure_cache.model.digest import Digest
from secure_cache.model.entry import Entry
from secure_cache.model.errors import (
    AlreadyExists,
    CorruptObject,
    NotFound,
    SecureCacheError,
    Unavailable,
)
from secure_cache.provenance.event import (
    EntryQuarantined,
    EntryRemoved,
    Event,
    Happening,
    KeysChanged,
    LogOpened,
    PolicyTookEffect,
)
from secure_cache.provenance.event_statement import MAX_REASON_CHARACTERS, sign_event
from secure_cache.provenance.keys import KeyRing, KeyStatus, PublicKey, Signer, ring_of
from secure_cache.storage import layout
from secure_cache.storage.ports import ObjectStore
from secure_cache.tlog.ports import Log

_log = structlog.get_logger(__name__)

_MAX_VERSION_BYTES = 1024 * 1024
_TOLD = ".told"
_RACES = 16
_STEP_SECONDS = 0.1
_STEPS = 50
"""So often is looked whether a version was told. Workers that start together would else each tell
what one of them has just numbered."""
_NUMBER = re.compile(r"[0-9]{12}")


@dataclass(frozen=True, slots=True)
class _Version:
    """One numbered version of something; number 0 and empty data before the first."""

    number: int
    data: bytes


class Journal:
    """Tells the log. One per process."""

    def __init__(
        self,
        *,
        log: Log,
        state: ObjectStore,
        signer: Callable[[], Signer],
        clock: Clock,
        server: str,
        pause: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self._log = log
        self._state = state
        self._signer = signer
        self._clock = clock
        self._server = server
        self._pause = pause
        # Names of versions that nobody else can be about to tell.
        self._ours: set[str] = set()

    async def log_in_force(self, *, origin: str, vkey: str) -> None:
        """Tell a new log its own name and key. Raises: as below."""

        def opened(_before: _Version, _after: _Version) -> Happening:
            return LogOpened(origin, vkey)

        await self._next(layout.LOG_PREFIX, layout.log_version, vkey.encode(), opened)

    async def policy_in_force(self, data: bytes) -> None:
        """Tell the log about a policy, unless it is the one told last.

        Raises: Unavailable: call again.
        """
        await self._next(
            layout.POLICY_PREFIX, layout.policy_version, data, self._policy_took_effect
        )

    async def keys_in_force(self, ring: KeyRing) -> None:
        """Tell the log about a key ring, unless it is the one told last. Raises: as above."""
        await self._next(layout.KEYS_PREFIX, layout.key_ring_version, ring.encode(), _keys_changed)

    async def quarantined(self, entry: Entry, why: str) -> None:
        await self._try(EntryQuarantined.of(entry, reason=_one_line(why)))

    async def replaced(self, old: Entry, new: Entry, *, line: str) -> None:
        """`line` is what hid the old one, and so let the new one take its place."""
        await self._try(EntryRemoved.of(old, line=_one_line(line), replaced_by=new.entry_id))

    @staticmethod
    def _policy_took_effect(before: _Version, after: _Version) -> Happening:
        return PolicyTookEffect(
            sha256=Digest.of(after.data),
            number=after.number,
            previous=Digest.of(before.data) if before.number else None,
        )

    async def _next(
        self,
        prefix: str,
        name: Callable[[int], str],
        data: bytes,
        happening: Callable[[_Version, _Version], Happening],
    ) -> None:
        """Append a version and tell it.

        1. the last version, told if a crash left it untold; whoever created it is given a while
        2. the same bytes as the last: nothing to do
        3. the next number created: of several processes one succeeds and goes on; for the others
           it is as if they came later, since the winner may have told something else
        4. the event logged; then the number marked as told
        """
        lost = False
        for _ in range(_RACES):
            before, last = await self._last_two(prefix)
            if lost and last.data == data:
                # Its winner is about to tell it.
                return
            if last.number and not await self._is_told(name(last.number)):
                await self._tell_version(name, before, last, happening)
            if last.number and last.data == data:
                return
            fresh = _Version(last.number + 1, data)
            self._ours.add(name(fresh.number))
            try:
                await self._state.create(name(fresh.number), data)
            except AlreadyExists:
                self._ours.discard(name(fresh.number))
                lost = True
                continue
            await self._tell_version(name, last, fresh, happening)
            return
        raise Unavailable(f"{prefix}: other processes were always quicker")

    async def _tell_version(
        self,
        name: Callable[[int], str],
        before: _Version,
        after: _Version,
        happening: Callable[[_Version, _Version], Happening],
    ) -> None:
        await self._tell(happening(before, after))
        with suppress(AlreadyExists):
            await self._state.create(name(after.number) + _TOLD, b"")
        self._ours.discard(name(after.number))

    async def _is_told(self, version: str) -> bool:
        """Whether it is told, by the end of the time that its creator is given."""
        for _ in range(_STEPS):
            if await self._exists(version + _TOLD):
                return True
            if version in self._ours:
                return False
            await self._pause(_STEP_SECONDS)
        return await self._exists(version + _TOLD)

    async def _last_two(self, prefix: str) -> tuple[_Version, _Version]:
        # What is not a number was put there by somebody else, and is nobody's version.
        numbers = [
            number
            async for info in self._state.list(prefix)
            if _NUMBER.fullmatch(number := info.name.removeprefix(prefix)) is not None
        ]
        versions = [_Version(0, b""), _Version(0, b"")]
        for number in numbers[-2:]:
            stored = await self._state.get(prefix + number, max_bytes=_MAX_VERSION_BYTES)
            versions.append(_Version(int(number), stored.data))
        return versions[-2], versions[-1]

    async def _exists(self, name: str) -> bool:
        try:
            await self._state.head(name)
        except NotFound:
            return False
        return True

    async def _tell(self, what: Happening) -> None:
        event = Event(what, int(self._clock()), self._server)
        await self._log.append(await sign_event(event, self._signer()))

    async def _try(self, what: Happening) -> None:
        """Tell what has already happened; a log that is full must not undo it."""
        try:
            await self._tell(what)
        except SecureCacheError as error:
            _log.exception("journal.untold", what=type(what).__name__, why=error.code)


def _keys_changed(before: _Version, after: _Version) -> Happening:
    old = _decode_ring(before.data) if before.number else ring_of(())
    new = _decode_ring(after.data)
    was = {key.keyid: key.status for key in old.keys}
    changed = [key for key in new.keys if was.get(key.keyid) is not key.status]
    return KeysChanged(
        ring=Digest.of(after.data),
        added=tuple(sorted(key.keyid for key in new.keys if key.keyid not in was)),
        retired=_with_status(changed, KeyStatus.RETIRED),
        revoked=_with_status(changed, KeyStatus.REVOKED),
    )


def _decode_ring(data: bytes) -> KeyRing:
    try:
        return KeyRing.decode(data)
    except ValueError as error:
        raise CorruptObject(f"a stored key ring is not well formed: {error}") from error


def _with_status(keys: list[PublicKey], status: KeyStatus) -> tuple[str, ...]:
    return tuple(sorted(key.keyid for key in keys if key.status is status))


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)[:MAX_REASON_CHARACTERS]
