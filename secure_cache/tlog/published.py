"""The log as everybody may see it: reads up to the newest signed checkpoint, all verified."""

from collections.abc import AsyncIterator, Sequence

from secure_cache.storage.ports import ObjectStore
from secure_cache.tlog.checkpoint import Checkpoint
from secure_cache.tlog.commits import CommitIndex
from secure_cache.tlog.note import Verifier
from secure_cache.tlog.ports import Logged
from secure_cache.tlog.publication import Publication, Publications
from secure_cache.tlog.reader import TileCache, TreeReader, store_fetch
from secure_cache.tlog.tiles import FANOUT, TileId
from secure_cache.tlog.tlog_proof import TlogProof


class LogReader:
    """Implements `ports.PublishedLog` over the log's stores. Needs no private key.

    Args:
        tiles: the store with full tiles and bundles, and commit copies.
        head: the store with the checkpoint.
        pending: the store with partial tiles and bundles.
        verifiers: the log's keys.
        origin: the log's origin.
        publications: shared with a sequencer of the same process.
        cache: the same.
        commits: the same.
        fanout: 256.
    """

    def __init__(
        self,
        *,
        tiles: ObjectStore,
        head: ObjectStore,
        pending: ObjectStore,
        verifiers: Sequence[Verifier],
        origin: str,
        publications: Publications | None = None,
        cache: TileCache | None = None,
        commits: CommitIndex | None = None,
        fanout: int = FANOUT,
    ) -> None:
        self._fetch = store_fetch(tiles, pending)
        self._publications = publications or Publications(head, verifiers, origin=origin)
        self._commits = commits or CommitIndex(tiles, origin=origin)
        self._cache = TileCache() if cache is None else cache
        self._fanout = fanout
        self._tree: TreeReader | None = None

    async def published(self) -> Checkpoint:
        return (await self._publications.read()).checkpoint

    async def checkpoint_note(self) -> bytes:
        return (await self._publications.read()).note

    async def index_of(self, logged: Logged) -> int | None:
        size = (await self.published()).size
        first = await self._commits.first_index(logged.batch, published=size)
        return None if first is None else first + logged.position

    async def entry(self, index: int) -> bytes:
        return await (await self._reader()).entry(index)

    async def entries(
        self, start: int = 0, end: int | None = None
    ) -> AsyncIterator[tuple[int, bytes]]:
        reader = await self._reader()
        async for item in reader.entries(start, end):
            yield item

    async def proof(self, index: int) -> TlogProof:
        publication = await self._publications.read()
        reader = self._reader_of(publication)
        return TlogProof(index, await reader.inclusion_proof(index), publication.note)

    async def inclusion_proof(self, index: int, size: int) -> tuple[bytes, ...]:
        return await (await self._reader()).inclusion_proof(index, size)

    async def consistency_proof(self, old: int, new: int) -> tuple[bytes, ...]:
        return await (await self._reader()).consistency_proof(old, new)

    async def tile(self, path: str) -> bytes:
        return await self._fetch(str(TileId.parse(path)))

    async def _reader(self) -> TreeReader:
        return self._reader_of(await self._publications.read())

    def _reader_of(self, publication: Publication) -> TreeReader:
        if self._tree is None or self._tree.checkpoint != publication.checkpoint:
            self._tree = TreeReader(
                self._fetch,
                publication.checkpoint,
                cache=self._cache,
                fanout=self._fanout,
            )
        return self._tree
