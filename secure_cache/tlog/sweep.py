"""S8: removes what nobody needs any more, while the next pass is already at work."""

import itertools
from collections.abc import Iterable
from functools import partial

from secure_cache.model.errors import SecureCacheError, Unavailable
from secure_cache.storage.ports import ObjectStore
from secure_cache.tlog.backlog import together
from secure_cache.tlog.commit import Growth
from secure_cache.tlog.pending import BatchName
from secure_cache.tlog.tiles import ENTRIES, TileId

_AT_A_TIME = 4096


class Sweeper:
    """Remembers what is to go. What is forgotten, by a crash or an error, only takes space: spent
    batches are ignored by every pass, and swept by the next that sees them.

    Args:
        store: the log's `pending` store.
        at_once: requests at the same time.
    """

    def __init__(self, store: ObjectStore, *, at_once: int) -> None:
        self._store = store
        self._at_once = at_once
        self._names: dict[str, None] = {}
        self._under_way: dict[str, None] = {}
        self._stems: list[str] = []
        self._trouble: SecureCacheError | None = None

    def __bool__(self) -> bool:
        return bool(self._names or self._stems)

    def add_batches(self, names: Iterable[BatchName]) -> None:
        """Batches that are in the published log."""
        self._names.update((str(n), None) for n in names if str(n) not in self._under_way)

    def add_partials(self, growth: Growth) -> None:
        """Partial forms of tiles that are full by now; readers fall back to the full one."""
        for tile in growth.outgrown_tiles():
            self._stems.append(TileId(tile.level, tile.index).stem)
            if tile.level == 0:
                self._stems.append(TileId(ENTRIES, tile.index).stem)

    async def sweep(self) -> None:
        """Remove what is remembered, some thousand at most. Does not raise: it runs beside what
        counts, and must neither stop that nor hide what comes of it."""
        stems, self._stems = self._stems, []
        self._under_way = dict.fromkeys(itertools.islice(self._names, _AT_A_TIME))
        for name in self._under_way:
            del self._names[name]
        try:
            found = await together([partial(self._partials, stem) for stem in stems])
            names = itertools.chain(self._under_way, *found)
            calls = [partial(self._store.delete, name) for name in names]
            await together(calls, at_once=self._at_once)
        except Unavailable:
            return
        except SecureCacheError as error:
            self._trouble = error
        finally:
            self._under_way = {}

    def raise_trouble(self) -> None:
        """Raises: StorageForbidden, Misconfigured, CorruptObject: what the last sweep met, and the
        next one will."""
        trouble, self._trouble = self._trouble, None
        if trouble is not None:
            raise trouble

    async def _partials(self, stem: str) -> list[str]:
        return [info.name async for info in self._store.list(f"{stem}.p/")]
