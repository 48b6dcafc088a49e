"""Somebody has the key that signs the server's own tokens, until `keys revoke` and no longer."""

import pytest

from secure_cache.core.keystore import revoke, rotate

pytestmark = pytest.mark.anyio


async def test_after_the_revocation_no_token_of_the_key_is_taken_though_it_was_a_moment_ago(
    app_world,
):
    async with app_world.running() as world:
        stolen = world.own(branch="main")
        assert (await world.put(stolen, "1", b"x")).status_code == 200
        assert (await world.get(stolen, "1")).status_code == 200

        keys = world.server._parts.keys
        (key,) = keys.current.token_ring.keys
        revoke(world.folder / "keys", key.keyid, world.clock())
        await keys.reload()

        assert (await world.get(stolen, "1")).status_code == 401
        assert (await world.put(stolen, "2", b"x")).status_code == 401
        assert (await world.get(world.own(branch="main"), "1")).status_code == 200


async def test_a_retired_token_key_ends_on_time_though_nothing_else_changes(app_world):
    async with app_world.running() as world:
        old = world.own(branch="main")
        rotate(world.folder / "keys", "token", world.clock(), overlap_seconds=10)
        keys = world.server._parts.keys
        await keys.reload()
        assert (await world.get(old, "1")).status_code == 404
        world.clock.advance(9)
        assert (await world.get(old, "1")).status_code == 404
        world.clock.advance(2)
        assert (await world.get(old, "1")).status_code == 401
