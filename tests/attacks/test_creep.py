"""CREEP, CVE-2025-36852: first to cache wins. A pull request computes the key that main will
compute, stores poison under it before main has built, and main ships the poison.

Attack table: 1 (CREEP), 2 (blocking main's store), 16 (predicted keys).
"""

import pytest

pytestmark = pytest.mark.anyio

POISON, GOOD = b"poison", b"what main built"


async def test_creep(app_world):
    async with app_world.running() as world:
        main, pull_request = world.main(), world.pull_request(104)
        assert (await world.put(pull_request, "123", POISON)).status_code == 200

        missed = await world.get(main, "123")
        assert (missed.status_code, missed.headers["x-secure-cache-reason"]) == (404, "miss")
        assert (await world.put(main, "123", GOOD)).status_code == 200, "main was locked out"
        assert (await world.get(main, "123")).content == GOOD
        assert (await world.get(pull_request, "123")).content == GOOD


async def test_creep_from_a_branch_of_the_same_repository(app_world):
    async with app_world.running() as world:
        main, branch = world.main(), world.main(ref="refs/heads/innocent")
        assert (await world.put(branch, "123", POISON)).status_code == 200

        assert (await world.get(main, "123")).status_code == 404
        assert (await world.put(main, "123", GOOD)).status_code == 200


async def test_creep_from_the_merge_queue(app_world):
    """The queue runs a workflow file that comes from the pull request."""
    async with app_world.running() as world:
        queue = world.main(
            event_name="merge_group", ref="refs/heads/gh-readonly-queue/main/pr-104-0a1b"
        )
        assert (await world.put(queue, "123", POISON)).status_code == 200

        assert (await world.get(world.main(), "123")).status_code == 404
        assert (await world.get(world.pull_request(105), "123")).status_code == 404


async def test_seeding_every_key_that_main_may_come_to_compute(app_world):
    async with app_world.running() as world:
        main, pull_request = world.main(), world.pull_request(104)
        keys = [str(number) for number in range(40)]
        for key in keys:
            assert (await world.put(pull_request, key, POISON)).status_code == 200
        for key in keys:
            assert (await world.get(main, key)).status_code == 404
            assert (await world.put(main, key, GOOD)).status_code == 200
            assert (await world.get(main, key)).content == GOOD
