"""Entries examined here, or by all cores where there are many."""

from collections.abc import AsyncIterator, Sequence
from functools import lru_cache

import anyio.to_thread

from secure_cache.audit.watch import Watch
from secure_cache.audit.watch_examine import Examined, Examiner
from secure_cache.audit.watch_rules import WatchRules
from secure_cache.audit.watch_signatures import SigningKeys
from secure_cache.client.all_cores import on_all_cores
from secure_cache.provenance.keys import KeyRing

_BATCH = 4096
_PART = 512
_Keys = tuple[bytes, tuple[tuple[str, int], ...], int]
"""A key ring, where keys were revoked, and the time."""


async def in_batches(
    entries: AsyncIterator[tuple[int, bytes]],
) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Entries some at a time, with the index of the first."""
    first, leaves = 0, list[bytes]()
    async for index, leaf in entries:
        if not leaves:
            first = index
        leaves.append(leaf)
        if len(leaves) == _BATCH:
            yield first, leaves
            leaves = []
    if leaves:
        yield first, leaves


async def examine(watch: Watch, first: int, leaves: Sequence[bytes], *, apart: bool) -> Examined:
    """Examine entries for `Watch.settle`.

    Args:
        watch: has settled all before them.
        first: index of the first.
        leaves: all of them.
        apart: in other processes.

    Raises:
        Unavailable: those could not be started, or ended.
    """
    if not apart:
        return await anyio.to_thread.run_sync(watch.examiner().examine, first, leaves)
    revoked_at = tuple(sorted(watch.keys.revoked_at.items()))
    keys = watch.keys.ring.encode(), revoked_at, watch.now
    calls = [
        (watch.rules.text, keys, first + at, leaves[at : at + _PART])
        for at in range(0, len(leaves), _PART)
    ]
    whole = Examined()
    for part in await on_all_cores(_examine_apart, calls):
        whole.add(part)
    return whole


def _examine_apart(rules: bytes, keys: _Keys, first: int, leaves: Sequence[bytes]) -> Examined:
    """In another process, to which keys do not travel."""
    return _examiner(rules, keys).examine(first, leaves)


@lru_cache(maxsize=1)
def _examiner(rules: bytes, keys: _Keys) -> Examiner:
    ring, revoked_at, now = keys
    signing = SigningKeys(KeyRing.decode(ring), dict(revoked_at))
    return Examiner(WatchRules.parse(rules, name="rules"), signing, now)
