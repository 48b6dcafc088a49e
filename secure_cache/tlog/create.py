"""The beginning of a log: made once, explicitly, and never where anything is."""

from collections.abc import Callable

from secure_cache.model.clock import Clock
from secure_cache.model.errors import AlreadyExists, NotFound
from secure_cache.storage import layout
from secure_cache.storage.ports import ObjectReader, ObjectStore
from secure_cache.tlog.checkpoint import Checkpoint, sign_checkpoint
from secure_cache.tlog.head import MAX_HEAD_BYTES, Head, empty_head
from secure_cache.tlog.merkle import EMPTY_ROOT
from secure_cache.tlog.note import NoteSigner


async def create_log(
    *,
    tiles: ObjectStore,
    head: ObjectStore,
    pending: ObjectStore,
    signer: NoteSigner,
    clock: Clock,
    random_bytes: Callable[[int], bytes],
) -> Checkpoint:
    """Create an empty log whose origin is the signer's name.

    Order: 1 the empty head, 2 the signed checkpoint of size 0. A crash between leaves a head
    without a checkpoint, which no server opens and no second creation repairs; `finish_log` does,
    with the same key. A log that is missing where one is expected must be restored, never begun
    again.

    Args:
        tiles: where full tiles will go.
        head: where head and checkpoint will go.
        pending: where what waits and partial tiles will go.
        signer: the log's key.
        clock: wall time.
        random_bytes: such as `os.urandom`.

    Raises:
        AlreadyExists: there is something in one of the stores.
        StorageUnavailable: it may or may not have been created.
    """
    for store in (head, tiles, pending):
        found = await _anything(store)
        if found is not None:
            raise AlreadyExists(f"the log's store is not empty: {found}")
    document = empty_head(signer.name, commit=random_bytes(16).hex(), at=int(clock()))
    await head.create(layout.HEAD, document.encode())
    checkpoint = Checkpoint(signer.name, 0, EMPTY_ROOT)
    await head.create(layout.CHECKPOINT, await sign_checkpoint(checkpoint, signer))
    return checkpoint


async def finish_log(
    *,
    tiles: ObjectStore,
    head: ObjectStore,
    pending: ObjectStore,
    signer: NoteSigner,
) -> Checkpoint:
    """Finish a creation that was cut between its two steps: the empty head is there, alone.

    The checkpoint that is signed says that the log is empty, so it can contradict none.

    Args:
        tiles: as for `create_log`.
        head: the same.
        pending: the same.
        signer: the log's key, the one that began it.

    Raises:
        AlreadyExists: there is anything else.
        LogInconsistent: the head is another log's.
        NotFound: there is not even a head.
        StorageUnavailable: it may or may not have been created.
    """
    stored = await head.get(layout.HEAD, max_bytes=MAX_HEAD_BYTES)
    found = Head.decode(stored.data, origin=signer.name)
    others = [await _anything(store, but=layout.HEAD) for store in (head, tiles, pending)]
    if found.size or any(others):
        raise AlreadyExists("there is more than the beginning of a log")
    checkpoint = found.checkpoint()
    await head.create(layout.CHECKPOINT, await sign_checkpoint(checkpoint, signer))
    return checkpoint


async def _anything(store: ObjectReader, *, but: str = "") -> str | None:
    for name in (layout.HEAD, layout.CHECKPOINT):
        if name == but:
            continue
        try:
            await store.head(name)
        except NotFound:
            continue
        return name
    for prefix in (layout.PENDING_PREFIX, layout.TILE_PREFIX, layout.COMMIT_PREFIX):
        async for info in store.list(prefix):
            return info.name
    return None
