"""The bounds of a connection, and what is said of those that crossed them."""

import time
from dataclasses import dataclass

import structlog

from secure_cache.model.errors import Malformed, Overloaded, SecureCacheError, TooLarge, TooSlow

_STATUS_LINES = {
    Malformed: b"HTTP/1.1 400 Bad Request\r\n",
    TooSlow: b"HTTP/1.1 408 Request Timeout\r\n",
    TooLarge: b"HTTP/1.1 431 Request Header Fields Too Large\r\n",
    Overloaded: b"HTTP/1.1 503 Service Unavailable\r\n",
}


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The bounds of every connection of one process; `connection` has the table.

    Attributes:
        max_header_bytes: of request line and headers together.
        max_headers: of one request.
        header_seconds: from the first byte of a request (or from accept) to its last header.
        max_pipelined: requests that wait behind the one at work.
        max_connections: open at once in this process.
        min_bytes_per_second: the slowest client, up or down.
        body_grace_seconds: how far a body may fall behind that rate. Longer than the
            application's own grace, whose answer says more.
        send_grace_seconds: the same for a client that reads slowly.
        linger_bytes: how much is forgotten after a refusal, or after an early answer.
        linger_seconds: for how long.
        parting_seconds: how long an idle connection stays when the server leaves. A client that
            sends meanwhile is answered, and told that this was the last answer.
    """

    max_header_bytes: int = 32768
    max_headers: int = 100
    header_seconds: float = 10.0
    max_pipelined: int = 8
    max_connections: int = 10_000
    min_bytes_per_second: float = 8192.0
    body_grace_seconds: float = 13.0
    send_grace_seconds: float = 30.0
    linger_bytes: int = 1 << 20
    linger_seconds: float = 2.0
    parting_seconds: float = 0.5


def refusal(error: SecureCacheError) -> bytes:
    """The whole answer to a client that crossed a bound. The error's text is a constant of ours."""
    line = f"{error}\n".encode("ascii")
    head = b"content-type: text/plain\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
    return _STATUS_LINES[type(error)] + head % len(line) + line


class RefusalLog:
    """At most one line a second: a flood of malformed requests must not become one of logs."""

    def __init__(self) -> None:
        self._log = structlog.get_logger("secure_cache.http")
        self._next = 0.0
        self._unsaid = 0

    def say(self, error: SecureCacheError, client: tuple[str, int] | None) -> None:
        now = time.monotonic()
        if now < self._next:
            self._unsaid += 1
            return
        self._log.info(
            "connection.refused",
            code=error.code,
            why=str(error),
            client=client[0] if client else None,
            more_unsaid=self._unsaid,
        )
        self._next, self._unsaid = now + 1.0, 0
