"""`audit monitor` over a real server: what is unexpected is told once, and nothing is lost."""

import hashlib
import hmac
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import threading

import pytest
from world.server import Server, cli, command, wait_until

from secure_cache.client.monitor_state import opened_state

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

RULES = """
version: 1
expect:
  - name: main
    issuer: self
    project: demo
    namespace: "demo:branch/main"
    tier: trusted
    claims: { prj: demo }
  - { name: pull requests, issuer: self, namespace: "demo:pr/*", tier: contributor }
max_age: 1d
"""


class Hook(http.server.BaseHTTPRequestHandler):
    answers: list[int] = []  # noqa: RUF012 - of the test
    taken: list[tuple[dict, bytes]] = []  # noqa: RUF012 - of the test
    kills = None

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status = self.answers.pop(0) if self.answers else 204
        if status < 300:
            self.taken.append((dict(self.headers), body))
        if self.kills is not None:
            os.kill(self.kills, signal.SIGKILL)
            Hook.kills = None
            return
        self.send_response(status)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def hook():
    Hook.answers, Hook.taken, Hook.kills = [], [], None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/secret-path"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def server(tmp_path):
    made = Server(
        tmp_path / "server", environment={"SECURE_CACHE_AUDIT__FOLLOW_SECONDS": "0.2"}
    ).start()
    yield made
    made.kill9()


