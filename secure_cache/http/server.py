"""One process that serves: uvicorn with our connection, a readiness that goes red first, and a
drain that finishes what is open.

SIGTERM, in this order: `Worker.draining` becomes true (readiness is red); after `notice_seconds`
the port closes; busy connections close after their answer, silent ones soon; what is still open
after `drain_seconds` is cancelled; then the application's lifespan ends. A client that was cut gets
a closed connection, never half an answer with a right length.

`supervisor` runs several of these over one socket.
"""

import asyncio
import contextlib
import importlib
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import anyio
import structlog
import uvicorn
from uvicorn._types import (
    ASGI3Application,
    ASGIReceiveCallable,
    ASGISendCallable,
    ASGISendEvent,
    Scope,
)

from secure_cache.http.connection import hardened
from secure_cache.http.connection_limits import ConnectionLimits
from secure_cache.model.errors import Misconfigured, SecureCacheError

SPARE_FILES = 1024
"""Open files that a worker needs beside its connections: artifacts, spool, store, keys."""

KILL_AFTER_SECONDS = 5.0
"""Beyond notice and drain: what a worker gets for its lifespan to end."""

LAST_WORDS_SECONDS = 2.5
"""Of these: what a request that was cut gets to tell its client. Longer than the application's own
bound, which is `nx._PARTING_SECONDS`."""


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How to serve.

    Attributes:
        host: address or name to listen on.
        port: 0 picks a free one.
        workers: processes; 1 serves in this one.
        backlog: connections that the kernel queues; one Nx 24 run opens 300 at once.
        keep_alive_seconds: an idle connection stays open so long. Nx pools for 90 s: below
            that, a request meets a closing connection and fails the build.
        drain_seconds: what open requests get after SIGTERM.
        notice_seconds: readiness is red so long before the port closes.
        limits: of each connection.
    """

    host: str = "127.0.0.1"
    port: int = 8642
    workers: int = 1
    backlog: int = 4096
    keep_alive_seconds: int = 125
    drain_seconds: float = 30.0
    notice_seconds: float = 0.0
    limits: ConnectionLimits = field(default_factory=ConnectionLimits)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "ServerOptions":
        return cls(**{**document, "limits": ConnectionLimits(**document["limits"])})


def longest_end_seconds(options: ServerOptions) -> float:
    """From SIGTERM to the moment when a worker that still runs is stuck."""
    return options.notice_seconds + options.drain_seconds + KILL_AFTER_SECONDS


@dataclass(slots=True)
class Worker:
    """What an application may know of the process that serves it.

    Attributes:
        index: from 0; 0 does work that only one process need do.
        count: how many processes serve.
        draining: SIGTERM came: readiness is red, and nothing new should begin.
    """

    index: int = 0
    count: int = 1
    draining: bool = False


@dataclass(frozen=True, slots=True)
class AppSource:
    """Where a worker finds its application.

    Attributes:
        factory: `package.module:callable`, called as `callable(argument, worker)`; it gives
            an ASGI 3 application with a lifespan. A name and not an object, because each
            worker is a new process.
        argument: handed over as it is, such as the path of the settings file.
    """

    factory: str
    argument: str

    def build(self, worker: Worker) -> ASGI3Application:
        """Import and call the factory. Raises what the factory raises."""
        module, _, name = self.factory.partition(":")
        factory: Callable[[str, Worker], ASGI3Application]
        factory = getattr(importlib.import_module(module), name)
        return factory(self.argument, worker)


def listen(options: ServerOptions) -> socket.socket:
    """The listening socket, bound but not yet accepting.

    Raises:
        Misconfigured: the address is unknown, not ours, taken, or not allowed.
    """
    where = f"{options.host}:{options.port}"
    try:
        found = socket.getaddrinfo(
            options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Accepted sockets inherit it: an answer's head must not wait for its body's ACK.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            listener.bind(address)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise Misconfigured(
            f"cannot listen on {where}: {error.strerror or error}:"
            " change host or port in [server], or stop what uses it"
        ) from None
    listener.settimeout(0)
    return listener


def url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def raise_open_files(options: ServerOptions) -> None:
    """Lift the limit of open files to what is allowed; warn when connections can exceed it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    wanted = SPARE_FILES + options.limits.max_connections
    if hard != resource.RLIM_INFINITY and hard < wanted:
        structlog.get_logger("secure_cache.http").warning(
            "server.few_open_files",
            limit=hard,
            wanted=wanted,
            advice="raise it (ulimit -n, LimitNOFILE=) or lower server.max_connections",
        )


