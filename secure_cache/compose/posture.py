"""What the storage really grants and enforces, tried at the start and by `storage check`.

A start needs what ADR 17 lists and is refused without it. What is granted beyond that is told and
is no reason to stand still: whoever steals the server's identity may do it too.
"""

import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import anyio
import structlog

from secure_cache.compose.azure import NEEDS, Place, is_by_role
from secure_cache.compose.stores import Stores
from secure_cache.model.errors import (
    Misconfigured,
    NotFound,
    SecureCacheError,
    StorageForbidden,
    StorageUnavailable,
)
from secure_cache.settings import Storage
from secure_cache.storage.capabilities import StoreCapabilities
from secure_cache.storage.ports import ObjectStore

_log = structlog.get_logger(__name__)

OK = "ok"
WEAKER = "weaker than asked"

_UNASKED = "a-name-that-nothing-has"
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 5.0
_NO_CONTAINER = "ContainerNotFound"
_MOST_SKEW_SECONDS = 30.0
_NO_RIGHT = "see the roles in docs/operations.md, section 13"
_LACKS_A_ROLE = ("AuthorizationPermissionMismatch", "InsufficientAccountPermissions", _NO_RIGHT)


@runtime_checkable
class Probing(Protocol):
    """A store whose rights and policies are given from outside, and can be tried."""

    async def probe(self) -> StoreCapabilities: ...


@dataclass(frozen=True, slots=True)
class Posture:
    """The findings.

    Attributes:
        stores: of each store that can be tried; empty for folders and memory.
    """

    stores: Mapping[str, StoreCapabilities]

    @property
    def tiles_are_locked(self) -> bool:
        tiles = self.stores.get("tiles")
        return tiles is not None and tiles.immutable

    @property
    def word(self) -> str:
        """For strangers."""
        return WEAKER if self.weaknesses() else OK

    def weaknesses(self) -> tuple[str, ...]:
        """One line for each thing that the account allows and the server does not need."""
        found = []
        free = [
            name
            for name, granted in self.stores.items()
            if granted.can_delete and not NEEDS[name].delete
        ]
        if free:
            found.append(
                f"{', '.join(free)}: the server's identity may delete there, and never has to"
            )
        if self.stores and not self.tiles_are_locked:
            found.append(
                "tiles: no immutability policy (WORM) holds there: whoever takes over the account"
                " can change or drop the log"
            )
        skew = max((abs(item.clock_skew_seconds or 0) for item in self.stores.values()), default=0)
        if skew > _MOST_SKEW_SECONDS:
            found.append(f"clock: this machine and the storage differ by {skew:.0f} s")
        return tuple(found)

    def require_worm(self) -> None:
        """Raises: Misconfigured: the tiles can be replaced or deleted."""
        if not self.tiles_are_locked:
            raise Misconfigured(
                "storage.require_worm = true, but objects of the store tiles can be replaced or"
                " deleted: give it a container of its own (storage.containers.tiles) and lock an"
                " immutability policy on it"
            )


def is_role_missing(error: StorageForbidden) -> bool:
    """Whether the identity is known, and may not do something. Roles take minutes to arrive."""
    return any(sign in str(error) for sign in _LACKS_A_ROLE)


async def prove(stores: Stores) -> Posture:
    """Make what can be made, and prove that each store can do what it must.

    Raises:
        Misconfigured: a container or folder is missing or not usable.
        StorageForbidden: the identity is refused, or lacks a right.
        StorageUnavailable: it does not answer.
    """
    granted = {}
    for name, store in stores.distinct().items():
        with explained(name, stores.where.get(name)):
            if isinstance(store, Probing):
                granted[name] = await look(store)
                require(name, granted[name])
            else:
                await store.check()
    return Posture(granted)


@dataclass(frozen=True, slots=True)
class Examined:
    """What `storage check` found out.

    Attributes:
        posture: what is granted and enforced.
        places: where each store is.
        lacks: one line for each thing that a start would refuse.
        weaknesses: one line for each thing that a start would warn of.
    """

    posture: Posture
    places: Mapping[str, Place]
    lacks: tuple[str, ...]
    weaknesses: tuple[str, ...]


