"""One worker process of `supervisor`.

Its two arguments are inherited file descriptors, the channel and the listener. The first line
on the channel says what to serve; `ready`, or one JSON object that says why not, goes back. The
channel closing means that the parent is gone.
"""

import json
import os
import signal
import socket
import threading
import time
from contextlib import suppress

from secure_cache.http.server import AppSource, ServerOptions, Worker, longest_end_seconds, serve
from secure_cache.model.errors import InvalidPolicy, SecureCacheError

FAILED = 3


def main(arguments: list[str]) -> int:
    channel, listener = (socket.socket(fileno=int(text)) for text in arguments)
    with channel.makefile("rb") as lines:
        line = lines.readline()
    if not line:
        return FAILED
    orders = json.loads(line)
    options = ServerOptions.from_json(orders["options"])
    _leave_with_parent(channel, longest_end_seconds(options))
    source = AppSource(factory=orders["factory"], argument=orders["argument"])
    worker = Worker(index=orders["index"], count=options.workers)
    try:
        serve(source, options, listener, worker, lambda: channel.sendall(b"ready\n"))
    except SecureCacheError as error:
        channel.sendall(json.dumps(_report(error)).encode())
        return FAILED
    return 0


def _report(error: SecureCacheError) -> dict[str, object]:
    findings = error.findings if isinstance(error, InvalidPolicy) else ()
    codes = [kind.code for kind in type(error).__mro__ if issubclass(kind, SecureCacheError)]
    return {"codes": codes, "text": "\n".join(map(str, (error, *findings)))}


def _leave_with_parent(channel: socket.socket, patience_seconds: float) -> None:
    """Drain when the parent is gone. A thread, because a stuck event loop would not notice."""

    def watch() -> None:
        # Reset: the parent was killed before it had read that we are ready.
        with suppress(ConnectionResetError):
            while channel.recv(1):
                pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(patience_seconds)
        os._exit(FAILED)

    threading.Thread(target=watch, name="leave-with-parent", daemon=True).start()