class _Lifespan:
    """The application, with what its lifespan raised kept for whoever started the server.

    `on_end` is called when the lifespan ends by itself while requests are served. What the
    requests stand on is gone then (to uvicorn it is nothing): only a new process can go on.
    """

    def __init__(self, app: ASGI3Application) -> None:
        self._app = app
        self.on_end: Callable[[], None] = lambda: None
        self._phase: Literal["startup", "shutdown"] = "startup"
        self.failure: BaseException | None = None

    async def __call__(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        if scope["type"] != "lifespan":
            # Cut at the end of a drain, it is no defect; uvicorn would log it as one.
            with contextlib.suppress(asyncio.CancelledError):
                await self._app(scope, receive, send)
            return

        async def say(message: ASGISendEvent) -> None:
            # A framework puts a traceback into `failed`; the failure itself is kept below.
            if message["type"] == "lifespan.startup.complete":
                self._phase = "shutdown"
            if message["type"] not in {"lifespan.startup.failed", "lifespan.shutdown.failed"}:
                await send(message)

        try:
            await self._app(scope, receive, say)
        except Exception as error:  # noqa: BLE001 - kept, and raised again by `serve`
            self.failure = _ours(error)
            if self._phase == "startup":
                await send({"type": "lifespan.startup.failed", "message": ""})
            else:
                structlog.get_logger("secure_cache.http").critical(
                    "server.failed", exc_info=self.failure
                )
                await send({"type": "lifespan.shutdown.failed", "message": ""})
                self.on_end()


def _ours(error: BaseException) -> BaseException:
    """The error of our tree inside the groups that task groups wrap around it, if there."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            found = _ours(inner)
            if isinstance(found, SecureCacheError):
                return found
    return error


class _Server(uvicorn.Server):
    def __init__(
        self,
        config: uvicorn.Config,
        worker: Worker,
        on_ready: Callable[[], None],
        on_leave: Callable[[], None],
        *,
        notice: float,
        drain: float,
    ) -> None:
        super().__init__(config)
        self._worker = worker
        self._on_ready = on_ready
        self._on_leave = on_leave
        self._notice = notice
        self._drain = drain
        self._hurry = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self._leave)
        self._on_ready()

    def _leave(self) -> None:
        if self.should_exit:
            # Asked twice: somebody is waiting.
            self.force_exit = True
            self._hurry.set()
        self._worker.draining = True
        self.should_exit = True

    def abandon(self) -> None:
        """Leave because the application did, unless we are leaving already."""
        if not self.should_exit:
            self._leave()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        with anyio.move_on_after(self._notice):
            await self._hurry.wait()
        self._on_leave()
        loop = asyncio.get_running_loop()
        end = loop.time() + self._drain + LAST_WORDS_SECONDS
        await super().shutdown(sockets)
        if self.server_state.tasks and not self.force_exit:
            # They were cut, and tell it to their clients: were the process to end now, it would
            # reset their connections, and an upload that is reset fails a build.
            await asyncio.wait(tuple(self.server_state.tasks), timeout=max(0.0, end - loop.time()))

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Inherited, it raises SIGTERM again at the end, and so exits with 143 instead of 0."""
        yield


def serve(
    source: AppSource,
    options: ServerOptions,
    listener: socket.socket,
    worker: Worker,
    on_ready: Callable[[], None],
) -> None:
    """Serve in this process, until SIGTERM or SIGINT and the end of the drain.

    Args:
        source: of the application.
        options: `host`, `port` and `workers` were used for the listener and are not read.
        listener: as from `listen`; closed at the end.
        worker: handed to the application's factory.
        on_ready: called once, when requests are answered.

    Raises:
        Exception: what the factory or the lifespan of the application raised.
    """
    app = _Lifespan(source.build(worker))
    protocol = hardened(options.limits)
    config = uvicorn.Config(
        app,
        http=protocol,
        loop="uvloop",
        ws="none",
        lifespan="on",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        # Who the client is must not be a header's word.
        proxy_headers=False,
        backlog=options.backlog,
        timeout_keep_alive=options.keep_alive_seconds,
    )
    # An int for uvicorn's annotation, any number of seconds for the `wait_for` behind it.
    config.timeout_graceful_shutdown = options.drain_seconds  # type: ignore[assignment]
    server = _Server(
        config,
        worker,
        on_ready,
        protocol.leave,
        notice=options.notice_seconds,
        drain=options.drain_seconds,
    )
    app.on_end = server.abandon
    try:
        server.run(sockets=[listener])
    except SystemExit:
        # uvicorn's way to say that the lifespan did not start.
        if app.failure is None:
            raise
    finally:
        listener.close()
    if app.failure is not None:
        raise app.failure
