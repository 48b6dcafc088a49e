"""A real server and three real witnesses: killed, silent, lying, and holding proof against it."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from interop.go_tool import go_tool, run_tool
from world.server import NotReadyError, cli, wait_until
from world.witness import WitnessProcess, ask_witnesses, vkey_of

from secure_cache.model.errors import LogInconsistent
from secure_cache.tlog.note import Ed25519Verifier, Note
from secure_cache.tlog.witness_policy import WitnessPolicy


@pytest.fixture
def place(make_server, tmp_path):
    made = []

    def make(profile, *, quorum="2", workers=1, lying=None):
        server = make_server(workers=workers)
        vkey = vkey_of(server)
        witnesses = [
            WitnessProcess(tmp_path / f"w{n}", f"witness.example.com/w{n}", (vkey,)).start()
            for n in (1, 2, 3)
        ]
        made.extend(witnesses)
        at = {} if lying is None else {"w3": lying}
        policy = ask_witnesses(server, witnesses, profile=profile, quorum=quorum, at=at)
        return server, witnesses, Place(server, WitnessPolicy.parse(policy.read_bytes()), vkey)

    yield make
    for witness in made:
        if witness.process is not None:
            witness.go_on()
        witness.kill9()


class Place:
    """What somebody outside sees of the log."""

    def __init__(self, server, policy, vkey):
        self.server = server
        self.policy = policy
        self.log = Ed25519Verifier.parse(vkey)
        self.stored = 0

    def store(self, count):
        token = self.server.token(branch="main")
        for _ in range(count):
            self.stored += 1
            assert self.server.put(token, str(self.stored), b"data").status_code == 200

    def note(self):
        return httpx.get(f"{self.server.url}/log/checkpoint", timeout=60).content

    def size(self):
        return self.server.checkpoint()[0]

    def witnessed_by(self):
        found = self.policy.cosignatures(Note.parse(self.note()).unverified_signatures)
        return {name.decode() for name in found}

    def is_witnessed(self, at_least):
        """By one and the same note: with fail-open the next one comes without cosignatures."""
        try:
            return self.policy.verify(self.note()).checkpoint.size >= at_least
        except LogInconsistent:
            return False

    def wait_witnessed(self, at_least):
        wait_until(lambda: self.is_witnessed(at_least), "a quorum")


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_fail_closed_with_one_killed_and_one_silent_of_three_holds_back_and_loses_nothing(
    place, workers
):
    server, witnesses, seen = place("fail-closed", workers=workers)
    server.start()
    seen.store(3)
    wait_until(lambda: seen.size() >= 3, "the first entries to be published")
    seen.policy.verify(seen.note())

    witnesses[0].kill9()
    size = seen.size()
    seen.store(3)
    wait_until(lambda: seen.size() >= size + 3, "two of three to be enough")
    seen.policy.verify(seen.note())

    witnesses[1].pause()
    size = seen.size()
    seen.store(5)
    token = server.token(branch="main")
    assert server.get(token, str(seen.stored)).content == b"data"
    wait_until(lambda: "log.unwitnessed" in server.logs(), "the loss of the quorum to be told")
    time.sleep(1.5)
    assert seen.size() == size, "published without a quorum"
    assert "log.faulted" not in server.logs()

    # What waits survives the server too.
    server.kill9()
    server.start()
    assert seen.size() == size
    witnesses[1].go_on()
    witnesses[0].start()
    wait_until(lambda: seen.size() >= size + 5, "what was held back to be published", 40)
    seen.policy.verify(seen.note())
    wait_until(lambda: seen.witnessed_by() == {"w1", "w2", "w3"}, "all three to cosign", 40)
    assert server.fsck().returncode == 0


@pytest.fixture
def liar():
    """Takes connections, and says of every log that it has seen far more of it."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(409, b"1000000\n")

        def do_GET(self):
            self.answer(200, "somebody's log\n1000000\nAAAA\n\n— liar AAAAAAAA\n".encode())

        def answer(self, status, body):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("profile", ["fail-open", "fail-closed"])
