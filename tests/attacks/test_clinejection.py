"""Cline, "Clinejection" 2026-02: an issue's title steered a triage bot, which flooded the cache
until main's entries were evicted, and planted its own in their place for the nightly release.

Attack table: 14 and 15 as far as this version goes: nothing is ever evicted from the store, and
what is kept in memory costs time and not entries. Quotas are not in this version.
"""

import pytest
from fakes.app_world import AppWorld

pytestmark = pytest.mark.anyio


@pytest.fixture
def small(tmp_path):
    """A memory of four records and four tokens: every one of them is pushed out by the flood."""
    return AppWorld(
        tmp_path,
        SECURE_CACHE_LIMITS__CACHED_RECORDS="4",
        SECURE_CACHE_TOKENS__CACHED_TOKENS="4",
    )


async def test_clinejection_eviction(small):
    async with small.running() as world:
        main = world.main()
        mains = [str(number) for number in range(8)]
        for key in mains:
            assert (await world.put(main, key, b"by main " + key.encode())).status_code == 200
        for number in range(60):
            job = world.pull_request(100 + number % 10)
            assert (await world.put(job, f"f{number}", b"x" * 2000)).status_code == 200
            await world.get(job, f"f{number}")

        for key in mains:
            assert (await world.get(main, key)).content == b"by main " + key.encode()


async def test_clinejection_the_triage_bot_and_the_nightly_run(app_world):
    async with app_world.running() as world:
        bot = world.main(event_name="issues")
        nightly = world.main(event_name="schedule")

        assert (await world.put(bot, "1", b"poison")).status_code == 403
        assert (await world.put(world.main(ref="refs/heads/bot"), "1", b"poison")).is_success
        assert (await world.get(nightly, "1")).status_code == 404
        assert (await world.put(nightly, "1", b"nightly")).status_code == 200
