"""What is taken back while it is being served."""

import os
from contextlib import AsyncExitStack

import pytest
from fakes.cache_world import POLICY, cache_world

from secure_cache.core.blocks import BLOCK_BYTES
from secure_cache.model.errors import NotFound, Revoked
from secure_cache.model.names import parse_key
from secure_cache.provenance.record import INLINE_BYTES

pytestmark = pytest.mark.anyio

TAKEN_BACK = [
    POLICY + "revocations:\n  - { id: r1, match: { namespace: 'demo:branch/main' }, reason: x }\n",
    POLICY + "epochs: { 'demo:branch/main': 1 }\n",
]


async def read(world, caller, received, edit):
    """Read key 1 into `received`; the policy is edited after its first block."""
    async with AsyncExitStack() as stack:
        artifact = await world.get(caller, parse_key("1"), stack)
        async for block in artifact.blocks:
            received += block
            world.edit(edit)


@pytest.mark.parametrize("edit", TAKEN_BACK, ids=["revocation", "epoch"])
async def test_no_block_is_sent_after_the_entry_was_taken_back(edit):
    data = os.urandom(5 * BLOCK_BYTES)
    async with cache_world() as world:
        main = world.caller(branch="main")
        await world.store(main, "1", data)
        received = bytearray()
        with pytest.raises(Revoked):
            await read(world, main, received, edit)

        # The generator was at most one block ahead of its reader.
        assert data.startswith(received)
        assert len(received) <= 2 * BLOCK_BYTES
        world.edit(POLICY)
        # It was no damage: nothing was quarantined.
        assert await world.fetch(world.caller(branch="main"), "1") == data


async def test_a_rule_that_changes_breaks_no_transfer():
    data = os.urandom(5 * BLOCK_BYTES)
    async with cache_world() as world:
        main = world.caller(branch="main")
        await world.store(main, "1", data)
        received = bytearray()
        edit = POLICY.replace("{ branch: main }, tier", "{ branch: trunk }, tier")
        await read(world, main, received, edit)

        assert received == data


@pytest.mark.parametrize("edit", TAKEN_BACK, ids=["revocation", "epoch"])
@pytest.mark.parametrize("size", [5, INLINE_BYTES + 1])
async def test_a_request_that_began_before_the_edit_and_has_no_byte_yet_is_a_miss(size, edit):
    async with cache_world() as world:
        main = world.caller(branch="main")
        await world.store(main, "1", b"x" * size)
        world.edit(edit)

        # With the decision and the policy of before.
        with pytest.raises(NotFound):
            await world.fetch(main, "1")
