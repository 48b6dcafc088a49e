"""From settings to the bounds of the use-cases."""

from dataclasses import replace

from secure_cache.http.body import BodyBounds, DrainBounds
from secure_cache.http.nx import CacheLimits
from secure_cache.http.server import KILL_AFTER_SECONDS
from secure_cache.settings import Limits, Settings
from secure_cache.tlog.log import LogOptions
from secure_cache.tlog.sequencer import SequencerLimits

LOG_OF_MANY = LogOptions(
    # Looking for what others left behind costs six requests, and replicas may be many.
    poll_seconds=5.0,
    spread=0.5,
    max_gap_seconds=0.25,
    # Fewer than the connections of a process: whoever sequences serves requests too.
    sequencer=SequencerLimits(at_once=48),
)
"""How replicas work together that share nothing but a storage account. `bench/simulate.py` runs
exactly this; docs/replicas.md has the figures."""

_LOG = {
    "azure": LOG_OF_MANY,
    "filesystem": LogOptions(rewrite_equal=True),
    "memory": LogOptions(),
}

_FLUSH_SECONDS = KILL_AFTER_SECONDS - 2.0
"""Well before the supervisor kills: what is still pending then, the next process sequences."""


def log_options(settings: Settings) -> LogOptions:
    return replace(
        _LOG[settings.storage.kind],
        commit_seconds=settings.log.commit_interval_seconds,
        max_owed=settings.log.max_pending,
        flush_seconds=_FLUSH_SECONDS,
    )


def cache_limits(limits: Limits) -> CacheLimits:
    return CacheLimits(
        max_open_requests=limits.max_open_requests,
        max_open_uploads=limits.max_open_uploads,
        body=BodyBounds(
            max_bytes=limits.max_artifact_bytes,
            deadline_seconds=limits.body_deadline_seconds,
            min_bytes_per_second=limits.min_bytes_per_second,
            grace_seconds=limits.grace_seconds,
        ),
        drain=DrainBounds(max_bytes=limits.drain_bytes, max_seconds=limits.drain_seconds),
        stranger_drain=DrainBounds(
            max_bytes=limits.anonymous_drain_bytes, max_seconds=limits.anonymous_drain_seconds
        ),
    )
