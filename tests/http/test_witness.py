"""`secure-cache witness serve` from outside: statuses, limits, and what it shows."""

import hashlib
import socket
import threading

import anyio
import httpx
import pytest
from fakes.logs import ORIGIN, SIGNER, grown_log
from world.server import cli
from world.witness import WitnessProcess

from secure_cache.storage.memory import MemoryStore
from secure_cache.tlog.checkpoint import Checkpoint
from secure_cache.tlog.cosignature import parse_cosigner_key
from secure_cache.tlog.note import open_note
from secure_cache.tlog.witness_wire import AddCheckpoint, add_signatures, read_cosignatures

NAME = "witness.example.com/w1"


@pytest.fixture(scope="module")
def note():
    async def make():
        return await (await grown_log(MemoryStore(), (5,))).checkpoint_note()

    return anyio.run(make)


@pytest.fixture
def witness(tmp_path):
    made = WitnessProcess(tmp_path / "w", NAME, (str(SIGNER.verifier),), options=("--ml-dsa",))
    yield made.start()
    made.kill9()


def first(note):
    return bytes(AddCheckpoint(0, (), note))


def test_a_checkpoint_gets_a_line_of_each_key_and_is_shown(witness, note):
    answer = witness.post(first(note))
    assert answer.status_code == 200
    lines = read_cosignatures(note, answer.content)
    cosigned = add_signatures(note, lines)
    verifiers = [parse_cosigner_key(vkey) for vkey in witness.vkeys]
    assert len(open_note(cosigned, verifiers).signatures) == 2
    place = hashlib.sha256(ORIGIN.encode()).hexdigest()
    shown = httpx.get(f"{witness.url}/{place}/checkpoint", timeout=60)
    assert shown.content == cosigned
    assert shown.headers["content-type"] == "text/plain; charset=utf-8"
    assert httpx.head(f"{witness.url}/{place}/checkpoint", timeout=60).content == b""
    assert httpx.get(f"{witness.url}/vkeys", timeout=60).text.split() == witness.vkeys


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/healthz", 200),
        ("GET", "/", 404),
        ("GET", "/add-checkpoint", 405),
        ("PUT", "/add-checkpoint", 405),
        ("POST", "/", 404),
        ("POST", "/healthz", 405),
        ("GET", f"/{'0' * 64}/checkpoint", 404),
        ("POST", f"/{'0' * 64}/checkpoint", 405),
        ("GET", f"/{'A' * 64}/checkpoint", 404),
        ("GET", "/../witness.key", 404),
        ("GET", "/%2e%2e/witness.key", 404),
        ("GET", f"/{'0' * 64}/../../witness.key", 404),
        ("POST", "//add-checkpoint", 404),
        ("GET", "/add-checkpoint/", 404),
    ],
)
def test_other_paths_and_methods_lead_nowhere(witness, method, path, status):
    with socket.create_connection(("127.0.0.1", witness.port), timeout=10) as raw:
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
        raw.sendall(head.encode())
        answer = b"".join(iter(lambda: raw.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer


def test_a_body_beyond_the_limit_is_refused_before_it_arrives(witness, note):
    assert witness.post(b"old 0\n\n" + b"x" * 65_536).status_code == 413
    assert witness.post(b"").status_code == 400
    assert witness.post(first(note)).status_code == 200


def test_damaged_state_is_told_to_the_operator_and_not_to_the_world(witness, note):
    assert witness.post(first(note)).status_code == 200
    (file,) = witness.folder.glob("state/*/checkpoint")
    file.write_bytes(b"damaged\n")
    answer = witness.post(bytes(AddCheckpoint(5, (), note)))
    assert answer.status_code == 500
    assert "damaged" not in answer.text
    assert "witness.broken" in witness.logs()
    witness.stop()
    done = cli("witness", "serve", witness.folder, "--port", "0", timeout=30)
    assert done.returncode == 5
    assert "damaged" in done.stderr


def test_many_at_once_get_one_answer_each_and_all_the_same(witness, note):
    answers = []

    def ask():
        answers.append(witness.post(first(note)))

    threads = [threading.Thread(target=ask) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 23
    assert {a.text for a in answers if a.status_code == 409} == {"5\n"}
    assert {a.headers["content-type"] for a in answers if a.status_code == 409} == {
        "text/x.tlog.size"
    }


def test_a_killed_witness_remembers(witness, note):
    assert witness.post(first(note)).status_code == 200
    witness.kill9()
    witness.start()
    assert witness.post(first(note)).text == "5\n"
    (kept,) = witness.cosigned()
    text = open_note(kept, [parse_cosigner_key(witness.vkeys[0])]).text
    assert Checkpoint.parse(text).size == 5


def test_it_ends_well(witness):
    assert witness.stop() == 0
