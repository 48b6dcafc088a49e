"""The entry keys: announced by the log, given by whoever has them."""

import json

import pytest
from fakes.audit import leaf_of_event
from fakes.signed_log import TRUST, SignedLog
from fakes.statements import ed25519_signer, public_key, ring_for

from secure_cache.client.key_ring import KeysGiven, announced_ring, read_ring
from secure_cache.model.errors import LogInconsistent, Malformed, Unavailable
from secure_cache.provenance.event import KeysChanged
from secure_cache.provenance.keys import ring_of
from secure_cache.tlog.fetched import FetchedLog

pytestmark = pytest.mark.anyio

STRANGER = ed25519_signer(7)


async def ring_of_log(log, index, *, ring_for_digest=None, waits=()):
    async def find():
        return index() if callable(index) else index

    given = KeysGiven(find, ring_for_digest or log.ring_for)
    return await announced_ring(FetchedLog(log.fetch, TRUST), given, waits=waits)


async def test_the_ring_is_the_one_that_the_log_announced():
    log = SignedLog().grow_to(10)
    assert (await ring_of_log(log, 0)).encode() == log.ring
    log.ring = ring_for(STRANGER).encode()
    with pytest.raises(LogInconsistent, match="which entry 0 of the log announced"):
        await ring_of_log(log, 0, waits=(0, 0))


@pytest.mark.parametrize("index", [1, 5])
async def test_an_entry_that_announces_no_keys_is_refused(index):
    with pytest.raises(LogInconsistent, match="announces no keys"):
        await ring_of_log(SignedLog().grow_to(10), index)


async def test_an_entry_that_the_log_does_not_have_is_refused():
    with pytest.raises(LogInconsistent, match="announces no keys"):
        await ring_of_log(SignedLog().grow_to(10), 10, waits=(0,))


async def test_a_ring_that_did_not_sign_its_own_event_is_refused():
    log = SignedLog().grow_to(10)
    log.announce(ring_for(STRANGER), by=log.entry_signer)
    with pytest.raises(LogInconsistent, match="did not sign its own event"):
        await ring_of_log(log, 10)


@pytest.mark.parametrize("document", [b"", b"{}", b"[" * 100_000, b'{"keys":[],"v":1} '])
async def test_what_is_no_ring_is_refused_even_if_the_log_announces_it(document):
    from secure_cache.model.digest import Digest

    log = SignedLog().grow_to(10)
    log.leaves.append(leaf_of_event(KeysChanged(Digest.of(document))))
    log.publish()
    log.ring = document
    with pytest.raises(LogInconsistent, match="not well formed"):
        await ring_of_log(log, 10)


async def test_keys_that_change_meanwhile_are_looked_at_again():
    log = SignedLog().grow_to(10)
    new = ed25519_signer(2)
    ring = ring_of([public_key(log.entry_signer), public_key(new)])
    asked = []

    async def given(_sha256):
        asked.append(len(log.leaves))
        if len(asked) == 2:
            log.announce(ring, by=new)
        return ring.encode()

    newest = lambda: 10 if len(log.leaves) > 10 else 0  # noqa: E731
    found = await ring_of_log(log, newest, ring_for_digest=given, waits=(0, 0, 0))
    assert found == ring
    assert asked == [10, 10, 11]


@pytest.mark.parametrize("announced", ["the right keys", "others"])
async def test_what_a_stranger_announces_keeps_nobody_from_the_keys(announced):
    """Whoever can write where batches wait can append; nothing that he says is signed."""
    log = SignedLog().grow_to(10)
    right = ring_of([public_key(log.entry_signer)])
    ring = right if announced == "the right keys" else ring_for(STRANGER)
    log.leaves += [leaf_of_event(KeysChanged(ring.digest), signer=STRANGER)] * 2
    log.publish()

    async def find():
        return 11

    async def older(sha256):
        assert sha256 == str(right.digest)
        return [11, 10, 5, 0]

    fetched = FetchedLog(log.fetch, TRUST)
    given = KeysGiven(find, log.ring_for, older)
    assert (await announced_ring(fetched, given, waits=(0,))).encode() == log.ring
    log.ring = ring_for(ed25519_signer(8)).encode()

    async def none(_sha256):
        return [11, 10, 5]

    with pytest.raises(LogInconsistent, match="which entry 11 of the log announced"):
        await announced_ring(fetched, KeysGiven(find, log.ring_for, none), waits=(0,))


async def test_a_place_that_does_not_answer_is_not_taken_for_a_liar():
    async def given(_sha256):
        raise Unavailable("a fault")

    with pytest.raises(Unavailable, match="a fault"):
        await ring_of_log(SignedLog(), 0, ring_for_digest=given)


def test_keys_are_read_from_either_document():
    ring = ring_of([public_key(ed25519_signer(1)), public_key(ed25519_signer(2), not_after=9)])
    assert read_ring(ring.encode()) == ring
    rows = [
        {
            "kind": "entry",
            "id": key.keyid,
            "algorithm": str(key.algorithm),
            "pem": key.pem,
            "status": str(key.status),
            "not_before": key.document()["notBefore"],
            "not_after": key.document().get("notAfter"),
        }
        for key in ring.keys
    ]
    token = {**rows[0], "kind": "token", "id": "ab"}
    assert read_ring(json.dumps({"log": "vkey", "keys": [*rows, token]}).encode()) == ring
    for bad in (b"", b"{}", b'{"log": 1}', b'{"log": 1, "keys": [{"kind": "entry"}]}'):
        with pytest.raises(Malformed, match="not the keys of entries"):
            read_ring(bad)
