"""As test_tampering.py, against somebody who can write the account's blobs: no unverified byte is
served, and `log fsck` answers 5 to every change of the log."""

import hashlib
import random

import httpx
import pytest
from world.server import Server, wait_until

from secure_cache.model.names import Key, Namespace
from secure_cache.storage import layout

pytestmark = [pytest.mark.azurite, pytest.mark.slow, pytest.mark.timeout(600)]

DAMAGE = {
    "a bit": lambda data: (
        data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]
    ),
    "the first bit": lambda data: bytes([data[0] ^ 0x80]) + data[1:],
    "cut short": lambda data: data[:-1],
    "longer": lambda data: data + b"more",
    "empty": lambda _data: b"",
    "deleted": lambda _data: None,
}
SIZES = {"small": 20, "a blob": 70_000, "chunks": 9 * 1024 * 1024}
"""A small artifact stands behind its record."""


@pytest.fixture(scope="module")
def server(storage, tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("tampered") / "server", storage=storage)
    try:
        yield server.start()
    finally:
        server.remove()


def change(stored, name, damage):
    data = damage(stored.read(name))
    if data is None:
        stored.delete(name)
    else:
        stored.write(name, data)


def served(server, token, key):
    """The bytes that left the server, and whether it said that they are all."""
    received = b""
    with server.client(token) as client:
        try:
            with client.stream("GET", f"/v1/cache/{key}") as answer:
                assert answer.status_code in {200, 404}
                if answer.status_code == 404:
                    return b"", False
                for part in answer.iter_raw():
                    received += part
        except httpx.RemoteProtocolError:
            return received, False
    return received, True


def test_no_unverified_byte_is_served_of_a_damaged_blob(server):
    token, source, stored = server.token(), random.Random(7), server.stored
    bodies, targets = {}, {}
    cases = [
        (size, store, how)
        for size in SIZES
        for store in ("artifacts", "records")
        for how in DAMAGE
        # What is small has no artifact; of what is large one kind of damage speaks for all.
        if (size, store) != ("small", "artifacts") and (size != "chunks" or how == "a bit")
    ]
    for number, (size, store, _) in enumerate(cases):
        key, before = str(7000 + number), set(stored.names(f"{store}/*"))
        bodies[key] = source.randbytes(SIZES[size])
        assert server.put(token, key, bodies[key]).status_code == 200
        (targets[key],) = set(stored.names(f"{store}/*")) - before
    for key, body in bodies.items():
        assert served(server, token, key) == (body, True)
    for key, (_, _, how) in zip(targets, cases, strict=True):
        change(stored, targets[key], DAMAGE[how])
    for state in ("running", "restarted"):
        for key, (size, store, how) in zip(targets, cases, strict=True):
            received, whole = served(server, token, key)
            assert bodies[key].startswith(received), (state, size, store, how)
            if whole:
                # A record that was read before may be remembered; nothing that it says is wrong.
                assert received == bodies[key]
                assert (state, store) == ("running", "records"), (size, how)
        server.restart()
    # Nobody is locked out by it.
    fresh = hashlib.sha256(b"fresh").hexdigest()
    assert server.put(token, fresh, b"fresh").status_code == 200
    assert server.get(token, fresh).content == b"fresh"


def test_a_record_copied_from_a_pull_request_to_main_is_not_served(server):
    """CREEP by somebody with write access to the account: all signatures are genuine."""
    main, pull_request = server.token(), server.token(pr=1)
    assert server.put(pull_request, "999", b"poison").status_code == 200
    poison, planted = (
        f"records/{layout.record(Namespace.parse(namespace), Key('999'))}"
        for namespace in ("demo:pr/1", "demo:branch/main")
    )
    server.stored.write(planted, server.stored.read(poison))
    server.restart()
    assert server.get(main, "999").status_code == 404
    assert server.put(main, "999", b"genuine").status_code == 200
    assert server.get(main, "999").content == b"genuine"
    assert server.get(pull_request, "999").content == b"genuine"


def test_fsck_answers_5_to_every_change_of_the_log(make_server):
    server = make_server().start()
    for number in range(3):
        assert server.put(server.token(), str(number), b"x").status_code == 200
    wait_until(lambda: server.checkpoint()[0] >= 3 + 3, "the log")
    server.stop()
    stored = server.stored
    assert server.fsck().returncode == 0
    for pattern, how in (
        ("log/tile/0/*", "a bit"),
        ("log/tile/entries/*", "deleted"),
        ("log/checkpoint", "a bit"),
        ("log/head", "a bit"),
    ):
        # Of partial tiles the widest is the one that counts.
        name = max(stored.names(pattern), key=lambda name: (len(name), name))
        kept = stored.read(name)
        change(stored, name, DAMAGE[how])
        done = server.fsck()
        assert done.returncode == 5, (name, how, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        stored.write(name, kept)
    done = server.fsck()
    assert done.returncode == 0, done.stderr
