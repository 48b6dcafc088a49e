"""The verified local tier: artifacts of a remote store, kept on a disk of this replica.

It stands behind every check and replaces none. Whether an entry may be served was decided before
the tier is asked, and each byte is proved before it leaves: by the signed chunk list, or by what
was proved with it. All that the tier can do is make it quicker: when its disk is full or breaks,
or its files were changed, the artifact is served as without it.

Of each artifact there is one download at a time in this process, and it does not wait for clients.
They read from the file what is proved, each at its own pace.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import anyio
import structlog
from anyio.abc import TaskGroup

from secure_cache.core.blocks import BlockList, BlockLists, prove_chunk
from secure_cache.core.catalog import Held
from secure_cache.core.fill import Filler
from secure_cache.core.followed import (
    Damaged,
    Followed,
    Gone,
    LocalTrouble,
    SteppedAside,
    locally,
    read_block,
    soon,
)
from secure_cache.core.telemetry import Telemetry
from secure_cache.model.entry import CHUNK_BYTES
from secure_cache.model.errors import Broken, CorruptObject, SecureCacheError, StorageUnavailable
from secure_cache.storage.ports import ObjectReader
from secure_cache.storage.tier_ports import LocalFile, LocalFolder

_log = structlog.get_logger(__name__)

_PROOFS_AT_ONCE = 4
_LOOKS = 4
_REST_SECONDS = 60.0

_Key = tuple[str, bytes]


class LocalTier:
    """Steps aside as long as it is not `running`."""

    def __init__(
        self,
        *,
        folder: LocalFolder,
        artifacts: ObjectReader,
        lists: BlockLists,
        telemetry: Telemetry,
    ) -> None:
        self._folder = folder
        self._lists = lists
        self._telemetry = telemetry
        self._filler = Filler(artifacts, folder)
        self._provers = anyio.CapacityLimiter(_PROOFS_AT_ONCE)
        self._works: dict[_Key, Followed] = {}
        self._group: TaskGroup | None = None
        self._rests_until = 0.0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Raises: Misconfigured (others may get at the folder), StorageForbidden."""
        try:
            await self._folder.prepare()
        except StorageUnavailable as error:
            # A full disk is no reason not to serve.
            self._note(LocalTrouble(str(error)))
        try:
            async with anyio.create_task_group() as group:
                self._group = group
                try:
                    yield
                finally:
                    self._group = None
                    group.cancel_scope.cancel()
        finally:
            # One that was cancelled before it began has told nobody.
            for work in self._works.values():
                work.end(Gone())
            await self._folder.close()

    async def blocks(self, held: Held, sent: int) -> AsyncGenerator[bytes]:
        """Verified blocks from `sent` on, which is where a block begins. It may end too early:
        then the tier has stepped aside, and the transfer goes on elsewhere.

        Raises:
            CorruptObject: what is stored is not what the entry states.
            NotFound, VersionMismatch, StorageUnavailable, StorageForbidden: from the store.
        """
        for _ in range(_LOOKS):
            if self._group is None:
                break
            try:
                async with aclosing(self._look(held, sent)) as blocks:
                    async for block in blocks:
                        sent += len(block)
                        yield block
            except Gone:
                continue
            except LocalTrouble as error:
                self._note(error)
                break
            return
        self._telemetry.tier_read(outcome="aside")

    async def _look(self, held: Held, sent: int) -> AsyncGenerator[bytes]:
        """Raises: Gone, LocalTrouble, and as `blocks`."""
        key = (held.entry.entry_id, held.entry.digest.raw)
        known = self._lists.of(held.entry)
        if key not in self._works and known.upto == known.size:
            with locally():
                file = await self._folder.find(held.entry.entry_id)
            if file is not None:
                self._telemetry.tier_read(outcome="hit")
                async with aclosing(self._published(file, known, sent)) as blocks:
                    async for block in blocks:
                        yield block
                return
        work = self._works.get(key)
        if work is None:
            work = self._begin(key, held, known)
        else:
            self._telemetry.tier_read(outcome="joined")
        with work:
            async with aclosing(work.blocks(sent)) as blocks:
                async for block in blocks:
                    yield block

    async def _published(
        self, file: LocalFile, known: BlockList, sent: int
    ) -> AsyncGenerator[bytes]:
        """A file of which every block can be proved. Read from start to end without a change it
        is this artifact, and its identity says so from then on."""
        try:
            if file.size != known.size:
                raise Damaged("a local file has another size")  # noqa: TRY301  handled below
            before = _identity(file) if sent == 0 else None
            while sent < known.size:
                block = await read_block(file, known, sent)
                sent += len(block)
                if sent == known.size:
                    _believe(file, known, before)
                yield block
        except Damaged as error:
            await self._discard(file, error)
            raise Gone from error
        finally:
            file.close()

    def _begin(self, key: _Key, held: Held, known: BlockList) -> Followed:
        """Raises: Gone, when the server is ending."""
        if self._group is None:
            raise Gone
        work = self._works[key] = Followed(known)
        self._group.start_soon(self._run, key, held, work)
        return work

    async def _run(self, key: _Key, held: Held, work: Followed) -> None:
        error: Exception | None = Gone()
        try:
            error = await self._outcome(held, work)
        finally:
            # First this: whoever is told to look again must not find the same work.
            self._works.pop(key, None)
            work.end(error)

    async def _outcome(self, held: Held, work: Followed) -> Exception | None:
        try:
            await self._work(held, work)
        except LocalTrouble as error:
            self._note(error)
            return error
        except (Gone, SecureCacheError) as error:
            return error
        except Exception as crash:  # noqa: BLE001  a bug of ours must not end the whole worker
            _log.exception("tier.crashed")
            return Broken(repr(crash))
        return None

    async def _work(self, held: Held, work: Followed) -> None:
        """Prove the file that an earlier process left, or fill a new one."""
        with locally():
            file = await self._folder.find(held.entry.entry_id)
        if file is not None:
            self._telemetry.tier_read(outcome="hit")
            work.begin(file)
            await self._prove(held, work, file)
            return
        self._telemetry.tier_read(outcome="miss")
        if anyio.current_time() < self._rests_until:
            raise SteppedAside("it failed a moment ago")
        result = "failed"
        try:
            await self._filler.fill(held, work)
            result = "ok"
        except Gone:
            result = "left"
            raise
        except LocalTrouble:
            result = "aside"
            raise
        finally:
            self._telemetry.tier_filled(result=result, size_bytes=work.upto)

    async def _prove(self, held: Held, work: Followed, file: LocalFile) -> None:
        """Raises: LocalTrouble; Gone (no readers; or damaged, and then it is discarded)."""
        async with soon(self._provers):
            before = _identity(file)
            try:
                while work.upto < held.entry.size:
                    if not work.readers:
                        raise Gone
                    with locally():
                        chunk = await file.read(work.upto, CHUNK_BYTES)
                    digests = await anyio.to_thread.run_sync(prove_chunk, held, work.upto, chunk)
                    work.known.add(work.upto, digests)
                    work.advance(chunk)
            except CorruptObject as error:
                # The local file says nothing about what the store has: nobody is condemned.
                await self._discard(file, Damaged(str(error)))
                raise Gone from error
            _believe(file, work.known, before)

    async def _discard(self, file: LocalFile, error: Damaged) -> None:
        """Raises: LocalTrouble."""
        self._note(error)
        with locally():
            await file.discard()

    def _note(self, error: LocalTrouble) -> None:
        if error.told:
            return
        error.told = True
        damaged = isinstance(error, Damaged)
        self._telemetry.tier_failed(kind="damaged" if damaged else "io")
        if damaged:
            _log.warning("tier.damaged", why=str(error))
            return
        now = anyio.current_time()
        if now >= self._rests_until:
            _log.warning("tier.stepped_aside", why=str(error), seconds=_REST_SECONDS)
        self._rests_until = now + _REST_SECONDS


def _identity(file: LocalFile) -> str | None:
    """Raises: LocalTrouble."""
    with locally():
        return file.identity()


def _believe(file: LocalFile, known: BlockList, before: str | None) -> None:
    """Remember a file that was just proved from start to end, if it did not change meanwhile."""
    if before is not None and before == _identity(file):
        known.file = before
