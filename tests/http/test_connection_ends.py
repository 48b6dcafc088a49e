"""When a connection ends by our will: never over a request that is on its way, and for good."""

import asyncio
import signal
import socket
import struct

import pytest
import uvicorn
import uvloop
from fakes.edge import edge, read_all, read_answer, refuses_connections, status_of, wait_for
from uvicorn.server import ServerState

from secure_cache.http.connection import hardened
from secure_cache.http.connection_limits import ConnectionLimits

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
PATIENT = {"parting_seconds": 20.0}


def leave(server):
    """SIGTERM, and wait until every connection was told."""
    server.process.send_signal(signal.SIGTERM)
    wait_for(lambda: refuses_connections(server))


def test_a_request_that_meets_a_leaving_server_on_a_pooled_connection_is_answered():
    """Nx keeps its connections and repeats no look-up: closed at once, they were a red build."""
    with edge(limits=PATIENT) as server, server.connect() as pooled:
        pooled.sendall(GET)
        assert b"connection: close" not in read_answer(pooled)
        leave(server)
        pooled.sendall(GET)
        answer = read_all(pooled)
        assert status_of(answer) == 200
        assert b"connection: close" in answer
        assert server.process.wait(timeout=20) == 0


def test_so_is_one_behind_an_answer_that_had_begun_before():
    with edge(limits=PATIENT) as server, server.connect() as pooled:
        pooled.sendall(b"GET /big?50 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert status_of(pooled.recv(1000)) == 200
        leave(server)
        size = 0
        while size < (50 << 20) - 1000:
            size += len(pooled.recv(1 << 20))
        pooled.sendall(GET)
        answer = read_all(pooled)
        assert answer.rpartition(b"HTTP/1.1 ")[2].startswith(b"200 ")
        assert b"connection: close" in answer
        assert server.process.wait(timeout=20) == 0


async def answering(scope, receive, send):
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


class InOneLoop:
    """A server in the loop of the test, which so decides what is read when."""

    def __init__(self, **limits):
        self.made = []
        self.lost = asyncio.Event()
        self.state = ServerState()
        bounded, lost = hardened(ConnectionLimits(**limits)), self.lost

        class Watched(bounded):
            def connection_lost(self, exc):
                super().connection_lost(exc)
                lost.set()

        config = uvicorn.Config(
            answering,
            http=Watched,
            ws="none",
            lifespan="off",
            log_config=None,
            timeout_keep_alive=60,
        )
        config.load()
        self._config = config

    def protocol(self):
        made = self._config.http_protocol_class(self._config, self.state, {})
        self.made.append(made)
        return made

    async def connect(self, server):
        """A client whose first request was answered; with the server's end of it."""
        client = socket.create_connection(server.sockets[0].getsockname(), timeout=20)
        client.sendall(GET)
        answer = await asyncio.to_thread(read_answer, client)
        assert status_of(answer) == 200
        return client, self.made[-1]


def run(scenario, **limits):
    async def main():
        world = InOneLoop(**limits)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(world.protocol, "127.0.0.1", 0)
        try:
            await scenario(world, server)
        finally:
            server.close()
            await server.wait_closed()

    uvloop.run(main())


def test_an_idle_connection_is_not_closed_over_a_request_that_was_not_read_yet():
    async def scenario(world, server):
        client, ours = await world.connect(server)
        with client:
            # Since the loop did not turn, it lies in the kernel.
            client.sendall(GET)
            ours.timeout_keep_alive_handler()
            assert status_of(await asyncio.to_thread(read_answer, client)) == 200
            ours.timeout_keep_alive_handler()
            assert await asyncio.to_thread(client.recv, 10) == b""

    run(scenario)


def test_nothing_is_kept_of_an_idle_connection_that_was_reset():
    async def scenario(world, server):
        client, ours = await world.connect(server)
        assert ours.timeout_keep_alive_task is not None
        # Close without the usual farewell.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        await world.lost.wait()
        assert ours.timeout_keep_alive_task is None
        assert ours.idle == {}

    run(scenario)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_silent_connection_does_not_keep_a_leaving_server(workers):
    with edge(workers=workers, drain_seconds=600) as server, server.connect() as pooled:
        pooled.sendall(GET)
        assert status_of(read_answer(pooled)) == 200
        assert server.stop() == 0
        assert pooled.recv(10) == b""
