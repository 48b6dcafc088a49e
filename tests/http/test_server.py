"""The server process: start, drain, workers that die, and answers that must arrive."""

import http.client
import json
import os
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from fakes.edge import (
    edge,
    events,
    launch,
    read_all,
    read_answer,
    refuses_connections,
    status_of,
    statuses,
    wait_for,
)

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
PUT = b"PUT /store HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
MIB = 1 << 20


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def workers_of(server):
    """The pids that answer."""
    pids = set()
    for _ in range(200):
        pids.add(json.loads(server.get("/")[1])["pid"])
        if len(pids) == 2:
            break
    return pids


def test_an_answer_says_nothing_about_the_server():
    with edge() as server:
        assert b"server:" not in server.talk(GET).lower()


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_lets_an_open_upload_finish_and_exits_with_zero(workers, tmp_path):
    with edge({"seen": str(tmp_path / "seen")}, workers=workers) as server:
        with server.connect() as idle, server.connect() as client:
            idle.sendall(GET)
            assert status_of(read_answer(idle)) == 200
            client.sendall(PUT % (2 * MIB) + bytes(MIB))
            wait_for(lambda: {"event": "request", "path": "/store"} in events(tmp_path / "seen"))
            server.process.send_signal(signal.SIGTERM)
            assert idle.recv(10) == b""
            wait_for(lambda: refuses_connections(server))
            client.sendall(bytes(MIB))
            answer = read_all(client)
        assert statuses(answer) == [200]
        assert b"connection: close" in answer
        assert answer.split(b"\r\n\r\n")[1].startswith(b"%d " % (2 * MIB))
        assert server.process.wait(timeout=20) == 0
        ended = [event for event in events(tmp_path / "seen") if event["event"] == "ended"]
        assert len(ended) == workers


def test_what_is_open_after_the_drain_is_cut_and_the_server_still_exits_with_zero():
    with edge(drain_seconds=0.3) as server, server.connect() as client:
        client.sendall(b"GET /slow?60 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert server.get("/")[0] == 200
        assert server.stop() == 0
        assert b"200 OK" not in read_all(client)


def test_clients_that_never_pause_do_not_keep_a_leaving_server():
    """One that the kernel had accepted when the port closed went on, until a request was cut."""
    stop = threading.Event()

    def use(server):
        while not stop.is_set():
            try:
                with server.connect() as client:
                    answer = GET
                    while answer and not stop.is_set():
                        client.sendall(GET)
                        answer = read_answer(client)
            except OSError:
                # The port is closed, or closed while we were in its queue.
                stop.wait(0.001)

    with edge(workers=2, drain_seconds=60) as server, ThreadPoolExecutor(30) as pool:
        try:
            users = [pool.submit(use, server) for _ in range(30)]
            assert server.get("/")[0] == 200
            assert server.stop() == 0
        finally:
            stop.set()
        for user in users:
            user.result()


def test_readiness_is_red_before_the_port_closes():
    with edge(notice_seconds=2.0) as server:
        assert server.get("/ready") == (200, b"ok")
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: server.get("/ready") == (503, b"draining"))
        assert server.get("/")[0] == 200
        assert server.process.wait(timeout=20) == 0


def test_a_second_signal_ends_the_wait():
    with edge(drain_seconds=60, notice_seconds=60) as server:
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: server.get("/ready") == (503, b"draining"))
        assert server.stop() == 0


def test_a_request_that_is_arriving_at_sigterm_is_answered():
    with edge() as server, server.connect() as client:
        client.sendall(GET[:20])
        assert server.get("/")[0] == 200
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: refuses_connections(server))
        client.sendall(GET[20:])
        answer = read_all(client)
        assert status_of(answer) == 200
        assert b"connection: close" in answer


def test_a_killed_worker_is_replaced_and_the_others_go_on():
    with edge(workers=2) as server:
        pids = workers_of(server)
        assert len(pids) == 2
        victim = min(pids)
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: len(workers_of(server) - {victim}) == 2)
        assert server.stop() == 0
        assert not any(is_running(pid) for pid in pids)


def test_a_worker_whose_background_tasks_died_is_replaced(tmp_path):
    """Left alone it would go on answering, with its stores closed: nothing but misses, for ever."""
    fuse = tmp_path / "fuse"
    with edge({"break": str(fuse)}, workers=2) as server:
        pids = workers_of(server)
        assert len(pids) == 2
        fuse.touch()
        wait_for(lambda: len(workers_of(server) - pids) == 1)
        assert server.stop() == 0


def test_a_single_process_whose_background_tasks_died_says_so_and_ends(tmp_path):
    fuse = tmp_path / "fuse"
    with edge({"break": str(fuse)}) as server:
        fuse.touch()
        assert server.process.wait(timeout=20) not in {0, None}
        assert "server.failed" in server.process.stderr.read()


