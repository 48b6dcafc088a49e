"""An HTTP proxy on loopback that does to chosen requests what networks and stores do.

    with FaultProxy(azurite.port) as proxy:
        connection_string = azurite.connection_string_at(proxy.port)
        proxy.when(LoseAnswer(), method="PUT", comp="blocklist", times=1)
        ...
        assert proxy.count(comp="blocklist") == 2

It runs in a thread of its own, so that the test and other processes can talk through it. In front
of a TLS server it speaks TLS on both sides, with that server's certificate. Azure's shared-key
signature covers the path and not the host, so that the requests stay valid.
"""

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, NoReturn, Self

from world.http_stream import ClosedError, LostError, Pieces, body_of, cut, flipped, headers_in
from world.tls import Certificate
from world.wire_faults import (
    Action,
    Answer,
    CutAnswer,
    Delay,
    FlipRequestBit,
    FlipResponseBit,
    Hang,
    Hold,
    LoseAnswer,
    Match,
    Reset,
    Rule,
    Seen,
    Slow,
    read_head,
)

_HEAD_LIMIT = 1 << 20


@dataclass(frozen=True)
class _Link:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """RST: whoever is on the other side sees the connection break."""
        with contextlib.suppress(OSError, AttributeError):
            self.writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
        self.writer.transport.abort()


class FaultProxy:
    """See the module. `requests` are all that came; rules are asked in the order of `when`."""

    def __init__(
        self, upstream_port: int, *, certificate: Certificate | None = None, seed: int = 0
    ):
        self.upstream_port = upstream_port
        self.port = 0
        self.requests: list[Seen] = []
        self.latency = 0.0
        """Seconds that every request waits before it goes on."""
        self._certificate = certificate
        self._random = random.Random(seed)
        self._rules: list[Rule] = []
        self._lock = threading.Lock()
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Self:
        self._thread.start()
        self.accept()
        return self

    def stop(self) -> None:
        if self._loop.is_closed():
            return
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # what a test tells it

    def when(
        self,
        action: Action,
        *,
        method: str | None = None,
        comp: str | None = None,
        path: str | None = None,
        where: Callable[[Seen], bool] | None = None,
        times: int | None = None,
        skip: int = 0,
        chance: float = 1.0,
    ) -> Rule:
        """Do this to the requests that match (see `Match`): after the first `skip` of them, at
        most `times`, each with this chance. The first rule that applies decides."""
        rule = Rule(action, Match(method, comp, path, where), times=times, skip=skip, chance=chance)
        with self._lock:
            self._rules.append(rule)
        return rule

    def clear(self) -> None:
        """Forget the rules and the requests; what is under way goes on."""
        with self._lock:
            for rule in self._rules:
                rule.release()
            self._rules.clear()
            self.requests.clear()

    def refuse(self) -> None:
        """Connection refused from now on, and every open connection breaks."""
        self._call(self._close_listener())
        self.sever()

    def accept(self) -> None:
        """Listen, on the same port as ever."""
        self._call(self._listen())

    def sever(self) -> None:
        """Break every open connection now."""
        self._call(self._reset_all())

    # what a test asks it

    def seen(
        self,
        *,
        method: str | None = None,
        comp: str | None = None,
        path: str | None = None,
        where: Callable[[Seen], bool] | None = None,
    ) -> list[Seen]:
        """The requests that match, in the order of their coming."""
        match = Match(method, comp, path, where)
        with self._lock:
            return [item for item in self.requests if match.fits(item)]

    def count(self, **match: Any) -> int:
        return len(self.seen(**match))

    # the thread's side

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _listen(self) -> None:
        if self._listener is None:
            self._listener = await asyncio.start_server(
                self._accepted,
                "127.0.0.1",
                self.port,
                limit=_HEAD_LIMIT,
                ssl=self._certificate.server_context() if self._certificate else None,
            )
            self.port = self._listener.sockets[0].getsockname()[1]

    async def _close_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            # A connection that the kernel had accepted becomes one of ours at the next turn.
            await asyncio.sleep(0.01)

    async def _reset_all(self) -> None:
        for link in list(self._links):
            link.reset()

    async def _end(self) -> None:
        await self._close_listener()
        await self._reset_all()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.get_running_loop().shutdown_asyncgens()
        # The transports close at the next turn of the loop.
        await asyncio.sleep(0.01)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Known before it runs for the first time: a task that is cancelled before that never
        # comes to its `finally`.
        client = self._link(reader, writer)
        task = self._loop.create_task(self._serve(client))
        self._tasks.add(task)
        task.add_done_callback(lambda _: self._forget_client(task, client))

    def _forget_client(self, task: asyncio.Task[None], client: _Link) -> None:
        self._tasks.discard(task)
        self._links.discard(client)
        client.writer.close()

    async def _serve(self, client: _Link) -> None:
        connection = _Connection(self, client)
        try:
            while await connection.exchange():
                pass
        except ClosedError:
            pass
        except (LostError, OSError, asyncio.IncompleteReadError):
            client.reset()
        except asyncio.CancelledError:
            # The proxy ends. To be cancelled is not a fault here, and asyncio would log it.
            client.reset()
        finally:
            connection.close()

    def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> _Link:
        # drain() then waits until the kernel has all of it. At 0 asyncio's TLS would never resume.
        writer.transport.set_write_buffer_limits(high=1, low=0)
        link = _Link(reader, writer)
        self._links.add(link)
        return link

    async def connect(self) -> _Link:
        context = None
        if self._certificate is not None:
            context = self._certificate.client_context()
        return self._link(
            *await asyncio.open_connection(
                "127.0.0.1", self.upstream_port, limit=_HEAD_LIMIT, ssl=context
            )
        )

    def forget(self, link: _Link) -> None:
        self._links.discard(link)

    def note(self, head: bytes) -> tuple[Seen, Rule | None]:
        """Record a request, and find the rule that befalls it."""
        with self._lock:
            seen = read_head(head, len(self.requests) + 1)
            self.requests.append(seen)
            for rule in self._rules:
                if rule.applies(seen, self._random):
                    seen.action = rule.action
                    return seen, rule
        return seen, None


