"""Several worker processes over one listening socket.

Each worker is a fresh interpreter that runs `worker.main` and inherits the socket and one end of
a socket pair. Over the pair the parent says what to serve, and the worker
says `ready`, or in one line why it can not. Nothing is pickled, and `__main__` is not imported
again.

- A worker that dies is started again, after a pause that grows while it keeps dying young.
- A worker that cannot start at first (settings, store) ends the whole start with its reason.
- SIGTERM or SIGINT: all workers drain, the parent exits with 0. What has not ended in time, or
  at a second signal, is killed.
- The parent is killed: each worker sees its end of the pair close, drains and exits. Without
  that, orphans would keep the port and serve old settings for ever.
"""

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from secure_cache.http.server import (
    AppSource,
    ServerOptions,
    Worker,
    listen,
    longest_end_seconds,
    raise_open_files,
    serve,
    url_of,
)
from secure_cache.model.errors import (
    Broken,
    Misconfigured,
    Refused,
    SecureCacheError,
    StorageForbidden,
    Unavailable,
)

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 30.0
OLD_SECONDS = 30.0
"""A worker that lived so long did not die of what it was born with."""

MAX_REPORT_BYTES = 65_536

_ROOT = str(Path(__file__).resolve().parents[2])
"""Where this very package was imported from, so that parent and workers are one version."""

_BOOTSTRAP = (
    "import sys; sys.path.append(sys.argv[1]);"
    "from secure_cache.http.worker import main; sys.exit(main(sys.argv[2:]))"
)


def _nothing(_pid: int) -> None:
    """For callers that keep nothing by process."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the caller of `run` wants to know and to say.

    Attributes:
        on_ready: called once with the address, when every worker answers.
        on_worker_exit: called with the pid of each worker that ended.
        worker_env: added to the environment of each worker.
    """

    on_ready: Callable[[str], None]
    on_worker_exit: Callable[[int], None] = _nothing
    worker_env: Mapping[str, str] = field(default_factory=dict)


def run(source: AppSource, options: ServerOptions, hooks: Hooks) -> None:
    """Serve until SIGTERM or SIGINT and the end of the drain. With one worker, in this process.

    Raises:
        Misconfigured: the address can not be used, or a worker said so at its start.
        SecureCacheError: a worker could not start for another reason of ours.
    """
    raise_open_files(options)
    listener = listen(options)
    url = url_of(listener)
    if options.workers == 1:
        serve(source, options, listener, Worker(), lambda: hooks.on_ready(url))
        return
    with listener:
        _Supervisor(source, options, hooks, listener).run(url)


@dataclass(slots=True)
class _Process:
    """One worker as the parent sees it."""

    index: int
    popen: subprocess.Popen[bytes]
    channel: socket.socket
    born: float
    ready: bool = False
    report: bytes = b""


