"""An auditor who asks a running application."""

from contextlib import asynccontextmanager

import anyio

FAST = {
    "SECURE_CACHE_AUDIT__FOLLOW_SECONDS": "0.1",
    "SECURE_CACHE_LOG__COMMIT_INTERVAL_SECONDS": "0.05",
}
"""Settings of a server whose index follows quickly."""


async def until(condition):
    """Wait for something that only the outside can see."""
    with anyio.fail_after(60):
        while not await condition():  # noqa: ASYNC110
            await anyio.sleep(0.05)


@asynccontextmanager
async def running(world):
    """The application, with an auditor who asks."""
    async with world.running():
        world.auditor = world.own(role="auditor")
        yield Desk(world)


class Desk:
    def __init__(self, world):
        self.world = world

    async def get(self, path, **parameters):
        return await self.world.request(
            "GET", f"/audit/v1/{path}", self.world.auditor, params=parameters
        )

    async def ask(self, path, **parameters):
        answer = await self.get(path, **parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def all(self, **parameters):
        return (await self.ask("entries", limit=1000, **parameters))["entries"]

    async def indexed(self, entries):
        """Wait until so many stores are indexed, and the index is up to date."""

        async def all_are():
            status = await self.ask("status")
            if status.get("published") != status.get("indexed", -1):
                return False
            return (await self.ask("counts", event="stored"))["total"] >= entries

        await until(all_are)


async def stored(world, token, *keys, body=b"bytes"):
    for key in keys:
        assert (await world.put(token, key, body)).status_code == 200