def test_one_killed_and_one_lying_of_three(place, liar, profile, tmp_path):
    quorum = "any" if profile == "fail-open" else "2"
    server, witnesses, seen = place(profile, quorum=quorum, lying=liar)
    server.start()
    seen.store(3)
    seen.wait_witnessed(3)
    wait_until(lambda: seen.witnessed_by() == {"w1", "w2"}, "the honest ones")
    if profile == "fail-open":
        witnesses[0].kill9()
        seen.store(3)
        seen.wait_witnessed(6)
        wait_until(lambda: seen.witnessed_by() == {"w2"}, "the one who is left")
        witnesses[1].kill9()
        size = seen.size()
        seen.store(3)
        wait_until(lambda: seen.size() >= size + 3, "publication without any witness")
    wait_until(lambda: "witness.claimed" in server.logs(), "the lie to be told")
    assert "log.faulted" not in server.logs()
    assert "witness.proved" not in server.logs()
    assert server.get(server.token(branch="main"), "1").content == b"data"
    answer = httpx.get(f"{server.url}/readyz", timeout=60).json()
    assert answer["checks"]["log"] == "ok"
    metrics = httpx.get(f"{server.url}/metrics", timeout=60).text
    assert 'secure_cache_witness_answers_total{result="failed",witness="w3"}' in metrics


@pytest.mark.slow
@pytest.mark.every_storage
def test_log_and_state_put_back_together_stop_the_server(place, tmp_path):
    server, witnesses, seen = place("fail-open")
    server.start()
    seen.store(3)
    seen.wait_witnessed(3)
    server.stop()
    yesterday = server.copy(tmp_path / "yesterday")
    server.start()
    seen.store(3)
    seen.wait_witnessed(6)
    server.stop()
    newest = server.copy(tmp_path / "newest")

    # Somebody with all rights puts back everything.
    server.put_back(yesterday)
    assert server.fsck().returncode == 0, "from inside nothing can be seen"
    server.start()
    wait_until(lambda: "witness.proved" in server.logs(), "the witness to be heard", 90)
    wait_until(lambda: "log.faulted" in server.logs(), "the log to stop", 90)
    size = seen.size()
    token = server.token(branch="main")
    assert server.put(token, "999", b"data").status_code == 403
    assert server.get(token, "1").content == b"data"
    ready = httpx.get(f"{server.url}/readyz", timeout=60)
    assert ready.status_code == 200
    assert ready.json()["checks"]["log"] != "ok"
    assert seen.size() == size
    assert 'secure_cache_verification_failed_total{kind="log"}' in (
        httpx.get(f"{server.url}/metrics", timeout=60).text
    )
    server.stop()
    assert server.fsck().returncode == 5
    with pytest.raises(NotReadyError) as caught:
        server.start()
    assert caught.value.code == 5
    assert "signed with this log's key" in caught.value.logs

    # The newest state comes back, and with it the evidence; nothing else has to be done.
    (proof,) = server.stored.names("state/seen/contradiction/*")
    evidence = server.stored.read(proof)
    server.put_back(newest)
    server.stored.write(proof, evidence)
    assert server.fsck().returncode == 0
    server.start()
    seen.store(3)
    seen.wait_witnessed(9)
    assert witnesses[0].cosigned()


@pytest.mark.interop
def test_go_verifies_the_witnesses_of_a_running_server_and_follow_agrees(place, tmp_path):
    server, witnesses, seen = place("fail-closed", quorum="all")
    server.start()
    seen.store(5)
    wait_until(lambda: seen.size() >= 5, "publication")
    cosigners = [word for w in witnesses for word in ("-cosigner", w.vkeys[0])]
    token = server.token(role="auditor")
    vkey = str(seen.log)
    url = f"{server.url}/log"
    done = run_tool(go_tool("tlogcheck"), "-vkey", vkey, *cosigners, url, token=token)
    assert done.returncode == 0, done.stderr
    assert "3 witnesses" in done.stdout
    folder = tmp_path / "follower"
    assert cli("witness", "init", folder, "--name", "f", "--log", vkey).returncode == 0
    done = cli("witness", "follow", url, "--dir", folder)
    assert done.returncode == 4
    server.edit_policy(lambda text: text + "log: { public: true }\n")

    def followed():
        return cli("witness", "follow", url, "--dir", folder).returncode == 0

    wait_until(followed, "the log to be public")
