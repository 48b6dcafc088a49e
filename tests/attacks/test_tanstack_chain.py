"""TanStack, CVE-2026-45321, link by link.

A fork's pull request ran under `pull_request_target`, wrote a poisoned entry into the cache under
main's scope; the release job restored it; the poison took the job's OIDC token out of the runner's
memory and published 84 versions with valid provenance. Each link is broken here by itself.

Attack table: 23 (stolen tokens), 30 (publishing jobs that restore).
"""

import pytest
from fakes.app_world import POLICY

pytestmark = pytest.mark.anyio


async def test_tanstack_chain(app_world):
    async with app_world.running() as world:
        # 1. The fork's code runs in the base repository's context and writes under main's scope.
        target = world.main(event_name="pull_request_target", head_ref="main", base_ref="main")
        assert (await world.put(target, "1", b"poison")).status_code == 403
        # 2. The same from its own pull request: kept apart.
        assert (await world.put(world.pull_request(9), "1", b"poison")).status_code == 200
        # 3. The release job restores: it reads nothing, not even what main stored.
        assert (await world.put(world.main(), "2", b"by main")).status_code == 200
        release = world.main(environment="npm")
        for key in ("1", "2"):
            assert (await world.get(release, key)).status_code == 404
        assert (await world.put(release, "3", b"by the release")).status_code == 403
        # 4. A token out of the runner's memory: the job exchanged it, so it is used up.
        stolen = world.main()
        assert (await world.exchange(stolen)).status_code == 200
        assert (await world.exchange(stolen)).status_code == 401


async def test_tanstack_chain_when_the_poison_was_in_main_after_all(app_world):
    """A trusted run was taken over. One line in the policy takes back all that it wrote and could
    still write, and the next honest run of main is not blocked by it."""
    async with app_world.running() as world:
        taken = world.main(run_id="666")
        session = (await world.exchange(taken)).json()["access_token"]
        assert (await world.put(session, "1", b"poison")).status_code == 200
        assert (await world.get(world.main(), "1")).content == b"poison"

        line = 'revocations: [{ id: i1, match: { run_id: "666" }, reason: "taken over" }]'
        world.edit(POLICY.replace("revocations: []", line))

        answer = await world.put(session, "2", b"more poison")
        assert (answer.status_code, answer.headers["x-secure-cache-reason"]) == (403, "revoked")
        assert (await world.get(world.main(), "1")).status_code == 404
        assert (await world.get(world.pull_request(9), "1")).status_code == 404
        assert (await world.put(world.main(), "1", b"rebuilt")).status_code == 200
        assert (await world.get(world.main(), "1")).content == b"rebuilt"
