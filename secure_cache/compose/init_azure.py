"""`secure-cache init --storage azure`: settings, policy and keys in a folder, the log in Azure.

    1  connect; prove the rights; nothing of another installation is in the stores    (nothing)
    2  settings, policy and keys, in a folder beside DIR              (a folder that nothing names)
    3  rename, fsync: the keys are durable           (DIR without a log: the same command goes on)
    4  the empty head of the log, in Azure                                            (the same)
    5  its signed checkpoint: a server can start                             (it is complete)

In brackets: what a crash after the step leaves. The keys come first, since a log whose key is lost
could never be written again. A store that holds anything is another installation's, and refused.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import msgspec

from secure_cache.compose.azure import make_containers
from secure_cache.compose.init import (
    KEYS,
    SETTINGS,
    Installation,
    begin_log,
    names_for,
    taken_error,
    whole_or_nothing,
    write_policy_and_keys,
    write_settings,
)
from secure_cache.compose.posture import prove
from secure_cache.compose.stores import Stores, open_stores, opened
from secure_cache.core.keystore import load_keystore
from secure_cache.model.clock import Clock
from secure_cache.model.errors import (
    AlreadyExists,
    LogInconsistent,
    Misconfigured,
    NotFound,
    StorageUnavailable,
)
from secure_cache.settings import Settings, Storage, load_settings
from secure_cache.storage import layout
from secure_cache.storage.ports import ObjectStore
from secure_cache.tlog.create import finish_log
from secure_cache.tlog.note import MAX_NOTE_BYTES, NoteSigner


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureInit:
    """What `init` is asked for.

    Attributes:
        values: settings by dotted name, such as {"storage.container": "nx-cache"}.
        create_containers: make those that are missing; for development.
        url: as in `init.initialise`.
        environ: `os.environ` in the program; overrides settings, and has the credential.
    """

    values: Mapping[str, str]
    create_containers: bool
    url: str | None
    environ: Mapping[str, str]


def initialise_azure(
    directory: Path, asked: AzureInit, *, clock: Clock, random_bytes: Callable[[int], bytes]
) -> Installation:
    """Make `directory` and the log, or go on where an earlier call was cut; see the module.

    Raises:
        Misconfigured: something is there, a container is missing, or the settings do not suffice.
        StorageForbidden, StorageUnavailable: says what to do.
    """
    if (directory / SETTINGS).is_file():
        return _go_on(directory, asked, clock, random_bytes)
    names = names_for(asked.url, random_bytes)
    with whole_or_nothing(directory.absolute()) as draft:
        write_settings(draft, asked.values)
        settings = _load(draft, asked.environ, shown=directory)
        if asked.create_containers:
            anyio.run(_make_containers, settings.storage, asked.environ)
        anyio.run(_require_unused, settings.storage, asked.environ)
        keystore = write_policy_and_keys(draft, names, clock)
    made = Installation(directory, names.audience, names.origin, str(keystore.log.verifier))
    begin = _Begin(directory, settings.storage, asked.environ, clock, random_bytes)
    anyio.run(begin.run, keystore.log)
    return made


def _go_on(
    directory: Path, asked: AzureInit, clock: Clock, random_bytes: Callable[[int], bytes]
) -> Installation:
    """DIR is there: made by the same command it may be the one that was cut before its log.

    Raises:
        Misconfigured: it is not, or it is complete.
    """
    written = msgspec.to_builtins(_load(directory, {}, shown=directory).storage, enc_hook=str)
    names = names_for(asked.url, lambda _: b"")
    signer = load_keystore(directory / KEYS).log
    is_same_name = (
        signer.name.startswith(names.origin) if asked.url is None else (signer.name == names.origin)
    )
    if not is_same_name or any(_at(written, name) != value for name, value in asked.values.items()):
        raise taken_error(directory)
    settings = _load(directory, asked.environ, shown=directory)
    begin = _Begin(directory, settings.storage, asked.environ, clock, random_bytes)
    anyio.run(begin.run, signer)
    return Installation(directory, names.audience, signer.name, str(signer.verifier))


@dataclass(frozen=True, slots=True)
class _Begin:
    """Steps 4 and 5, from wherever they were left."""

    directory: Path
    storage: Storage
    environ: Mapping[str, str]
    clock: Clock
    random_bytes: Callable[[int], bytes]

    async def run(self, signer: NoteSigner) -> None:
        async with opened(open_stores(self.storage, environ=self.environ)) as stores:
            await prove(stores)
            try:
                await self._begin(stores, signer)
            except (AlreadyExists, LogInconsistent) as error:
                # Somebody began a log there after we had looked.
                raise _in_use(stores, "head", layout.HEAD) from error
            except StorageUnavailable as error:
                raise StorageUnavailable(
                    f"{error}: {self.directory} is made, but perhaps not its log: give the same"
                    " command again"
                ) from error

    async def _begin(self, stores: Stores, signer: NoteSigner) -> None:
        holds = await _contents(stores)
        if holds == {"head": layout.HEAD}:
            await finish_log(
                tiles=stores.tiles, head=stores.head, pending=stores.pending, signer=signer
            )
        elif await _is_of(stores.head, signer.name):
            raise taken_error(self.directory)
        else:
            _require_nothing(stores, holds)
            await begin_log(stores, signer, self.clock, self.random_bytes)


async def _require_unused(storage: Storage, environ: Mapping[str, str]) -> None:
    async with opened(open_stores(storage, environ=environ)) as stores:
        await prove(stores)
        _require_nothing(stores, await _contents(stores))


async def _contents(stores: Stores) -> dict[str, str]:
    """The first object of each store that has any."""
    found = {}
    for name, store in stores.distinct().items():
        async for info in store.list(""):
            found[name] = info.name
            break
    return found


async def _is_of(head: ObjectStore, origin: str) -> bool:
    """Whether the log that is there is the one of this name."""
    try:
        stored = await head.get(layout.CHECKPOINT, max_bytes=MAX_NOTE_BYTES)
    except NotFound:
        return False
    return stored.data.startswith(f"{origin}\n".encode())


def _require_nothing(stores: Stores, holds: Mapping[str, str]) -> None:
    for name, first in holds.items():
        raise _in_use(stores, name, first)


def _in_use(stores: Stores, name: str, first: str) -> Misconfigured:
    return Misconfigured(
        f"store {name} ({stores.where[name]}) holds {first}: that is another installation's and is"
        " never overwritten: give another container"
    )


async def _make_containers(storage: Storage, environ: Mapping[str, str]) -> None:
    await make_containers(storage, environ=environ)


def _load(folder: Path, environ: Mapping[str, str], *, shown: Path) -> Settings:
    """Raises: Misconfigured: names the folder as the caller knows it."""
    try:
        return load_settings(folder / SETTINGS, environ)
    except Misconfigured as error:
        raise Misconfigured(str(error).replace(str(folder), str(shown))) from None


def _at(written: dict[str, Any], dotted: str) -> object:
    """The value of `storage.containers.tiles` in the storage section."""
    value: Any = {"storage": written}
    for part in dotted.split("."):
        value = value[part]
    return value
