"""The HTTP connection: uvicorn's httptools protocol with the bounds that it lacks.

uvicorn by itself waits forever for headers and bodies, takes any number and size of headers,
queues any number of pipelined requests, appends trailers to the headers of a request at work,
loses the body of a request that asks for an upgrade (and reads it as the next request), answers
an error in the middle of another response, and never gives up on a client that does not read.

What each connection may do here:

| what | bound | beyond it |
|---|---|---|
| request line and headers | 32 KiB, 100 headers, 10 s from first byte or accept | 431, 408 |
| the head | `request_head.check_head` | 400 |
| trailers; an upgrade with a body | none | 400 |
| body | a minimum rate (the application's own, better explained bounds come first) | 408 |
| requests waiting behind one at work | 8 | 400 after their answers |
| idle between requests | `timeout_keep_alive`; 0.5 s when the server leaves | closed |
| rest of a body after its answer | 1 MiB, 2 s | closed |
| a client that does not read | a minimum rate | reset |
| connections of this process | 10 000 | the longest idle one is closed; if none is, 503 |

A refusal is one constant line of `text/plain` with `Connection: close`. It is never written
into or before another request's answer: a proxy in front would hand it to the wrong client.
After it the socket is half-closed and what still comes is forgotten within bounds, because
closing at once would reset the connection and lose the refusal. WebSockets do not exist here.

Nor is an idle connection closed over a request that nobody read yet, and a server that leaves
says so in an answer where it can: one reset fails a build.
"""

import asyncio
import enum
from typing import Any, ClassVar

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from secure_cache.http.connection_limits import ConnectionLimits, RefusalLog, refusal
from secure_cache.http.patience import Patience
from secure_cache.http.request_head import check_head, has_body
from secure_cache.http.timers import Timers
from secure_cache.http.unread import holds_unread
from secure_cache.model.errors import Malformed, Overloaded, SecureCacheError, TooLarge, TooSlow


class _Phase(enum.Enum):
    """Where in the stream of requests the reader stands."""

    BETWEEN = enum.auto()
    HEAD = enum.auto()
    BODY = enum.auto()