class Watching:
    def __init__(self, server, folder):
        self.server, self.folder = server, folder
        self.rules, self.state = folder / "rules.yaml", folder / "state.json"
        self.rules.write_text(RULES)
        self.token = server.token(role="auditor")

    def __call__(self, *arguments, **environment):
        process = self.start(*arguments, **environment)
        try:
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def start(self, *arguments, **environment):
        told = ["audit", "monitor", str(self.rules), "--state", str(self.state), *arguments]
        return subprocess.Popen(
            [command(), *told],
            env=os.environ
            | {"SECURE_CACHE_TOKEN": self.token, "SECURE_CACHE_SERVER": self.server.url}
            | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def alerts(self, *arguments, code, **environment):
        done = self(*arguments, **environment)
        assert done.returncode == code, done.stdout + done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def monitor(server, tmp_path):
    return Watching(server, tmp_path)


def store(server, token, *keys):
    before = server.checkpoint()[0]
    for key in keys:
        assert server.put(token, key, b"x").status_code == 200
    wait_until(lambda: server.checkpoint()[0] >= before + len(keys), "the log")


def test_what_nobody_expects_is_told_once(server, monitor):
    store(server, server.token(), "1")
    assert monitor.alerts("--from", "start", code=1)[-1]["alert"] in {
        "policy-changed",
        "keys-changed",
    }
    assert monitor.alerts(code=0) == []
    store(server, server.token(), "2")
    store(server, server.token(pr=7), "2")
    assert monitor.alerts(code=0) == []

    store(server, server.token(branch="feature"), "3")
    (alert,) = monitor.alerts(code=1)
    assert alert["alert"] == "unexpected-writer"
    assert alert["severity"] == "alarm"
    assert alert["entry"]["namespace"] == "demo:branch/feature"
    assert monitor.alerts(code=0) == []

    server.revoke(run_id="99")
    assert cli("keys", "rotate", "--config", server.config).returncode == 0
    size = server.checkpoint()[0]
    wait_until(lambda: server.checkpoint()[0] >= size + 1, "the events")
    seen = set()

    def both():
        done = monitor()
        seen.update(json.loads(line)["alert"] for line in done.stdout.splitlines())
        return {"policy-changed", "keys-changed"} <= seen

    wait_until(both, "the changes to be told", 30)


def test_what_a_key_signed_before_it_was_revoked_raises_no_alarm(server, monitor):
    store(server, server.token(), "1", "2")
    (old,) = (key["id"] for key in keys_of(server) if key["kind"] == "entry")
    size = server.checkpoint()[0]
    assert cli("keys", "rotate", "--config", server.config).returncode == 0
    wait_until(lambda: server.checkpoint()[0] > size, "the new key")
    store(server, server.token(), "3")
    size = server.checkpoint()[0]
    assert cli("keys", "revoke", old, "--config", server.config).returncode == 0
    wait_until(lambda: server.checkpoint()[0] > size, "the revocation")
    store(server, server.token(), "4")

    found = monitor.alerts("--from", "start", code=1)
    assert {alert["alert"] for alert in found} == {"keys-changed", "policy-changed"}
    assert found[-1]["entry"]["detail"]["revoked"] == [old]
    assert json.loads(monitor.state.read_text())["revoked"] == {old: found[-1]["index"]}


def keys_of(server):
    done = cli("keys", "list", "--json", "--config", server.config)
    return json.loads(done.stdout)["keys"]


def test_a_log_that_was_put_back_is_an_alarm_and_evidence(server, monitor):
    store(server, server.token(), "1")
    server.stop()
    shutil.copytree(server.data, monitor.folder / "yesterday")
    server.start()
    store(server, server.token(), "2", "3", "4")
    assert monitor.alerts(code=0) == []
    server.stop()
    shutil.rmtree(server.data)
    shutil.copytree(monitor.folder / "yesterday", server.data)
    server.start()
    (alert,) = monitor.alerts(code=5)
    assert alert["alert"] == "history-changed"
    evidence = monitor.folder / "state.json.evidence"
    (pair,) = evidence.iterdir()
    first = {path.name: path.read_bytes() for path in pair.iterdir()}
    assert first.keys() == {"older.checkpoint", "newer.checkpoint"}
    assert json.loads(monitor.state.read_text())["standing"].keys() == {alert["id"]}
    store(server, server.token(), "5", "6", "7", "8", "9")
    # A webhook that is down makes no outage of it.
    environment = {"SECURE_CACHE_MONITOR_WEBHOOK": "http://127.0.0.1:9/x"}
    (alert,) = monitor.alerts("--follow", "1s", code=5, **environment)
    assert "contradict" in alert["sentence"]
    # One more pair of checkpoints; what was found first is still there.
    (other,) = set(evidence.iterdir()) - {pair}
    assert (other / "contradiction.json").exists()
    assert {path.name: path.read_bytes() for path in pair.iterdir()} == first


def test_a_webhook_gets_each_alert_or_it_is_told_again(server, monitor, hook):
    store(server, server.token(), "1")
    monitor.alerts(code=0)
    store(server, server.token(branch="feature"), "3")
    environment = {
        "SECURE_CACHE_MONITOR_WEBHOOK": hook,
        "SECURE_CACHE_MONITOR_SECRET": "between us",
    }
    # Refused, then moved: neither counts as taken, and no redirect is followed.
    for status in (403, 302):
        Hook.answers[:] = [status]
        done = monitor(**environment)
        assert done.returncode == 3, done.stderr
        assert "secret-path" not in done.stdout + done.stderr
    assert Hook.taken == []
    # A hiccup is tried again.
    Hook.answers[:] = [503]
    (alert,) = monitor.alerts(code=1, **environment)
    ((headers, body),) = Hook.taken
    assert json.loads(body)["alerts"] == [alert]
    code = hmac.new(b"between us", body, hashlib.sha256).hexdigest()
    assert headers["X-Secure-Cache-Signature"] == f"sha256={code}"
    assert monitor.alerts(code=0, **environment) == []


def test_a_monitor_that_is_killed_between_alert_and_state_tells_it_again(server, monitor, hook):
    store(server, server.token(), "1")
    monitor.alerts(code=0)
    store(server, server.token(branch="feature"), "3", "4")
    url = monitor.folder / "webhook"
    url.write_text(f"{hook}\n")
    url.chmod(0o600)
    state = json.loads(monitor.state.read_text())
    process = monitor.start("--webhook-file", str(url))
    Hook.kills = process.pid
    out, _ = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert json.loads(monitor.state.read_text())["next"] == state["next"]
    ((_, body),) = Hook.taken
    first = json.loads(body)["alerts"]
    assert [json.loads(line) for line in out.splitlines()] == first
    assert len({alert["id"] for alert in first}) == 2
    # Told again, and recognised by their ids; then never more.
    assert monitor.alerts("--webhook-file", str(url), code=1) == first
    assert json.loads(Hook.taken[-1][1])["alerts"] == first
    assert monitor.alerts("--webhook-file", str(url), code=0) == []


def test_a_follower_goes_on_and_ends_when_it_is_told_to(server, monitor):
    store(server, server.token(), "1")
    monitor.alerts(code=0)
    process = subprocess.Popen(
        [
            *(command(), "audit", "monitor", str(monitor.rules)),
            *("--state", str(monitor.state), "--follow", "1s"),
        ],
        env=os.environ | {"SECURE_CACHE_TOKEN": monitor.token, "SECURE_CACHE_SERVER": server.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        store(server, server.token(branch="feature"), "3")
        assert json.loads(process.stdout.readline())["alert"] == "unexpected-writer"
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


def test_a_follower_whose_webhook_hangs_ends_when_it_is_told_to(server, monitor, hook):
    store(server, server.token(), "1")
    monitor.alerts(code=0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/secret-path"
        process = monitor.start("--follow", "1s", SECURE_CACHE_MONITOR_WEBHOOK=url)
        store(server, server.token(branch="feature"), "3")
        first = json.loads(process.stdout.readline())
        process.terminate()
        # Tried three times, and each time waited for, it would be more than half a minute.
        _, said = process.communicate(timeout=25)
    assert process.returncode == 0
    assert "took all of 1 alerts: the next run tells them again" in said
    assert monitor.alerts(code=1, SECURE_CACHE_MONITOR_WEBHOOK=hook) == [first]
    ((_, body),) = Hook.taken
    assert json.loads(body)["alerts"] == [first]


def test_over_its_stores_it_is_the_same(server, monitor):
    store(server, server.token(), "1")
    store(server, server.token(branch="feature"), "3")
    by_server = monitor.alerts("--from", "start", code=1)
    monitor.state.unlink()
    assert monitor.alerts("--from", "start", "--store", str(server.config), code=1) == by_server


def test_mistakes_say_what_is_wrong(server, monitor):
    store(server, server.token(), "1")
    monitor.alerts(code=0)
    with opened_state(monitor.state):
        done = monitor()
        assert done.returncode == 3
        assert "another monitor" in done.stderr
    state = monitor.state.read_text()
    monitor.state.write_text(state[:-20])
    done = monitor()
    assert done.returncode == 5
    assert "--from start" in done.stderr
    more = json.loads(state) | {"next": 10**6}
    monitor.state.write_text(json.dumps(more))
    assert monitor().returncode == 5
    monitor.state.write_text(state)
    monitor.rules.write_text(RULES.replace("tier: trusted", "teir: trusted"))
    done = monitor()
    assert done.returncode == 2
    assert "rules.yaml:" in done.stderr
    monitor.rules.write_text(RULES + "ignore: [everything]\n")
    done = monitor()
    assert done.returncode == 2
    assert "quarantined" in done.stderr
    monitor.rules.write_text(RULES)
    server.stop()
    assert monitor().returncode == 3


def test_a_first_look_says_where_it_begins(server, monitor):
    # The opening, the keys and the policy.
    wait_until(lambda: server.checkpoint()[0] == 3, "the log's first events")
    first, second = monitor(), monitor()
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "from entry 3 on" in first.stderr
    monitor.state.unlink()
    process = monitor.start("--follow", "1s")
    try:
        said = [process.stderr.readline() for _ in range(3)]
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert "Looking every 1 s" in said[0]
    assert "key was taken from the server" in said[1]
    assert "from entry 3 on" in said[2]
    assert "first look" not in second.stderr
