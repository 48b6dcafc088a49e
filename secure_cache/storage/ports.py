"""The storage port: small Protocols, each named for a guarantee.

Backends share no base class; they share the contract suite in `tests/contracts`. Object names
match `NAME_GRAMMAR`. Every vendor error is converted at the port; "forbidden" is never
"missing". All backends are strongly consistent: a completed write is visible to every reader
of every process at once, and survives a crash of process and machine.
"""

import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from secure_cache.model.digest import Digest
from secure_cache.model.errors import Misconfigured

NAME_GRAMMAR = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=-]*(?:/(?!\.\.?(?:/|\Z))[A-Za-z0-9._=-]+)*")
MAX_NAME_CHARACTERS = 900


def check_name(name: str) -> str:
    """Check an object name before any I/O and give it back.

    Raises:
        Misconfigured: the name is outside the grammar. Names are built in `layout` from
            digests and checked words, so this is a bug of ours and not a caller's fault.
    """
    if len(name) > MAX_NAME_CHARACTERS or NAME_GRAMMAR.fullmatch(name) is None:
        raise Misconfigured(f"illegal object name {name[:80]!r}")
    return name


def check_prefix(prefix: str) -> str:
    """Check what `list` is asked for: nothing, or the start of a legal name.

    Raises:
        Misconfigured: no legal name starts so, or it ends inside a segment of dots.
    """
    if prefix:
        check_name(prefix.removesuffix("/"))
    return prefix


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What is known of a stored object.

    Attributes:
        name: where it is.
        size: in bytes.
        version: opaque; changes whenever the object's content may have changed.
        modified: seconds since 1970.
    """

    name: str
    size: int
    version: str
    modified: float = 0.0


@dataclass(frozen=True, slots=True)
class StoredObject:
    """A small object, whole."""

    info: ObjectInfo
    data: bytes


class Reading(Protocol):
    """An object opened for reading, pinned to the version in `info`.

    Raises (from the iterator):
        VersionMismatch: the object was replaced or changed under the reader. What had been
            fetched of the version in `info` by then may still be given out first.
    """

    @property
    def info(self) -> ObjectInfo: ...

    @property
    def stable_identity(self) -> str | None:
        """Names these very bytes as long as nobody touched the file, or None.

        A full verification may be remembered under it. The filesystem gives device, inode,
        size, mtime and ctime, and None while ctime is too fresh to tell two writes apart.
        """
        ...

    def chunks(self, *, offset: int = 0, size: int = 262_144) -> AsyncGenerator[bytes]:
        """The bytes from `offset` on, `size` at a time (the last may be shorter).

        Every byte is of the version in `info`. A local file is checked to be still that
        version before each chunk; a remote object, whose versions never change in place,
        whenever more of it is fetched.
        """
        ...


class ObjectReader(Protocol):
    """Reads what was written, strongly consistent."""

    async def head(self, name: str) -> ObjectInfo:
        """Raises: NotFound, StorageUnavailable, StorageForbidden."""
        ...

    async def get(self, name: str, *, max_bytes: int) -> StoredObject:
        """A small object whole.

        Raises: NotFound, CorruptObject (larger than `max_bytes`), StorageUnavailable,
        StorageForbidden.
        """
        ...

    async def get_if_changed(
        self, name: str, *, version: str, max_bytes: int
    ) -> StoredObject | None:
        """The object, or None when it still has `version`. Raises as `get`."""
        ...

    def open(self, name: str) -> AbstractAsyncContextManager[Reading]:
        """Open for reading; every error comes before the first byte. Raises as `head`."""
        ...

    def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        """Objects whose name starts with `prefix`, in order of their names.

        A whole-path prefix such as `pending/`. Objects created or deleted meanwhile may or
        may not be seen; what existed before and after is.
        """
        ...


class CreateOnly(Protocol):
    """Create if absent: of many racing creators exactly one succeeds, and it knows."""

    async def create(self, name: str, data: bytes) -> ObjectInfo:
        """Publish `data` under `name`, atomically and durably.

        Raises: AlreadyExists, StorageUnavailable (`applied` is None when nobody knows; calling
        again with the same name and bytes resolves it by reading back), StorageForbidden.
        """
        ...

    def begin_upload(self, name: str) -> AbstractAsyncContextManager["Upload"]:
        """Begin a streamed create. Leaving the context without `commit` discards it."""
        ...


@dataclass(frozen=True, slots=True)
class Committed:
    """A published upload: where it is, and the SHA-256 of what was written."""

    info: ObjectInfo
    digest: Digest


class Upload(Protocol):
    """A body on its way in. Nothing of it can be read before `commit`."""

    async def write(self, data: bytes) -> None: ...

    async def commit(self, *, size: int, digest: Digest | None = None) -> Committed:
        """Publish atomically and durably, if what was written has this size and digest.

        The store hashes what it actually wrote, once, while writing; `digest` is given where
        the caller was promised one. Raises: DigestMismatch (nothing is committed),
        AlreadyExists, StorageUnavailable, StorageForbidden.
        """
        ...


class CompareAndSwap(Protocol):
    """One serial history per object, visible at once to every process."""

    async def replace(self, name: str, data: bytes, *, expected: str) -> ObjectInfo:
        """Replace the object if it still has the version `expected`.

        Raises: VersionMismatch (also when the object is missing), StorageUnavailable (`applied`
        None: read back and compare), StorageForbidden.
        """
        ...


class Deleter(Protocol):
    """Removes objects."""

    async def delete(self, name: str, *, expected: str | None = None) -> bool:
        """Delete; False when it was already absent. Raises: VersionMismatch."""
        ...


class ObjectStore(ObjectReader, CreateOnly, CompareAndSwap, Deleter, Protocol):
    """All of it, for one container or folder."""

    async def check(self) -> None:
        """Prove at start that the store can do what it must.

        Raises: Misconfigured, StorageForbidden, StorageUnavailable.
        """
        ...

    async def close(self) -> None: ...


class Turn(Protocol):
    """A hint that this process should do shared work now. Never a safety argument."""

    async def try_take(self) -> bool:
        """True when the turn is ours until `give_back`. Never waits."""
        ...

    async def keep(self) -> bool:
        """To be called about once a second by whoever has the turn; False when it is lost."""
        ...

    async def give_back(self) -> None: ...