def test_no_worker_outlives_a_killed_parent():
    with edge(workers=2, drain_seconds=1.0) as server:
        pids = workers_of(server)
        server.process.kill()
        server.process.wait(timeout=20)
        wait_for(lambda: not any(is_running(pid) for pid in pids))
        assert refuses_connections(server)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("when", ["fail", "fail_later"])
def test_a_server_that_cannot_start_says_why_in_one_line(workers, when):
    process = launch({when: "the setting storage.path is wrong"}, workers=workers)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert out == ""
    assert "misconfigured: the setting storage.path is wrong\n" in err
    assert "Traceback" not in err


def test_a_taken_port_is_a_setting_to_change():
    with edge() as server:
        process = launch(port=server.address[1])
        _, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "cannot listen on 127.0.0.1" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("workers", [1, 2])
def test_three_hundred_connections_at_the_same_moment_are_all_answered(workers):
    with edge(workers=workers) as server:
        clients = [server.connect() for _ in range(300)]
        for client in clients:
            client.sendall(GET)
        for client in clients:
            assert status_of(read_answer(client)) == 200
            client.close()


def test_http_client_sees_the_refusal_of_forty_megabytes_in_one_attempt(tmp_path):
    with edge({"seen": str(tmp_path / "seen")}) as server:
        connection = http.client.HTTPConnection(*server.address, timeout=20)
        connection.request("PUT", "/refuse", body=bytes(40 * MIB))
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (403, b"no\n")
        assert answer.getheader("connection") == "close"
        connection.close()
    assert events(tmp_path / "seen")[-2:] == [
        {"event": "drained", "size": 40 * MIB},
        {"event": "ended"},
    ]


def test_a_client_that_waits_for_the_answer_need_not_send_forty_megabytes():
    with edge() as server, server.connect() as client:
        client.sendall(
            b"PUT /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (40 * MIB)
        )
        assert status_of(read_answer(client)) == 403
    with edge() as server, server.connect() as client:
        client.sendall(
            b"PUT /refuse HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"
        )
        assert status_of(read_answer(client)) == 403


def test_an_upload_may_wait_for_100_continue():
    with edge() as server, server.connect() as client:
        client.sendall(
            b"PUT /store HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
        )
        assert status_of(client.recv(100)) == 100
        client.sendall(b"abc")
        assert status_of(read_answer(client)) == 200


def test_a_refused_upload_does_not_grow_the_server(tmp_path):
    """Flow control: what is drained or stored is never held."""
    app = {"seen": str(tmp_path / "seen"), "drain": {"max_bytes": 1 << 30}}
    with edge(app) as server:
        assert server.get("/")[0] == 200
        before = peak_memory(server.pid)
        for path in ("/refuse", "/store"):
            connection = http.client.HTTPConnection(*server.address, timeout=60)
            connection.request("PUT", path, body=(bytes(MIB) for _ in range(200)))
            assert connection.getresponse().status in {200, 403}
            connection.close()
        assert peak_memory(server.pid) - before < 20 * MIB


def peak_memory(pid):
    with open(f"/proc/{pid}/status") as file:  # noqa: PTH123 - not a file of ours
        (line,) = [line for line in file if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def test_many_uploads_at_once_all_arrive():
    with edge(workers=2) as server:

        def upload(_):
            connection = http.client.HTTPConnection(*server.address, timeout=60)
            connection.request("PUT", "/store", body=bytes(3 * MIB))
            answer = connection.getresponse().read()
            connection.close()
            return answer.split()[0]

        with ThreadPoolExecutor(16) as pool:
            assert set(pool.map(upload, range(48))) == {b"%d" % (3 * MIB)}


def test_a_restart_under_load_gives_whole_answers_or_closed_connections():
    """Never a cut answer: a client can retry a connection, but not believe half a body."""
    with edge(workers=2) as server:
        stop = threading.Event()
        broken = []

        def load():
            while not stop.is_set():
                try:
                    with server.connect() as client:
                        client.sendall(GET)
                        answer = read_answer(client)
                except (ConnectionError, TimeoutError):
                    continue
                if answer and not (status_of(answer) == 200 and answer.endswith(b"}")):
                    broken.append(answer)

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        for pid in workers_of(server):
            os.kill(pid, signal.SIGTERM)
        wait_for(lambda: server.get("/")[0] == 200)
        code = server.stop()
        stop.set()
        for thread in threads:
            thread.join()
    assert code == 0
    assert broken == []


def test_an_ipv6_address_is_announced_so_that_it_can_be_called():
    process = launch(host="::1")
    try:
        line = process.stdout.readline()
        if not line:
            assert "cannot listen on ::1" in process.stderr.read()
            pytest.skip("this machine has no IPv6: enable it to run this test")
        assert line.startswith("http://[::1]:")
    finally:
        process.terminate()
        try:
            process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