class _Connection:
    """One client's connection, and the one to the server behind it."""

    def __init__(self, proxy: FaultProxy, client: _Link):
        self._proxy = proxy
        self._client = client
        self._server: _Link | None = None
        self._last = False

    def close(self) -> None:
        if self._server is not None:
            self._server.reset()
            self._proxy.forget(self._server)
            self._server = None

    async def exchange(self) -> bool:
        """One request and its answer; false when the connection has come to its end."""
        try:
            head = await self._client.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise
            return False
        seen, rule = self._proxy.note(head)
        if rule is not None:
            rule.befell()
        self._last = seen.headers.get("connection", "").lower() == "close"
        await asyncio.sleep(self._proxy.latency)
        if not await self._instead(seen, rule):
            await self._relay(head, seen, rule)
        seen.done = True
        return not self._last

    async def _instead(self, seen: Seen, rule: Rule | None) -> bool:
        """What befalls a request before the server hears of it; true when it never will."""
        action = seen.action
        if isinstance(action, Reset) and action.after_request_bytes is None:
            raise LostError
        if isinstance(action, Hang):
            await asyncio.sleep(action.seconds)
            raise LostError
        if isinstance(action, Delay):
            await asyncio.sleep(action.seconds)
        if isinstance(action, Hold) and not action.answer and rule is not None:
            await rule.released()
        if not isinstance(action, Answer):
            return False
        async for _ in body_of(self._client.reader, seen.headers):
            pass
        lines = [f"HTTP/1.1 {action.status} Told", f"Content-Length: {len(action.body)}"]
        lines += [f"{name}: {value}" for name, value in action.headers.items()]
        body = b"" if seen.method == "HEAD" else action.body
        seen.status = action.status
        await self._client.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        return True

    async def _relay(self, head: bytes, seen: Seen, rule: Rule | None) -> None:
        if self._server is not None and self._server.reader.at_eof():
            self.close()
        if self._server is None:
            self._server = await self._proxy.connect()
        async with contextlib.aclosing(self._ask(self._server, head, seen)) as pieces:
            answer_head = await anext(pieces)
            if isinstance(seen.action, LoseAnswer):
                async for _ in pieces:
                    pass
                raise LostError
            if isinstance(seen.action, Hold) and seen.action.answer and rule is not None:
                await rule.released()
            seen.status = seen.server_status
            await self._client.send(answer_head)
            async for piece in pieces:
                await self._client.send(piece)

    async def _ask(self, server: _Link, head: bytes, seen: Seen) -> AsyncGenerator[bytes, None]:
        """Send the request on. The answer's head comes first, then its body piece by piece."""
        # Beside each other: a server may answer before it has read the whole request.
        sending = asyncio.ensure_future(self._send(server, head, seen))
        receiving = asyncio.ensure_future(server.reader.readuntil(b"\r\n\r\n"))
        try:
            await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                # A server that has answered may hang up on the rest of the request.
                with contextlib.suppress(OSError):
                    sending.result()
            answer = await receiving
            seen.server_status = int(answer.split(b" ", 2)[1])
            yield answer
            async for piece in self._answer_body(server, answer, seen):
                yield piece
            # What it never read would be taken for the next request.
            self._last = self._last or not sending.done()
        finally:
            sending.cancel()
            receiving.cancel()
            await asyncio.gather(sending, receiving, return_exceptions=True)

    async def _send(self, server: _Link, head: bytes, seen: Seen) -> None:
        action = seen.action
        await server.send(head)
        rate = action.bytes_per_second if isinstance(action, Slow) else None
        body = body_of(self._client.reader, seen.headers, rate)
        if isinstance(action, Reset):
            await self._send_and_reset(server, body, action.after_request_bytes or 0)
        flip = action.at if isinstance(action, FlipRequestBit) else None
        async for piece in flipped(body, flip):
            await server.send(piece)

    async def _send_and_reset(self, server: _Link, body: Pieces, count: int) -> NoReturn:
        async for piece in cut(body, count):
            await server.send(piece)
        raise LostError

    async def _answer_body(
        self, server: _Link, head: bytes, seen: Seen
    ) -> AsyncGenerator[bytes, None]:
        action = seen.action
        headers = headers_in(head)
        bodiless = seen.method == "HEAD" or seen.server_status in (204, 304)
        until_close = not headers.keys() & {"content-length", "transfer-encoding"}
        closes = headers.get("connection", "").lower() == "close"
        self._last = self._last or closes or (until_close and not bodiless)
        if bodiless:
            return
        rate = action.bytes_per_second if isinstance(action, Slow) else None
        body = body_of(server.reader, headers, rate, until_close=until_close)
        if not isinstance(action, CutAnswer):
            flip = action.at if isinstance(action, FlipResponseBit) else None
            async for piece in flipped(body, flip):
                yield piece
            return
        async for piece in cut(body, action.after):
            yield piece
        # What was sent arrives before the end does.
        await asyncio.sleep(0.02)
        if action.how == "fin":
            raise ClosedError
        if action.how == "stall":
            await asyncio.sleep(action.seconds)
        raise LostError
