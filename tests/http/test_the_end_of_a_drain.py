"""Requests that the end of a drain cuts, at a whole server."""

import signal
import socket
import subprocess

import pytest
from fakes.edge import read_all, read_answer, status_of
from world.server import Server

MIB = 1 << 20


@pytest.fixture
def server(tmp_path):
    running = Server(
        tmp_path / "server", environment={"SECURE_CACHE_SERVER__DRAIN_SECONDS": "0.2"}
    ).start()
    yield running
    running.remove()


def test_an_upload_that_is_cut_is_told_so_without_a_reset(server):
    """The process ended at once, and with it the connection: the client lost its answer, sent all
    of it again to nobody, and failed the build."""
    head = (
        "PUT /v1/cache/1 HTTP/1.1\r\nHost: a\r\n"
        f"Authorization: Bearer {server.token()}\r\nContent-Length: {4 * MIB}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(head.encode() + bytes(2 * MIB))
        server.process.send_signal(signal.SIGTERM)
        answer = read_answer(client)
        assert status_of(answer) == 403
        assert b"\r\nconnection: close\r\n" in answer
        # Long over, if it did not wait for what is still to come.
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(timeout=0.4)
        client.sendall(bytes(2 * MIB))
        assert read_all(client) == b""
    assert server.process.wait(timeout=20) == 0

    events = server.events()
    assert [e["outcome"] for e in events if e["event"] == "request"] == ["failed"]
    # That it is cut is expected, and no defect.
    assert [
        e for e in events if e.get("library") == "uvicorn.error" and "ASGI" in e["message"]
    ] == []
    assert "Traceback" not in server.logs()
