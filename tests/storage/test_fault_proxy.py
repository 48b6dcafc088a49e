"""The fault proxy does what it says, between a client and a small server that counts."""

import http.server
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
from azure.core.exceptions import ServiceResponseError
from azure.storage.blob import BlobServiceClient
from world import tls
from world.azurite import API_VERSION
from world.fault_proxy import FaultProxy
from world.server import wait_until
from world.wire_faults import (
    Answer,
    CutAnswer,
    Delay,
    FlipRequestBit,
    FlipResponseBit,
    Hang,
    Hold,
    LoseAnswer,
    Pass,
    Reset,
    Slow,
    azure_error,
)

BODY = bytes(range(256)) * 1024


class Echo(http.server.BaseHTTPRequestHandler):
    """PUT keeps and answers the body; GET answers what was put, chunked under /chunked."""

    protocol_version = "HTTP/1.1"

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if len(body) == int(self.headers["Content-Length"]):
            self.server.kept.append(body)
            self._answer(body)

    def do_POST(self):
        body = b""
        while length := int(self.rfile.readline(), 16):
            body += self.rfile.read(length)
            self.rfile.readline()
        self.rfile.readline()
        self.server.kept.append(body)
        self._answer(body)

    def do_GET(self):
        if self.path.startswith("/early"):
            self.close_connection = True
        self._answer(BODY)

    def do_HEAD(self):
        self._answer(BODY)

    def _answer(self, body):
        self.send_response(200)
        if self.path.startswith("/chunked"):
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for start in range(0, len(body), 1000):
                piece = body[start : start + 1000]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
            return
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


def serve(certificate=None):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    server.kept = []
    server.handle_error = lambda *_: None
    if certificate is not None:
        context = certificate.server_context()
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def server():
    yield from serve()


@pytest.fixture
def proxy(server) -> Iterator[FaultProxy]:
    with FaultProxy(server.server_address[1]) as running:
        yield running


@pytest.fixture
def client(proxy) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{proxy.port}", trust_env=False) as running:
        yield running


def test_without_a_rule_everything_passes_over_one_connection(server, proxy, client):
    assert client.put("/a?comp=block", content=BODY).content == BODY
    assert client.get("/a").content == BODY
    assert client.get("/chunked").content == BODY
    assert client.post("/a", content=iter([b"in", b"chunks"])).content == b"inchunks"
    head = client.head("/a")
    assert head.headers["content-length"] == str(len(BODY))
    assert server.kept == [BODY, b"inchunks"]
    assert [seen.method for seen in proxy.requests] == ["PUT", "GET", "GET", "POST", "HEAD"]
    assert all(seen.status == seen.server_status == 200 for seen in proxy.requests)
    # The client has its answer a moment before the proxy is done with it.
    wait_until(lambda: all(seen.done for seen in proxy.requests), "the proxy to be done")
    assert proxy.requests[0].comp == "block"


def test_a_rule_is_for_those_that_it_names(server, proxy, client):
    rule = proxy.when(Answer(503), method="PUT", comp="block", path="/x/", times=1, skip=1)
    url = "/x/y?comp=block"
    statuses = [client.put(url, content=b"1").status_code for _ in range(4)]
    assert statuses == [200, 503, 200, 200]
    proxy.when(Answer(500), where=lambda seen: seen.headers.get("x-mark") == "1")
    assert client.get("/x/y?comp=block", headers={"X-Mark": "1"}).status_code == 500
    assert client.get("/x/y?comp=block").status_code == 200
    assert rule.hits == 1
    assert proxy.count(comp="block", method="PUT") == 4
    assert proxy.count(where=lambda seen: seen.status == 503) == 1
    assert len(server.kept) == 3


def test_the_first_rule_that_fits_decides(proxy, client):
    proxy.when(Pass(), comp="")
    proxy.when(Answer(500))
    assert client.get("/a").status_code == 200
    assert client.get("/a?comp=list").status_code == 500


def test_chances_are_the_same_for_the_same_seed(server):
    def run():
        with FaultProxy(server.server_address[1], seed=7) as proxy:
            proxy.when(Answer(500), chance=0.5)
            with httpx.Client(trust_env=False) as client:
                url = f"http://127.0.0.1:{proxy.port}/a"
                return [client.get(url).status_code for _ in range(20)]

    first = run()
    assert first == run()
    assert set(first) == {200, 500}


def test_a_told_answer_looks_like_azure_and_the_server_hears_nothing(server, proxy, client):
    proxy.when(azure_error(503, "ServerBusy", Retry_After="1"), times=1)
    answer = client.put("/a", content=BODY)
    assert answer.status_code == 503
    assert answer.headers["x-ms-error-code"] == "ServerBusy"
    assert answer.headers["retry-after"] == "1"
    assert "<Code>ServerBusy</Code>" in answer.text
    assert server.kept == []
    assert client.put("/a", content=BODY).status_code == 200


@pytest.mark.parametrize("action", [Reset(), Hang(0.01), Reset(after_request_bytes=100_000)])
def test_a_request_is_reset_before_the_server_has_it(server, proxy, client, action):
    proxy.when(action, times=1)
    with pytest.raises(httpx.TransportError):
        client.put("/a", content=BODY)
    assert proxy.requests[0].status is proxy.requests[0].server_status is None
    assert client.put("/a", content=b"again").status_code == 200
    assert server.kept == [b"again"]