class _Supervisor:
    def __init__(
        self, source: AppSource, options: ServerOptions, hooks: Hooks, listener: socket.socket
    ) -> None:
        self._source = source
        self._options = options
        self._hooks = hooks
        self._listener = listener
        self._workers: dict[int, _Process] = {}
        self._due: dict[int, float] = {}
        self._pause: dict[int, float] = {}
        self._signals = 0
        self._selector = selectors.DefaultSelector()
        self._log = structlog.get_logger("secure_cache.http")

    def run(self, url: str) -> None:
        wake, woken = socket.socketpair()
        wake.settimeout(0)
        woken.settimeout(0)
        self._selector.register(woken, selectors.EVENT_READ)
        previous_fd = signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        previous = {
            name: signal.signal(name, self._signalled) for name in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            self._serve(url)
        finally:
            self._end()
            signal.set_wakeup_fd(previous_fd)
            for name, handler in previous.items():
                signal.signal(name, handler)
            self._selector.close()
            wake.close()
            woken.close()

    def _signalled(self, _number: int, _frame: object) -> None:
        self._signals += 1

    def _serve(self, url: str) -> None:
        for index in range(self._options.workers):
            try:
                self._start(index)
            except OSError as error:
                raise Unavailable(f"worker {index} cannot be started: {error.strerror}") from error
        announced = False
        while not self._signals:
            self._wait(self._until_due())
            for index in [index for index, due in self._due.items() if due <= time.monotonic()]:
                self._start_again(index)
            self._reap(starting=not announced)
            if not announced and all(worker.ready for worker in self._workers.values()):
                announced = True
                self._hooks.on_ready(url)

    def _start_again(self, index: int) -> None:
        """A machine that is out of processes, memory or files for a moment must not end those
        workers that still serve."""
        del self._due[index]
        try:
            self._start(index)
        except OSError as error:
            self._log.error("server.worker_not_started", worker=index, why=error.strerror)
            self._due[index] = time.monotonic() + self._next_pause(index)

    def _start(self, index: int) -> None:
        """Raises: OSError."""
        ours, theirs = socket.socketpair()
        fds = (theirs.fileno(), self._listener.fileno())
        # -P: a file in the current folder must not become a module of the server.
        command = [sys.executable, "-P", "-c", _BOOTSTRAP, _ROOT, *map(str, fds)]
        try:
            with theirs:
                popen = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                    command,
                    pass_fds=fds,
                    stdin=subprocess.DEVNULL,
                    # Ctrl-C reaches the parent only, which then asks each worker once.
                    process_group=0,
                    env={**os.environ, **self._hooks.worker_env},
                )
        except BaseException:
            ours.close()
            raise
        orders = {
            "factory": self._source.factory,
            "argument": self._source.argument,
            "options": self._options.to_json(),
            "index": index,
        }
        # One that is dead already is met by `_reap`.
        with suppress(BrokenPipeError, ConnectionResetError):
            ours.sendall(json.dumps(orders).encode() + b"\n")
        ours.settimeout(0)
        worker = _Process(index, popen, ours, time.monotonic())
        self._workers[index] = worker
        self._selector.register(ours, selectors.EVENT_READ, worker)

    def _until_due(self) -> float | None:
        if not self._due:
            return None
        return max(0.0, min(self._due.values()) - time.monotonic())

    def _wait(self, seconds: float | None) -> None:
        for key, _ in self._selector.select(seconds):
            channel = key.fileobj
            if not isinstance(channel, socket.socket):
                continue
            try:
                said = channel.recv(MAX_REPORT_BYTES)
            except (BlockingIOError, ConnectionResetError):
                said = b""
            worker: _Process | None = key.data
            if worker is not None:
                worker.report = (worker.report + said)[:MAX_REPORT_BYTES]
                worker.ready = worker.ready or worker.report.startswith(b"ready\n")
                if not said:
                    self._selector.unregister(channel)
                    worker.popen.wait()

    def _reap(self, *, starting: bool) -> None:
        for worker in list(self._workers.values()):
            code = worker.popen.poll()
            if code is None:
                continue
            self._forget(worker)
            why = _why(worker, code)
            if starting:
                raise why
            self._log.error(
                "server.worker_died",
                worker=worker.index,
                exit_code=code,
                why=None if worker.ready else str(why),
            )
            if time.monotonic() - worker.born > OLD_SECONDS:
                self._pause.pop(worker.index, None)
            self._due[worker.index] = time.monotonic() + self._next_pause(worker.index)

    def _next_pause(self, index: int) -> float:
        pause = self._pause.get(index, FIRST_PAUSE_SECONDS)
        self._pause[index] = min(2 * pause, LONGEST_PAUSE_SECONDS)
        return pause

    def _forget(self, worker: _Process) -> None:
        del self._workers[worker.index]
        if worker.channel.fileno() in self._selector.get_map():
            self._selector.unregister(worker.channel)
        worker.channel.close()
        self._hooks.on_worker_exit(worker.popen.pid)

    def _end(self) -> None:
        self._signals = min(self._signals, 1)
        # Open here, the kernel would go on queueing connections that nobody will accept.
        self._listener.close()
        for worker in self._workers.values():
            worker.popen.terminate()
        end = time.monotonic() + longest_end_seconds(self._options)
        for worker in list(self._workers.values()):
            while worker.popen.poll() is None and time.monotonic() < end and self._signals <= 1:
                time.sleep(0.02)
            if worker.popen.poll() is None:
                self._log.error("server.worker_killed", worker=worker.index)
                worker.popen.kill()
                worker.popen.wait()
            self._forget(worker)


def _why(worker: _Process, code: int) -> SecureCacheError:
    """The reason that a worker gave for not starting, as an error of the same branch."""
    try:
        report = json.loads(worker.report)
    except ValueError:
        return Misconfigured(
            f"worker {worker.index} ended with code {code} before it was ready:"
            " see what it said above"
        )
    for kind in (Misconfigured, Unavailable, StorageForbidden, Broken, Refused):
        if kind.code in report["codes"]:
            return kind(report["text"])
    return SecureCacheError(report["text"])
