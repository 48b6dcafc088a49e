"""From settings to running processes."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from secure_cache.compose.offline import open_offline
from secure_cache.compose.stores import place_of_the_log
from secure_cache.http.connection_limits import ConnectionLimits
from secure_cache.http.server import AppSource, ServerOptions
from secure_cache.http.supervisor import Hooks, run
from secure_cache.model.clock import system_clock
from secure_cache.model.errors import Broken, StorageForbidden
from secure_cache.observability.logging import configure_logging
from secure_cache.observability.multiprocess import forget_worker, shared_numbers
from secure_cache.settings import Settings

FACTORY = "secure_cache.compose.server:app_from_settings"
"""Called in each worker with the settings file's path and its `Worker`. It reads settings again,
from the same file and environment."""

_GRACE_BESIDE_APPLICATION = 3.0


def server_options(settings: Settings) -> ServerOptions:
    """What the processes and their connections are told."""
    server, limits = settings.server, settings.limits
    return ServerOptions(
        host=server.host,
        port=server.port,
        workers=server.workers,
        backlog=server.backlog,
        keep_alive_seconds=server.keep_alive_seconds,
        drain_seconds=server.drain_seconds,
        notice_seconds=server.drain_notice_seconds,
        limits=ConnectionLimits(
            max_header_bytes=limits.max_header_bytes,
            max_headers=limits.max_headers,
            header_seconds=limits.header_deadline_seconds,
            max_connections=server.max_connections,
            min_bytes_per_second=limits.min_bytes_per_second,
            # The application's own refusal says more, so it comes first.
            body_grace_seconds=limits.grace_seconds + _GRACE_BESIDE_APPLICATION,
            linger_bytes=limits.anonymous_drain_bytes,
            linger_seconds=limits.anonymous_drain_seconds,
        ),
    )


def serve(config: Path, settings: Settings, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM and the end of the drain.

    Args:
        config: the settings file, for the workers.
        settings: what it says, with overrides.
        on_ready: called once with the address.

    Raises:
        Misconfigured, Unavailable, Broken: it can not start; says why.
    """
    # Once here, so that a bad policy or key is told once, and not by each worker.
    open_offline(settings, system_clock)
    source = AppSource(factory=FACTORY, argument=str(config.absolute()))
    configure_logging(style=settings.logging.format, level=settings.logging.level)
    try:
        _run(source, server_options(settings), on_ready)
    except StorageForbidden:
        # Not a sign of damage: nothing was read at all.
        raise
    except Broken as error:
        raise Broken(
            f"{place_of_the_log(settings.storage)}: {error}: run `secure-cache log fsck --config"
            f" {config}`, follow docs/operations.md, section 9 (a backup may be older), and never"
            " begin the log anew in the same place"
        ) from error


def _run(source: AppSource, options: ServerOptions, on_ready: Callable[[str], None]) -> None:
    if options.workers == 1:
        run(source, options, Hooks(on_ready=on_ready))
        return
    with shared_numbers() as environment:
        hooks = Hooks(
            on_ready=on_ready,
            on_worker_exit=partial(forget_worker, environment),
            worker_env=environment,
        )
        run(source, options, hooks)