def test_a_lost_answer_is_work_done(server, proxy, client):
    proxy.when(LoseAnswer(), times=1)
    with pytest.raises(httpx.ReadError):
        client.put("/a", content=BODY)
    assert server.kept == [BODY]
    assert (proxy.requests[0].server_status, proxy.requests[0].status) == (200, None)


def test_one_bit_of_the_request_flips(server, proxy, client):
    proxy.when(FlipRequestBit(at=100_000))
    client.put("/a", content=BODY)
    client.post("/a", content=iter([BODY[:70_000], BODY[70_000:]]))
    for kept in server.kept:
        assert [n for n in range(len(BODY)) if kept[n] != BODY[n]] == [100_000]
    assert len(server.kept) == 2


@pytest.mark.parametrize("path", ["/a", "/chunked"])
def test_one_bit_of_the_answer_flips(proxy, client, path):
    proxy.when(FlipResponseBit(at=100_000))
    got = client.get(path).content
    assert len(got) == len(BODY)
    assert [n for n in range(len(BODY)) if got[n] != BODY[n]] == [100_000]


@pytest.mark.parametrize(
    ("how", "error"), [("reset", httpx.ReadError), ("fin", httpx.RemoteProtocolError)]
)
@pytest.mark.parametrize("path", ["/a", "/chunked"])
def test_an_answer_is_cut_where_it_was_told(proxy, client, path, how, error):
    proxy.when(CutAnswer(after=100_000, how=how))
    got = b""
    with pytest.raises(error), client.stream("GET", path) as answer:  # noqa: PT012
        for piece in answer.iter_raw():
            got += piece
    assert got == BODY[:100_000]
    assert not proxy.requests[0].done


def test_an_answer_stalls(proxy, client):
    proxy.when(CutAnswer(after=10, how="stall"))
    with pytest.raises(httpx.ReadTimeout):
        client.get("/a", timeout=0.2)


def test_a_slow_link_and_a_late_one_pass_everything(server, proxy, client):
    proxy.when(Slow(bytes_per_second=1_000_000), path="/slow")
    proxy.when(Delay(0.1), path="/late")
    began = time.monotonic()
    assert client.put("/slow", content=BODY).content == BODY
    assert time.monotonic() - began >= len(BODY) / 1_000_000
    began = time.monotonic()
    assert client.put("/late", content=BODY).content == BODY
    assert time.monotonic() - began >= 0.1
    proxy.latency = 0.1
    began = time.monotonic()
    assert client.put("/a", content=BODY).content == BODY
    assert time.monotonic() - began >= 0.1
    assert server.kept == [BODY] * 3


@pytest.mark.parametrize("answer", [False, True])
def test_a_request_is_held_until_the_test_lets_it_go(server, proxy, client, answer):
    rule = proxy.when(Hold(answer=answer))
    got = []
    waiting = threading.Thread(target=lambda: got.append(client.put("/a", content=BODY)))
    waiting.start()
    rule.wait_hit()
    assert got == []
    if not answer:
        assert server.kept == []
    rule.release()
    waiting.join(20)
    assert got[0].content == BODY
    assert client.get("/a").status_code == 200


def test_a_closed_door_refuses_and_opens_again(proxy, client):
    assert client.get("/a").status_code == 200
    proxy.refuse()
    with pytest.raises(httpx.ConnectError):
        client.get("/a")
    proxy.accept()
    assert client.get("/a").status_code == 200


def test_a_severed_connection_is_reset(proxy):
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=20) as plain:
        plain.sendall(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
        assert plain.recv(4) == b"HTTP"
        proxy.sever()
        with pytest.raises(ConnectionResetError):  # noqa: PT012
            while plain.recv(65536):
                pass


def test_what_the_proxy_was_told_is_forgotten_at_once(proxy, client):
    proxy.when(Answer(500))
    assert client.get("/a").status_code == 500
    proxy.clear()
    assert client.get("/a").status_code == 200
    assert proxy.count() == 1


def test_a_dead_server_is_a_reset(server, proxy, client):
    server.shutdown()
    server.server_close()
    with pytest.raises(httpx.ReadError):
        client.get("/a")


def test_in_front_of_a_tls_server_it_speaks_tls(tmp_path):
    certificate = tls.make_certificate(tmp_path)
    for server in serve(certificate):
        with FaultProxy(server.server_address[1], certificate=certificate) as proxy:
            proxy.when(LoseAnswer(), skip=1, times=1)
            url = f"https://127.0.0.1:{proxy.port}/a"
            with httpx.Client(verify=certificate.client_context(), trust_env=False) as client:
                assert client.put(url, content=BODY).content == BODY
                with pytest.raises(httpx.TransportError):
                    client.put(url, content=BODY)
                assert client.get(url).content == BODY
            assert server.kept == [BODY, BODY]


def test_azurite_takes_signed_requests_through_it(azurite):
    name = azurite.create_container()
    with FaultProxy(azurite.port) as proxy:
        proxy.when(LoseAnswer(), method="PUT", path=f"{name}/a", times=1)
        with BlobServiceClient.from_connection_string(
            azurite.connection_string_at(proxy.port), api_version=API_VERSION, retry_total=0
        ) as service:
            blob = service.get_blob_client(name, "a")
            with pytest.raises(ServiceResponseError):
                blob.upload_blob(BODY)
            assert blob.download_blob().readall() == BODY
        assert [seen.method for seen in proxy.seen(path=f"{name}/a")] == ["PUT", "GET"]
