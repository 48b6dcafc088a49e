"""The server's own token keys, as asked for at every request."""

import pytest
from fakes.clock import HeldClock

from secure_cache.compose.telling import own_keys
from secure_cache.core.key_folder import KeyFolder
from secure_cache.core.keystore import Keystore, create_keystore, revoke, rotate


@pytest.fixture
def clock():
    return HeldClock()


@pytest.fixture
def folder(tmp_path, clock):
    create_keystore(tmp_path / "keys", log_origin="cache.acme.example/log", now=clock())
    return tmp_path / "keys"


def kids(found):
    return {key.kid for key in found.keys}


def rotated(folder, clock):
    """The id of the old token key, after a rotation that keeps it for ten minutes."""
    old = kids(own_keys(KeyFolder(folder), clock)())
    rotate(folder, "token", clock(), overlap_seconds=600)
    return old


def test_keys_are_read_once_and_not_at_every_request(folder, clock, monkeypatch):
    reads = []
    real = Keystore.token_public_keys
    monkeypatch.setattr(
        Keystore, "token_public_keys", lambda self, at: reads.append(at) or real(self, at)
    )
    current = own_keys(KeyFolder(folder), clock)
    first = current()
    clock.advance(3600)

    assert current() is first
    assert len(reads) == 1


def test_a_retired_key_leaves_when_its_time_is_over(folder, clock):
    old = rotated(folder, clock)
    current = own_keys(KeyFolder(folder), clock)
    both = kids(current())
    assert old < both
    clock.advance(601)

    assert kids(current()) == both - old


def test_a_clock_that_was_set_back_brings_a_retired_key_back(folder, clock):
    old = rotated(folder, clock)
    current = own_keys(KeyFolder(folder), clock)
    clock.advance(601)
    assert not old & kids(current())
    clock.advance(-300)

    assert old < kids(current())


@pytest.mark.anyio
async def test_a_revoked_key_leaves_with_the_next_look_at_the_folder(folder, clock):
    keys = KeyFolder(folder)
    current = own_keys(keys, clock)
    before = current()
    (key,) = keys.current.token_ring.keys
    revoke(folder, key.keyid, clock())
    await keys.reload()

    assert not kids(before) & kids(current())
