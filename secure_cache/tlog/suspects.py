"""Which of two files is to blame, when a bundle's entries do not give the hashes of its tile."""

from collections.abc import Iterable

from secure_cache.model.errors import CorruptObject, LogInconsistent
from secure_cache.tlog.checkpoint import Checkpoint
from secure_cache.tlog.reader import Fetch, TreeReader
from secure_cache.tlog.tiles import ENTRIES, FANOUT, tile_name


async def changed_bundles(
    fetch: Fetch, checkpoint: Checkpoint, numbers: Iterable[int], *, fanout: int = FANOUT
) -> list[str]:
    """Those whose tile leads to the signed root, so that it is the entries that were changed.

    Args:
        fetch: the log's files.
        checkpoint: verified.
        numbers: of bundles that differ from their tiles.
        fanout: 256.

    Raises:
        StorageUnavailable: the store did not answer.
    """
    reader = TreeReader(fetch, checkpoint, fanout=fanout)
    found = []
    for number in numbers:
        width = min(fanout, checkpoint.size - number * fanout)
        try:
            # Proves the tile, and reads no bundle.
            await reader.inclusion_proof(number * fanout)
        except (LogInconsistent, CorruptObject):
            continue
        found.append(tile_name(ENTRIES, number, width, fanout=fanout))
    return found