async def examine(stores: Stores, *, require_worm: bool) -> Examined:
    """As `prove`, but go on to the end whatever the identity may not do.

    Raises: Misconfigured, StorageForbidden, StorageUnavailable: nothing could be tried.
    """
    granted, lacks = {}, []
    for name, store in stores.distinct().items():
        with explained(name, stores.where.get(name)):
            granted[name] = await look(store)
        try:
            require(name, granted[name])
        except (Misconfigured, StorageForbidden) as error:
            lacks.append(str(error))
    posture = Posture(granted)
    if require_worm and not posture.tiles_are_locked:
        lacks.append("storage.require_worm = true, but tiles can be replaced or deleted")
    return Examined(posture, stores.where, tuple(lacks), posture.weaknesses())


async def look(store: ObjectStore) -> StoreCapabilities:
    """Raises: as `prove`; never for what the identity may not do, except to read."""
    # The plainest request first: its refusal says most clearly why.
    with suppress(NotFound):
        await store.head(_UNASKED)
    assert isinstance(store, Probing)  # noqa: S101 - for the type checker
    return await store.probe()


def require(name: str, granted: StoreCapabilities) -> None:
    """Raises: Misconfigured (conditions are not honoured), StorageForbidden (a right lacks)."""
    need = NEEDS[name]
    try:
        granted.require(store=name, must_replace=need.replace, must_delete=need.delete)
    except StorageForbidden as error:
        raise StorageForbidden(f"{error}: {_NO_RIGHT}") from error
    # What a policy refuses, the identity would have been allowed.
    if need.write and not (granted.can_replace or granted.overwrite_refused):
        raise StorageForbidden(f"{name}: the server may not write blocks, and must: {_NO_RIGHT}")


def role_wait_seconds(storage: Storage, environ: Mapping[str, str]) -> float:
    """How long a start waits for a missing right: roles arrive by themselves, keys do not."""
    if storage.kind != "azure" or not is_by_role(storage, environ):
        return 0.0
    return storage.role_wait_seconds


async def prove_patiently(
    stores: Stores,
    *,
    wait_seconds: float,
    tell: Callable[[str], None],
    pause: Callable[[float], Awaitable[None]] = anyio.sleep,
) -> Posture:
    """As `prove`, but wait for roles that may still be on their way.

    Args:
        stores: all of them.
        wait_seconds: for so long at most.
        tell: told once what is waited for.
        pause: sleeps.

    Raises: as `prove`.
    """
    waited, next_pause, told = 0.0, _FIRST_PAUSE_SECONDS, False
    while True:
        try:
            return await prove(stores)
        except StorageForbidden as error:
            if waited >= wait_seconds or not is_role_missing(error):
                raise
            if not told:
                tell(str(error))
            told = True
        await pause(next_pause)
        waited += next_pause
        next_pause = min(2 * next_pause, _LONGEST_PAUSE_SECONDS)


@contextmanager
def explained(name: str, where: Place | None) -> Iterator[None]:
    """Puts before an error which store it is about, and where that is."""
    try:
        yield
    except SecureCacheError as error:
        if where is None:
            raise
        text = f"store {name} ({where}): {error}"
        if _NO_CONTAINER in text:
            text += (
                f"; `az storage container create --name {where.container} --account-name"
                f" {where.account} --auth-mode login` makes it, for development"
                " `secure-cache storage create` does"
            )
        raise _explained(error, text) from error


def _explained(error: SecureCacheError, text: str) -> SecureCacheError:
    match error:
        case StorageForbidden():
            return StorageForbidden(text)
        case StorageUnavailable():
            return StorageUnavailable(text)
        case Misconfigured():
            return Misconfigured(text)
    return error


async def prove_at_start(stores: Stores, storage: Storage, *, tells: bool) -> Posture:
    """As `prove_patiently`, for a server. Every process needs its rights; one tells what it has
    found.

    Raises: as `prove`; Misconfigured: tiles are not locked, and have to be.
    """
    wait = role_wait_seconds(storage, os.environ)

    def tell_of_waiting(why: str) -> None:
        if tells:
            _log.warning("storage.role_missing", why=why, wait_seconds=storage.role_wait_seconds)

    posture = await prove_patiently(stores, wait_seconds=wait, tell=tell_of_waiting)
    if storage.require_worm:
        posture.require_worm()
    if posture.stores and tells:
        facts = {"tiles_locked": posture.tiles_are_locked, "weak": posture.weaknesses()}
        if posture.word == OK:
            _log.info("storage.capabilities", **facts)
        else:
            _log.warning("storage.capabilities", **facts)
    return posture
