"""Three replicas over one Azurite behind a network that fails, with replicas that die.

Promises 3 to 6 under every fault that we can make: no wrong byte, no lost entry that was
acknowledged, no fork, nothing logged twice, and no status that fails a build.
"""

import base64
import json
import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import pytest
from interop.go_tool import go_tool, run_tool
from world.azurite import Azurite
from world.fault_proxy import FaultProxy
from world.nx import NEWEST, Workspace, tiny
from world.server import Server, wait_until
from world.storage import OnAzurite
from world.wire_faults import (
    CutAnswer,
    FlipRequestBit,
    Hang,
    LoseAnswer,
    Reset,
    Slow,
    azure_error,
)

from secure_cache.tlog.tiles import FANOUT, decode_bundle, tile_name

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]

REPLICAS = 3
CLIENTS = 4
SIZES = (0, 10, 4096, 4096, 4096, 300_000, 300_000, 300_000, 5_000_000)
GREEN = {"PUT": {200, 403, 409}, "GET": {200, 404}}
STALL_SECONDS = 30


@dataclass
class Load:
    """Clients of all replicas that store and read without pause, and remember every answer."""

    replicas: list[Server]
    tokens: list[str]
    seed: str
    acknowledged: dict[tuple[str, str], bytes] = field(default_factory=dict)
    sent: dict[tuple[str, str], bytes] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    broken: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self, seconds: float, meanwhile=lambda: None) -> None:
        self._stop.clear()
        threads = [threading.Thread(target=self._client, args=(n,)) for n in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            meanwhile()
            time.sleep(seconds)
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(120)
        assert not any(thread.is_alive() for thread in threads), "a request hangs"

    def _client(self, number: int) -> None:
        source = random.Random(f"{self.seed}-{time.monotonic()}-{number}")
        token = self.tokens[number % len(self.tokens)]
        while not self._stop.wait(0.05):
            server = source.choice(self.replicas)
            try:
                with server.client(token) as client:
                    for _ in range(5):
                        self._put(client, token, source)
                        self._get(client, token, source)
            except httpx.TransportError:
                # The replica died or broke off. Nothing is known of the request.
                self.broken += 1
                self._stop.wait(0.05)

    def _put(self, client: httpx.Client, token: str, source: random.Random) -> None:
        name = (token, str(source.getrandbits(63)))
        body = source.randbytes(source.choice(SIZES))
        self.sent[name] = body
        answer = client.put(f"/v1/cache/{name[1]}", content=body)
        self._note("PUT", answer)
        if answer.status_code == 200:
            self.acknowledged[name] = body

    def _get(self, client: httpx.Client, token: str, source: random.Random) -> None:
        mine = [name for name in tuple(self.sent) if name[0] == token]
        name = source.choice(mine)
        answer = client.get(f"/v1/cache/{name[1]}")
        self._note("GET", answer)
        if answer.status_code == 200 and answer.content != self.sent[name]:
            self.wrong.append(f"{name[1]}: {len(answer.content)} bytes that nobody stored")

    def _note(self, method: str, answer: httpx.Response) -> None:
        reason = answer.headers.get("X-Secure-Cache-Reason", "")
        self.answers[f"{method} {answer.status_code} {reason}".strip()] += 1
        if answer.status_code not in GREEN[method]:
            self.wrong.append(f"{method} {answer.status_code} {answer.text}")

    def must_have_kept_the_promises(self) -> None:
        """Every acknowledged entry is there, whole, at every replica; every other is there
        whole or not at all."""
        assert self.wrong == []
        for server in self.replicas:
            clients = {token: server.client(token) for token in self.tokens}
            for (token, key), body in list(self.sent.items()):
                answer = clients[token].get(f"/v1/cache/{key}")
                if (token, key) in self.acknowledged:
                    assert answer.status_code == 200, f"lost: {key} {dict(answer.headers)}"
                if answer.status_code == 200:
                    assert answer.content == body
            for client in clients.values():
                client.close()


@dataclass
class Site:
    """The replicas, and what is between them and their storage."""

    azurite: Azurite
    proxy: FaultProxy
    replicas: list[Server]
    load: Load
    auditor: str

    def metric(self, name: str, **labels: str) -> float:
        """The sum over the first and the last replica, which no fault test kills: a counter
        begins anew with its process."""
        total = 0.0
        self.must_have_killed_who_is_dead()
        for server in (self.replicas[0], self.replicas[-1]):
            if not server.running:
                continue
            for line in httpx.get(f"{server.url}/metrics", timeout=60).text.splitlines():
                wanted = all(f'{key}="{value}"' in line for key, value in labels.items())
                if line.startswith(name + "{") and wanted:
                    total += float(line.rsplit(" ", 1)[1])
        return total

    def must_have_killed_who_is_dead(self) -> None:
        """No fault of the storage ends a replica."""
        for server in self.replicas:
            code = server.process.poll() if server.process is not None else None
            assert code is None, f"it ended by itself with {code}:\n{server.logs()[-8000:]}"

    def leaves(self) -> list[bytes]:
        """The published log, from the first replica."""
        server = self.replicas[0]
        size, _ = server.checkpoint()
        found: list[bytes] = []
        with server.client(self.auditor) as client:
            for index in range((size + FANOUT - 1) // FANOUT):
                width = min(FANOUT, size - index * FANOUT)
                path = tile_name(0, index, width).replace("tile/0/", "tile/entries/", 1)
                found += decode_bundle(client.get(f"/log/{path}").raise_for_status().content)
        assert len(found) == size
        return found

    def must_have_one_log_with_each_entry_once(self) -> None:
        """All replicas publish one log, it holds what was acknowledged, and nothing twice."""
        wanted = {key for _, key in self.load.acknowledged}
        entries: Counter[str] = Counter()

        def complete() -> bool:
            entries.clear()
            keys = set()
            for leaf in self.leaves():
                payload = json.loads(base64.b64decode(json.loads(leaf)["payload"]))
                predicate = payload["predicate"]
                if "entryId" in predicate:
                    entries[predicate["entryId"]] += 1
                    keys.add(predicate["key"])
            return wanted <= keys

        wait_until(complete, "everything acknowledged in the log", 60)
        assert [entry for entry, count in entries.items() if count > 1] == []
        sizes: dict[int, set[str]] = {}
        for server in self.replicas:
            size, root = server.checkpoint()
            sizes.setdefault(size, set()).add(root)
        assert all(len(roots) == 1 for roots in sizes.values())

    def must_verify_from_outside(self) -> None:
        self.must_have_killed_who_is_dead()
        server = self.replicas[0]
        vkey = httpx.get(f"{server.url}/log/vkeys", timeout=60).text.strip()
        done = run_tool(
            go_tool("tlogcheck"), "-vkey", vkey, f"{server.url}/log", token=self.auditor
        )
        assert done.returncode == 0, done.stderr
        # While they run: it is their log that has to be in order.
        done = server.fsck()
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def place(azurite, tmp_path_factory) -> Iterator[Site]:
    tmp_path = tmp_path_factory.mktemp("site")
    with FaultProxy(azurite.port, seed=1) as proxy:
        first = Server(tmp_path / "replica0", storage=OnAzurite(azurite, port=proxy.port))
        others = [
            Server(tmp_path / f"replica{number}", replica_of=first) for number in range(1, REPLICAS)
        ]
        replicas = [first, *others]
        for number, replica in enumerate(replicas):
            if number:
                # One without a local tier, the others each with their own.
                replica.environment["SECURE_CACHE_LOCAL_TIER__PATH"] = str(
                    tmp_path / f"tier{number}"
                )
            replica.start()
        tokens = [first.token(branch="main"), first.token(pr=7)]
        load = Load(replicas, tokens, seed=tmp_path.name)
        yield Site(azurite, proxy, replicas, load, first.token(role="auditor"))
        proxy.clear()
        for replica in replicas:
            replica.kill9()


@pytest.fixture
def site(place) -> Site:
    """All three run, and nothing fails yet."""
    place.proxy.clear()
    place.proxy.accept()
    place.must_have_killed_who_is_dead()
    for replica in place.replicas:
        if not replica.running:
            replica.start()
    tokens = place.load.tokens
    for replica in place.replicas:
        wait_until(
            lambda r=replica: r.put(tokens[0], secrets.randbits(63), b"").status_code == 200,
            "the replica to have got over the last test's faults",
            60,
        )
    place.load = Load(place.replicas, tokens, seed=secrets.token_hex(4))
    return place


@pytest.fixture
def key() -> str:
    return str(secrets.randbits(63))


BUSY = azure_error(503, "ServerBusy", Retry_After="1")
THROTTLED = azure_error(429, "TooManyRequests", Retry_After="1")
ERROR = azure_error(500, "InternalError")

FAULTS = {
    "reset": [(Reset(), {"chance": 0.2})],
    "reset-in-uploads": [
        (Reset(after_request_bytes=1000), {"method": "PUT", "comp": "block", "chance": 0.3})
    ],
    "reset-in-downloads": [(CutAnswer(after=100), {"method": "GET", "chance": 0.2})],
    "cut-downloads": [(CutAnswer(after=100, how="fin"), {"method": "GET", "chance": 0.2})],
    "answer-lost-after-it-took-effect": [
        (LoseAnswer(), {"method": "PUT", "chance": 0.25}),
        (LoseAnswer(), {"method": "DELETE", "chance": 0.25}),
    ],
    "500": [(ERROR, {"chance": 0.25})],
    "503": [(BUSY, {"chance": 0.15})],
    "429": [(THROTTLED, {"chance": 0.15})],
    "flipped-bits-up": [(FlipRequestBit(), {"method": "PUT", "comp": "block", "chance": 0.3})],
    "slow-link": [(Slow(400_000), {"chance": 0.5})],
    # Longer than one attempt of a look-up: what aiohttp repeats by itself is not counted.
    "short-stalls": [(Hang(4.5), {"chance": 0.03})],
}


@pytest.mark.parametrize("name", FAULTS)
def test_no_promise_breaks_under(site, name):
    retried = site.metric("secure_cache_storage_retries_total")
    for action, where in FAULTS[name]:
        site.proxy.when(action, **where)
    site.load.run(1.5)
    # One replica dies in the midst of it, and a new one takes its place.
    site.load.run(1, meanwhile=site.replicas[1].kill9)
    if name != "slow-link":
        wait_until(
            lambda: (
                site.load.run(0.2) or site.metric("secure_cache_storage_retries_total") > retried
            ),
            "a retry to be counted",
            60,
        )
    site.proxy.clear()
    site.replicas[1].start()
    site.load.run(0.5)
    assert site.load.acknowledged, site.load.answers
    site.load.must_have_kept_the_promises()
    site.must_have_one_log_with_each_entry_once()
    site.must_verify_from_outside()


def test_no_promise_breaks_when_the_storage_is_away_and_comes_back(site):
    site.load.run(1)
    site.proxy.refuse()
    before = dict(site.load.answers)
    # Builds go on: a look-up is a miss, a store is refused, and each says why.
    site.load.run(4)
    assert site.load.answers["GET 404 storage-unavailable"] > 0, site.load.answers
    assert site.load.answers["PUT 403 storage-unavailable"] > 0, site.load.answers
    assert site.load.answers != before
    site.replicas[2].kill9()
    assert all(
        httpx.get(f"{r.url}/healthz", timeout=60).status_code == 200 for r in site.replicas[:2]
    )
    assert site.metric("secure_cache_storage_requests_total", outcome="unavailable") > 0
    site.proxy.accept()
    site.replicas[2].start()
    site.load.run(2)
    site.load.must_have_kept_the_promises()
    site.must_have_one_log_with_each_entry_once()
    events = [event.get("event") for event in site.replicas[0].events()]
    assert "storage.unavailable" in events
    site.must_verify_from_outside()


def test_a_stall_of_30_s_is_a_miss_and_not_a_build_that_hangs(site, key):
    main = site.load.tokens[0]
    assert site.replicas[0].put(main, key, b"kept").status_code == 200
    site.proxy.when(Hang(STALL_SECONDS), path="/records/")
    began = time.monotonic()
    answer = site.replicas[0].get(main, key + "0")
    assert (answer.status_code, answer.headers["X-Secure-Cache-Reason"]) == (
        404,
        "storage-unavailable",
    )
    assert time.monotonic() - began < STALL_SECONDS, "the look-up waited for the stalled storage"
    assert site.replicas[0].put(main, key + "1", b"new").status_code == 403
    site.proxy.clear()
    assert site.replicas[1].get(main, key).content == b"kept"
    assert site.replicas[1].put(main, key + "1", b"new").status_code in {200, 409}
    site.must_verify_from_outside()


@pytest.mark.parametrize("code", ["ContainerNotFound", "AuthorizationPermissionMismatch"])
def test_what_is_forbidden_or_gone_is_never_taken_for_missing(site, code, key):
    """A container that was deleted or a role that was taken away: nothing is stored over, and
    the answer to a look-up says that it is no plain miss."""
    main = site.load.tokens[0]
    first = site.replicas[0]
    assert first.put(main, key, b"kept").status_code == 200
    site.proxy.when(azure_error(404 if code == "ContainerNotFound" else 403, code))
    for replica in site.replicas:
        answer = replica.get(main, key)
        assert answer.status_code == 404
        assert answer.headers["X-Secure-Cache-Reason"] not in {"", "miss"}
        assert replica.put(main, key, b"other").status_code == 403
    site.proxy.clear()
    for replica in site.replicas:
        wait_until(lambda r=replica: r.get(main, key).content == b"kept", "the entry to be back")
    site.must_verify_from_outside()


def test_of_fifty_stores_of_one_key_over_all_replicas_one_wins(site, key):
    main = site.load.tokens[0]
    bodies = [b"writer %d" % number * 5_000 for number in range(50)]
    answers: list[tuple[int, bytes]] = []
    start = threading.Barrier(len(bodies))

    def store(number: int) -> None:
        start.wait()
        answer = site.replicas[number % REPLICAS].put(main, key, bodies[number])
        answers.append((answer.status_code, bodies[number]))

    threads = [threading.Thread(target=store, args=(number,)) for number in range(len(bodies))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(status for status, _ in answers) == {200: 1, 409: 49}
    (won,) = [body for status, body in answers if status == 200]
    assert {replica.get(main, key).content for replica in site.replicas} == {won}


@pytest.mark.interop
def test_nx_builds_stay_green_in_a_storm_and_find_everything_after_it(site, tmp_path):
    projects = tiny(12)
    main = site.load.tokens[0]
    site.proxy.when(LoseAnswer(), method="PUT", chance=0.2)
    site.proxy.when(BUSY, chance=0.1)
    site.proxy.when(Reset(), chance=0.1)
    site.proxy.when(CutAnswer(after=50), method="GET", chance=0.1)
    for round_number, replica in enumerate(site.replicas):
        workspace = Workspace(tmp_path / f"storm{round_number}", NEWEST, projects)
        done = workspace.run(replica.url, main, mark="same")
        assert done.code == 0, done
    site.proxy.clear()
    # What the storm kept from being stored is stored now; what is there is not stored twice.
    calm = Workspace(tmp_path / "calm", NEWEST, projects)
    assert calm.run(site.replicas[0].url, main, mark="same").code == 0
    last = calm.clone(tmp_path / "last")
    hit = last.run(site.replicas[1].url, main, mark="other")
    assert (hit.code, hit.remote) == (0, set(projects)), hit
    assert {last.read(project) for project in projects} == {"same"}
    site.must_verify_from_outside()
