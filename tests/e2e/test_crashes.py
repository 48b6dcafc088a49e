"""Promise 6: a 200 to a PUT means stored, signed and logged, whatever happens afterwards."""

import random
import socket
import threading
import time

import httpx
import pytest
from world.server import NotReadyError, wait_until

pytestmark = [pytest.mark.every_storage, pytest.mark.timeout(280)]

CLIENTS = 6
ROUNDS = 5


class Load:
    """Clients that upload without pause, and remember what was acknowledged."""

    def __init__(self, server, tokens, seed):
        self.server = server
        self.tokens = tokens
        self.seed = seed
        self.acknowledged: dict[tuple[str, str], bytes] = {}
        self.sent: dict[tuple[str, str], bytes] = {}
        self.unexpected: list[str] = []
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._round = 0

    def start(self):
        self._stop.clear()
        self._round += 1
        self._threads = [
            threading.Thread(target=self._client, args=(number,)) for number in range(CLIENTS)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _client(self, number):
        source = random.Random(f"{self.seed}-{self._round}-{number}")
        token = self.tokens[number % len(self.tokens)]
        with self.server.client(token) as client:
            while not self._stop.is_set():
                name = (token, str(source.getrandbits(63)))
                body = source.randbytes(source.choice([0, 10, 4096, 300_000, 5_000_000]))
                self.sent[name] = body
                try:
                    answer = client.put(f"/v1/cache/{name[1]}", content=body)
                except httpx.TransportError:
                    # The server is gone. Nothing is known of this upload.
                    self._stop.wait(0.05)
                    continue
                if answer.status_code == 200:
                    self.acknowledged[name] = body
                elif answer.status_code != 403:
                    self.unexpected.append(f"{answer.status_code} {answer.text}")


def check(server, load):
    """Every acknowledged upload is there; every other is there whole or not at all."""
    assert load.unexpected == []
    clients = {token: server.client(token) for token in load.tokens}
    for (token, key), body in list(load.sent.items()):
        answer = clients[token].get(f"/v1/cache/{key}")
        if (token, key) in load.acknowledged:
            assert answer.status_code == 200, f"lost: {key} {answer.headers}"
        if answer.status_code == 200:
            assert answer.content == body
        else:
            assert answer.status_code == 404
    for client in clients.values():
        client.close()
    # All that can be read is in the log, and the log began with events of its own.
    wait_until(
        lambda: server.checkpoint()[0] >= len(load.acknowledged),
        "all that was acknowledged in the published log",
    )


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_nothing_acknowledged_is_lost_when_the_server_is_killed_under_load(make_server, workers):
    server = make_server(workers=workers).start()
    source = random.Random(workers)
    load = Load(server, [server.token(branch="main"), server.token(pr=3)], seed=workers)
    size, root = 0, ""
    for _ in range(ROUNDS):
        load.start()
        time.sleep(source.uniform(0.3, 2.0))
        server.kill9()
        load.stop()
        server.start()
        # The log never goes back, and never says two things of one size.
        new_size, new_root = server.checkpoint()
        assert new_size >= size
        assert new_size > size or new_root == root or size == 0
        size, root = new_size, new_root
    assert len(load.acknowledged) > ROUNDS, "the load was too small to show anything"
    check(server, load)
    server.stop()
    done = server.fsck()
    assert done.returncode == 0, done.stderr
    server.start()
    check(server, load)


def test_a_crash_leaves_the_log_as_fsck_wants_it_before_any_restart(make_server):
    """What a crash leaves behind is a state of the protocol and not damage."""
    server = make_server().start()
    load = Load(server, [server.token(branch="main")], seed=77)
    load.start()
    time.sleep(1.0)
    server.kill9()
    load.stop()
    done = server.fsck()
    assert done.returncode == 0, done.stderr


def test_a_stopped_server_ends_with_0_and_loses_nothing(make_server):
    server = make_server(workers=2).start()
    load = Load(server, [server.token(branch="main")], seed=78)
    load.start()
    time.sleep(1.0)
    code = server.stop()
    load.stop()
    assert code == 0, server.logs()
    done = server.fsck()
    assert done.returncode == 0, done.stderr
    server.start()
    check(server, load)


def test_a_revocation_outlives_a_restart(make_server):
    """The other direction: what was taken back stays taken back."""
    server = make_server().start()
    token = server.token(branch="main")
    assert server.put(token, "1", b"x").status_code == 200
    server.stop()
    server.revoke(key="1")
    for _ in range(2):
        server.start()
        assert server.get(token, "1").status_code == 404
        server.stop()
    server.start()
    # The key is free again: a revoked entry blocks nobody.
    assert server.put(token, "1", b"y").status_code == 200
    assert server.get(token, "1").content == b"y"


def test_a_second_server_on_the_same_port_says_why_it_does_not_start(make_server):
    """Instead of taking half of the requests."""
    server = make_server().start()
    second = make_server()
    second.port = server.port
    with pytest.raises(NotReadyError, match=str(server.port)) as refused:
        second.start()
    assert refused.value.code == 2
    assert "Traceback" not in refused.value.logs
    assert server.put(server.token(), "1", b"x").status_code == 200


def test_an_upload_that_outlasts_the_drain_breaks_no_build(make_server):
    """A 500 to a store would be a failed build at every restart of the server."""
    server = make_server()
    server.environment["SECURE_CACHE_SERVER__DRAIN_SECONDS"] = "0.3"
    server.start()
    token = server.token(branch="main")
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(
            b"PUT /v1/cache/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n"
            b"Authorization: Bearer %s\r\n\r\n12345" % token.encode()
        )
        wait_until(
            lambda: (
                "secure_cache_open_uploads 1.0"
                in httpx.get(f"{server.url}/metrics", timeout=60).text
            ),
            "the upload to begin",
        )
        assert server.stop() == 0
        answer = client.recv(4096)
    assert answer.startswith(b"HTTP/1.1 403 ")
    server.start()
    assert server.get(token, "1").status_code == 404
