"""From settings to the bounds of the use-cases."""

from secure_cache.http.body import BodyBounds, DrainBounds
from secure_cache.http.nx import CacheLimits
from secure_cache.http.server import KILL_AFTER_SECONDS
from secure_cache.settings import Limits, Settings
from secure_cache.tlog.log import LogOptions

_POLL_SECONDS = 2.0
_POLL_SECONDS_OF_MANY = 5.0
_SPREAD_OF_MANY = 0.5

_FLUSH_SECONDS = KILL_AFTER_SECONDS - 2.0
"""Well before the supervisor kills: what is still pending then, the next process sequences."""


def log_options(settings: Settings) -> LogOptions:
    shared = settings.storage.kind == "azure"
    return LogOptions(
        commit_seconds=settings.log.commit_interval_seconds,
        # Looking for what others left behind costs three requests, and replicas may be many.
        poll_seconds=_POLL_SECONDS_OF_MANY if shared else _POLL_SECONDS,
        spread=_SPREAD_OF_MANY if shared else 0.0,
        max_owed=settings.log.max_pending,
        flush_seconds=_FLUSH_SECONDS,
        rewrite_equal=settings.storage.kind == "filesystem",
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
