"""Whether a log still lives.

A checkpoint itself says no time, and what entries say was written by whoever is in doubt: one date
in the future would hide for years that nothing comes any more. So what counts is when the log was
seen to grow, by the clock here, and what witnesses that were asked for have cosigned.
"""

from secure_cache.audit.reading import statement_of
from secure_cache.audit.watch_alert import Alert, Severity
from secure_cache.compose.log_source import LogSource
from secure_cache.model.clock import rfc3339
from secure_cache.model.entry import Entry
from secure_cache.provenance.event import Event
from secure_cache.tlog.cosignature import cosignature_time

_LEEWAY_SECONDS = 300
"""Clocks differ."""


async def grown_at(source: LogSource, size: int, *, looked_at: int, now: int) -> int:
    """When a log came into being as it is, seconds since 1970.

    Args:
        source: the log.
        size: how many entries it has; fewer when it was looked at last.
        looked_at: when that was; 0 if never.
        now: by the clock here.

    Returns: what its newest entry claims, if that is between the two looks.
    """
    claimed = 0
    if size:
        match statement_of(await source.log.entry(size - 1)):
            case Entry(stored_at=at) | Event(at=at) if at <= now + _LEEWAY_SECONDS:
                claimed = at
            case _:
                pass
    return min(now, max(claimed, looked_at))


async def stale(source: LogSource, *, alive_at: int, max_age: int | None, now: int) -> list[Alert]:
    """The alert about a log without a sign of life, or none.

    Args:
        source: the log.
        alive_at: when it was known to have grown.
        max_age: in seconds; None: it may sleep.
        now: by the clock here.

    Raises:
        LogInconsistent: too few witnesses. StorageUnavailable.
    """
    if max_age is None:
        return []
    newest = alive_at
    if source.trust.witnesses is not None:
        note = await source.log.checkpoint_note()
        found = source.trust.witnesses.verify(note, log=source.verifiers[0]).cosignatures
        times = (cosignature_time(item.value) for item in found.values())
        newest = max([newest, *(time for time in times if time <= now + _LEEWAY_SECONDS)])
    if now - newest <= max_age:
        return []
    return [_stale(newest, "nobody writes, or it is held back")]


def unseen(*, alive_at: int, max_age: int | None, now: int) -> list[Alert]:
    """The alert about a log that cannot be reached, once it is as old as one without a sign of
    life; or none. As `stale`."""
    if max_age is None or -_LEEWAY_SECONDS <= now - alive_at <= max_age:
        return []
    return [_stale(alive_at, "it cannot be reached")]


def _stale(newest: int, why: str) -> Alert:
    since = f"of {rfc3339(newest)}" if newest else "of nobody knows when"
    return Alert("stale", Severity.ALARM, f"The log's newest sign of life is {since}: {why}.")
