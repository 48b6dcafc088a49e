"""The two ways in which the log writes to a store, with every unknown outcome resolved."""

from secure_cache.model.errors import (
    AlreadyExists,
    LogInconsistent,
    NotFound,
    StorageUnavailable,
    VersionMismatch,
)
from secure_cache.storage.ports import ObjectStore


async def put_immutable(
    store: ObjectStore, name: str, data: bytes, *, rewrite_equal: bool = False
) -> None:
    """Create an object whose bytes can only ever be these; that it is there already is fine.

    Args:
        store: where.
        name: its name.
        data: its bytes.
        rewrite_equal: write equal bytes again. For a file system: where the fsync of whoever
            was here before failed, the page cache shows bytes that the disk may not hold, and
            reading them back proves nothing.

    Raises:
        LogInconsistent: other bytes are there. Nothing was changed.
        StorageUnavailable: it may or may not be there; call again.
    """
    try:
        await store.create(name, data)
    except AlreadyExists:
        # One byte more than ours is enough to tell another object from ours.
        try:
            stored = await store.get(name, max_bytes=max(len(data) + 1, 1 << 20))
        except NotFound:
            # A partial tile, swept by a replica that is further on. Ours is garbage then, and
            # harmless; giving up here would be the same as not knowing.
            await put_immutable(store, name, data, rewrite_equal=rewrite_equal)
            return
        if stored.data != data:
            raise LogInconsistent(f"{name} exists with other bytes than the log implies") from None
        if rewrite_equal:
            # False: another replica writes the same bytes, or has swept this partial tile.
            await rewrite(store, name, data, version=stored.info.version)


async def swap(store: ObjectStore, name: str, data: bytes, *, expected: str) -> bool:
    """Compare and swap; False when somebody else was first.

    Raises:
        StorageUnavailable: it may or may not have taken effect, and reading back failed too.
    """
    try:
        await store.replace(name, data, expected=expected)
    except VersionMismatch:
        return False
    except StorageUnavailable as error:
        if error.applied is False:
            raise
        stored = await store.get(name, max_bytes=max(len(data) + 1, 16 << 20))
        return stored.data == data
    return True


async def rewrite(store: ObjectStore, name: str, data: bytes, *, version: str) -> bool:
    """Write the bytes that are there once more, durably; False when they changed meanwhile.

    Reading back tells nothing about it, so an unknown outcome is an error here.

    Raises:
        StorageUnavailable: it may or may not have been written; call again.
    """
    try:
        await store.replace(name, data, expected=version)
    except VersionMismatch:
        return False
    return True
