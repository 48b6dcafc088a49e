"""Random histories of several replicas under faults; and four well-known wrong protocols.

The real writer and sequencer run; `fakes.log_world` has the fault model and the judge.
"""

import pytest
from fakes.log_world import Judged, World

from secure_cache.model.errors import LogInconsistent
from secure_cache.storage import layout
from secure_cache.tlog.backlog import Backlog, sort_batches
from secure_cache.tlog.checkpoint import sign_checkpoint
from secure_cache.tlog.objects import swap
from secure_cache.tlog.pending import BatchName
from secure_cache.tlog.sequencer import Sequencer

pytestmark = pytest.mark.anyio

REQUESTS = 1500


@pytest.mark.parametrize("seed", range(24))
async def test_no_history_forks_loses_repeats_or_rewrites(seed):
    world = World(seed)
    await world.run(REQUESTS)
    assert world.acked
    assert world.roots


@pytest.mark.parametrize("seed", range(4))
async def test_real_tiles_of_256_hashes_survive_the_same_faults(seed):
    world = World(1000 + seed, fanout=256)
    await world.run(REQUESTS)
    assert world.acked


@pytest.mark.slow
async def test_many_histories_together():
    crashes = commits = entries = 0
    for seed in range(10_000, 10_150):
        world = World(seed)
        await world.run(REQUESTS)
        crashes += world.crashes
        commits += len(world.roots)
        entries += len(world.acked)
    assert crashes > 1000
    assert commits > 5000
    assert entries > 10_000


class SignsBeforeTheCommit(Sequencer):
    """Sunlight's order, which is safe for one instance only."""

    async def _commit(self, stored, new, growth):
        await sign_checkpoint(new.checkpoint(), self._signer)
        return await super()._commit(stored, new, growth)


class RemembersOnlyTheLastCommit(Sequencer):
    """Takes for new whatever the last commit did not take in."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self._backlog = ForgetfulBacklog(arguments["pending"], max_batches=64, max_bytes=1 << 25)


class ForgetfulBacklog(Backlog):
    async def look(self, head):
        last = {batch.name for batch in head.batches}
        names = [
            BatchName.parse(info.name) async for info in self._store.list(layout.PENDING_PREFIX)
        ]
        fresh = [name for name in names if str(name) not in last]
        firsts = {}
        for name in fresh:
            firsts[name.boot] = min(name.sequence, firsts.get(name.boot, name.sequence))
        return sort_batches(fresh, {boot: first - 1 for boot, first in firsts.items()})


class WritesTilesBeforeTheCommit(Sequencer):
    """Tessera's order on POSIX, which is safe under an exclusive lock only."""

    async def _commit(self, stored, new, growth):
        await self._write_objects(growth)
        return await super()._commit(stored, new, growth)


class DoesNotHelp(Sequencer):
    """Goes on with commit k+1 from the head's tree, whether k is published or not."""

    async def _step(self):
        published = (await self._publications.read()).checkpoint
        stored = await self._read_head(published)
        waiting = await self._backlog.look(stored.head)
        if not waiting.ready:
            return False
        batches = await self._backlog.read(waiting.ready)
        edge, tail = await self._edge(stored.head.checkpoint())
        growth = await self._grow(edge, tail, [leaf for _, leaves in batches for leaf in leaves])
        new = self._next_head(stored.head, batches, growth)
        if not await swap(self._head, layout.HEAD, new.encode(), expected=stored.version):
            return True
        await self._complete(new, growth)
        return True


@pytest.mark.parametrize(
    ("variant", "failure"),
    [
        (SignsBeforeTheCommit, "fork"),
        (RemembersOnlyTheLastCommit, "duplicate|consumed|out of order|committed batch is missing"),
        (WritesTilesBeforeTheCommit, "tile differs|other bytes"),
        (DoesNotHelp, "edge|missing|not what the head extends|grow"),
    ],
)
async def test_a_wrong_protocol_is_caught(variant, failure):
    for seed in range(120):
        world = World(seed, sequencer=variant, replicas=3)
        try:
            await world.run(REQUESTS)
        except (Judged, LogInconsistent) as error:
            with pytest.raises(type(error), match=failure):
                raise
            return
    pytest.fail("120 histories did not show that this protocol is wrong")
