"""Entries examined by all cores, where there are many. It is arithmetic in Python, so that threads
would wait for each other."""

import os
from collections.abc import Sequence
from functools import lru_cache

import anyio
import anyio.to_process
import anyio.to_thread

from secure_cache.audit.watch import Watch
from secure_cache.audit.watch_examine import Examined, Examiner
from secure_cache.audit.watch_rules import WatchRules
from secure_cache.audit.watch_signatures import SigningKeys
from secure_cache.provenance.keys import KeyRing

_CHUNK = 512


async def examine(watch: Watch, first: int, leaves: Sequence[bytes], *, apart: bool) -> Examined:
    """Examine entries for `Watch.settle`.

    Args:
        watch: has settled all before them.
        first: index of the first.
        leaves: all of them.
        apart: in other processes.
    """
    if not apart:
        return await anyio.to_thread.run_sync(watch.examiner().examine, first, leaves)
    limiter = anyio.CapacityLimiter(len(os.sched_getaffinity(0)))
    parts: dict[int, Examined] = {}
    keys = watch.keys.ring.encode(), tuple(sorted(watch.keys.revoked_at.items()))

    async def examine_part(at: int) -> None:
        parts[at] = await anyio.to_process.run_sync(
            _examine_apart,
            watch.rules.text,
            *keys,
            first + at,
            leaves[at : at + _CHUNK],
            limiter=limiter,
            cancellable=True,
        )

    async with anyio.create_task_group() as tasks:
        for at in range(0, len(leaves), _CHUNK):
            tasks.start_soon(examine_part, at)
    whole = Examined()
    for _, part in sorted(parts.items()):
        whole.alerts += part.alerts
        whole.runs += part.runs
        whole.announced += part.announced
    return whole


def _examine_apart(
    rules: bytes,
    ring: bytes,
    revoked_at: tuple[tuple[str, int], ...],
    first: int,
    leaves: Sequence[bytes],
) -> Examined:
    """In another process, to which keys do not travel."""
    return _examiner(rules, ring, revoked_at).examine(first, leaves)


@lru_cache(maxsize=1)
def _examiner(rules: bytes, ring: bytes, revoked_at: tuple[tuple[str, int], ...]) -> Examiner:
    keys = SigningKeys(KeyRing.decode(ring), dict(revoked_at))
    return Examiner(WatchRules.parse(rules, name="rules"), keys)
