"""`/readyz` is open to all: that something is wrong it may say, and what, the log alone."""

import pytest

pytestmark = pytest.mark.anyio

BAD = "version: 1\naudience: [secret-project-of-acme]\n"


async def test_readiness_tells_strangers_no_path_and_no_line_of_a_file(app_world):
    async with app_world.running() as world:
        world.policy.write_text(BAD)
        holder = world.server._parts.policy
        holder.look()
        holder.look()
        assert str(world.policy.name) in holder.trouble

        answer = await world.request("GET", "/readyz")
        assert answer.status_code == 200
        assert answer.json()["degraded"] is True
        assert answer.json()["checks"]["policy"] != "ok"
        assert answer.json()["checks"]["keys"] == "ok"
        for private in (str(world.folder), "policy.yaml", "audience", "secret-project"):
            assert private not in answer.text
