"""Promise 6 while keys change: what was acknowledged verifies, whenever its body began to come."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fakes.cache_world import cache_world

from secure_cache.model.errors import NotFound, Unavailable
from secure_cache.provenance.algorithms import Algorithm
from secure_cache.provenance.keys import KeyStatus, PublicKey, ring_of
from secure_cache.provenance.signers import Ed25519Signer

pytestmark = pytest.mark.anyio

SIZES = [5, 200_000]


def change_keys(world, **old):
    """A new key, valid from now on, and the one before as `old` says."""
    (key,) = world.ring.keys
    signer = Ed25519Signer(Ed25519PrivateKey.generate())
    fresh = PublicKey(Algorithm.ED25519, signer.public_pem, int(world.clock()) - 30)
    world.ring = ring_of([replace(key, **old), fresh])
    world.signer = signer


def body_during_which(world, size, happening):
    """A body that takes two minutes."""

    async def body():
        yield b"d" * (size - 1)
        world.clock.advance(120)
        happening()
        yield b"d"

    return body()


@pytest.mark.parametrize("size", SIZES)
async def test_what_came_in_during_a_rotation_can_be_read(size):
    async with cache_world() as world:
        main = world.caller(branch="main")

        def rotate():
            until = int(world.clock()) + 86_400
            change_keys(world, status=KeyStatus.RETIRED, not_after=until)

        data = b"d" * size
        entry = await world.store(main, "1", data, blocks=body_during_which(world, size, rotate))

        assert await world.fetch(main, "1") == data
        assert entry.stored_at < world.clock() - 100


@pytest.mark.parametrize("size", SIZES)
async def test_a_store_whose_key_is_revoked_meanwhile_is_not_acknowledged(size):
    async with cache_world() as world:
        main = world.caller(branch="main")

        def revoke():
            change_keys(world, status=KeyStatus.REVOKED)

        with pytest.raises(Unavailable):
            await world.store(main, "1", b"d" * size, blocks=body_during_which(world, size, revoke))

        with pytest.raises(NotFound):
            await world.fetch(main, "1")
        await world.store(main, "1", b"again")
        assert await world.fetch(main, "1") == b"again"