class HardenedProtocol(HttpToolsProtocol):
    """One connection. Made by uvicorn; see `hardened`."""

    limits: ClassVar[ConnectionLimits]
    idle: ClassVar[dict["HardenedProtocol", None]]
    refusals: ClassVar[RefusalLog]
    leaving: ClassVar[bool]

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._phase = _Phase.BETWEEN
        self._head_bytes = 0
        self._head_fed = 0
        self._ended_one = False
        self._timers = Timers(self.loop)
        self._running: RequestResponseCycle | None = None
        self._owed: SecureCacheError | None = None
        self._deaf = False
        self._forgotten = 0
        self._leaving = False
        self._half_closed = False
        self._body_patience = self._patience(self.limits.body_grace_seconds)
        self._body_seen = 0.0
        self._send_patience = self._patience(self.limits.send_grace_seconds)
        self._send_paused = (0.0, 0)

    def _patience(self, grace_seconds: float) -> Patience:
        return Patience(
            grace_seconds=grace_seconds, bytes_per_second=self.limits.min_bytes_per_second
        )

    # ---- the connection's life

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._timers.arm("head", self.limits.header_seconds, self._head_is_late)
        if self.leaving:
            # The kernel had accepted it when the port closed. A busy client would keep it open,
            # and with it the process, until the drain ends and cuts a request.
            self.shutdown()
        elif len(self.connections) > self.limits.max_connections:
            quiet = next((other for other in self.idle if not holds_unread(other.transport)), None)
            if quiet is not None:
                # A clean close of an idle connection costs its client nothing but a new one.
                quiet.timeout_keep_alive_handler()
            else:
                self._refuse(Overloaded("too many connections"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.idle.pop(self, None)
        # uvicorn leaves it armed after a reset, and with it keeps all of this for two minutes.
        self._unset_keepalive_if_required()
        self._timers.disarm_all()
        self.pipeline.clear()
        self._disconnect_running()
        super().connection_lost(exc)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """A client may close its sending side and still wait for the answer (RFC 9112, 9.6)."""
        self._half_closed = True
        if self._deaf and not self._is_busy():
            return None
        if self._phase is not _Phase.BETWEEN and not self._deaf:
            self._refuse(Malformed("the request ended early"))
        elif self._is_busy():
            self.cycle.keep_alive = False
        else:
            return None
        return True

    @classmethod
    def leave(cls) -> None:
        """The port closes: a connection that is made from now on has one request at most."""
        cls.leaving = True

    def shutdown(self) -> None:
        """The server is leaving: finish what is open, then close."""
        self._leaving = True
        if self._is_busy():
            # An answer that has begun can no longer say that it is the last.
            self.cycle.keep_alive &= self.cycle.response_started
        elif self._phase is _Phase.BETWEEN and "head" in self._timers:
            # Accepted a moment ago, and its first request is on the way.
            self._timers.arm("head", min(1.0, self.limits.header_seconds), self._head_is_late)
        elif self._phase is _Phase.BETWEEN and not self._deaf:
            self._part()

    def _part(self) -> None:
        """Who sends soon hears of the end in the answer; who is silent is closed."""
        self._timers.arm("part", self.limits.parting_seconds, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        if self._phase is not _Phase.BETWEEN or self._is_busy():
            return
        if holds_unread(self.transport):
            self._timers.arm("part", 0.05, self.timeout_keep_alive_handler)
        else:
            self._close()

    # ---- reading

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            self._forget(len(data))
            return
        self._unset_keepalive_if_required()
        self.idle.pop(self, None)
        self._ended_one = False
        if self._phase is _Phase.BETWEEN:
            self._phase = _Phase.HEAD
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # Nobody here changes the protocol: what follows is not for us.
            self._deaf = True
        except httptools.HttpParserError as error:
            cause = error.__context__
            if not isinstance(cause, Malformed | TooLarge):
                cause = Malformed("not a well-formed HTTP/1.1 request")
            self._refuse(cause)
            return
        self._after_feeding(len(data))

    def _after_feeding(self, size: int) -> None:
        if self._phase is _Phase.HEAD:
            # What the parser holds of an unfinished header has not passed `on_header` yet.
            self._head_fed = 0 if self._ended_one else self._head_fed + size
            if self._head_fed > self.limits.max_header_bytes:
                self._refuse(TooLarge("the request's headers are too large"))
            elif "head" not in self._timers:
                self._timers.arm("head", self.limits.header_seconds, self._head_is_late)
        elif self._phase is _Phase.BODY:
            self._body_arrived(size)

    def on_message_begin(self) -> None:
        self._phase = _Phase.HEAD
        self._head_bytes = 0
        self._unset_keepalive_if_required()
        self.idle.pop(self, None)
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._phase is not _Phase.HEAD:
            # uvicorn would append it to the headers of the request that is at work.
            raise Malformed("trailers are not accepted")
        self._count_head(len(name) + len(value) + 4)
        if len(self.headers) >= self.limits.max_headers:
            raise TooLarge("too many headers")
        super().on_header(name, value)

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self.limits.max_header_bytes:
            raise TooLarge("the request's headers are too large")

    def on_headers_complete(self) -> None:
        self._timers.disarm("head")
        check_head(
            version=self.parser.get_http_version(),
            method=self.parser.get_method().decode(),
            target=self.url,
            headers=self.headers,
        )
        upgrade = self.parser.should_upgrade()
        if upgrade and has_body(self.headers):
            # The parser would take the body for the other protocol, and then for a request.
            raise Malformed("an upgrade is not possible here: send the body without one")
        if self._is_busy() and len(self.pipeline) >= self.limits.max_pipelined:
            raise Malformed("too many requests sent ahead on one connection")
        super().on_headers_complete()
        if upgrade or self._leaving:
            self.cycle.keep_alive = False
        self._phase = _Phase.BODY
        self._body_patience = self._patience(self.limits.body_grace_seconds)
        self._body_seen = self.loop.time()

    def on_message_complete(self) -> None:
        self._phase = _Phase.BETWEEN
        self._ended_one = True
        self._head_fed = 0
        self._timers.disarm("body")
        super().on_message_complete()
        if not self.cycle.keep_alive:
            self._deaf = True
        if "rest" in self._timers:
            self._timers.disarm("rest")
            self._rest()

    def _body_arrived(self, size: int) -> None:
        if "rest" in self._timers:
            self._forget(size)
            return
        now = self.loop.time()
        self._body_patience.spend(now - self._body_seen)
        self._body_patience.earn(size)
        self._body_seen = now
        if "body" not in self._timers:
            self._timers.arm("body", self._body_patience.left_seconds, self._body_may_be_late)

    def _body_may_be_late(self) -> None:
        now = self.loop.time()
        if self.flow.read_paused:
            # It is we who do not read: the client is not late.
            self._body_seen = now
        left = self._body_patience.left_seconds - (now - self._body_seen)
        if left > 0:
            self._timers.arm("body", max(left, 0.05), self._body_may_be_late)
        else:
            self._refuse(TooSlow("the body arrived too slowly"))

    def _head_is_late(self) -> None:
        if self._is_busy():
            # We may have stopped reading ourselves until the request at work is answered.
            self._timers.arm("head", self.limits.header_seconds, self._head_is_late)
        elif self._phase is _Phase.BETWEEN:
            self._close()
        else:
            self._refuse(TooSlow("the request's headers arrived too slowly"))

    def _forget(self, size: int) -> None:
        self._forgotten += size
        if self._forgotten > self.limits.linger_bytes and not self._is_busy():
            self._close()

    # ---- answering

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _is_busy(self) -> bool:
        return self._running is not None and not self._running.response_complete

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._close()
        elif not self._is_busy():
            self._rest()

    def _rest(self) -> None:
        """Nothing is at work: what is next for this connection?"""
        self._unset_keepalive_if_required()
        if self._owed is not None:
            self._write_refusal(self._owed)
        elif self._deaf:
            self._close()
        elif self._leaving and self._phase is _Phase.BETWEEN:
            self._part()
        elif self._phase is _Phase.BODY:
            self._timers.disarm("body")
            self._forgotten = 0
            self._timers.arm("rest", self.limits.linger_seconds, self._close)
        elif self._phase is _Phase.BETWEEN:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
            self.idle[self] = None

    def _refuse(self, error: SecureCacheError) -> None:
        """Hear nothing more of this client, and tell it why as soon as that is its turn."""
        self.refusals.say(error, self.client)
        self._deaf = True
        self._timers.disarm("head")
        self._timers.disarm("body")
        if self._phase is _Phase.BODY and not self._give_up_body():
            self._close()
        elif self._is_busy():
            self._owed = error
        else:
            self._write_refusal(error)

    def _give_up_body(self) -> bool:
        """The newest request's own body is broken or late. Whether it may still be answered."""
        if self.pipeline:
            self.pipeline.popleft()
            return True
        answered = self.cycle.response_started
        self._disconnect_running()
        return not answered

    def _disconnect_running(self) -> None:
        """Tell the application that its client is gone; uvicorn tells only the newest one."""
        running, self._running = self._running, None
        if running is not None and not running.response_complete:
            running.disconnected = True
            running.message_event.set()

    def _write_refusal(self, error: SecureCacheError) -> None:
        self._deaf = True
        self._owed = None
        self._unset_keepalive_if_required()
        self.transport.write(refusal(error))
        if self._half_closed or not self.transport.can_write_eof():
            self._close()
            return
        self.transport.write_eof()
        self._timers.arm("linger", self.limits.linger_seconds, self._close)

    # ---- writing

    def pause_writing(self) -> None:
        super().pause_writing()
        waiting = self.transport.get_write_buffer_size()
        self._send_paused = (self.loop.time(), waiting)
        allowed = self._send_patience.left_seconds + self._send_patience.worth_seconds(waiting)
        self._timers.arm("send", allowed, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._timers.disarm("send")
        since, waiting = self._send_paused
        self._send_patience.spend(self.loop.time() - since)
        self._send_patience.earn(waiting)

    def _close(self) -> None:
        """Close once everything written has gone out; give up on a client that does not read."""
        self.idle.pop(self, None)
        self.transport.close()
        if self.transport.get_write_buffer_size() and "give up" not in self._timers:
            self._timers.arm("give up", self.limits.send_grace_seconds, self.transport.abort)


def hardened(limits: ConnectionLimits) -> type[HardenedProtocol]:
    """The protocol class of one process, with its own bounds and its own list of the idle."""

    class Bounded(HardenedProtocol):
        pass

    Bounded.limits = limits
    Bounded.idle = {}
    Bounded.leaving = False
    Bounded.refusals = RefusalLog()
    return Bounded
