"""Events that strangers cause and whose token carries the default branch as its ref.

`pull_request_target`, `issue_comment`, `workflow_run` and some twenty others run with
`ref: refs/heads/main`, and a merged pull request's `closed` run does too. Whoever compares the ref
alone takes them for main (nx s1ngularity 2025-08, TanStack 2026-05).
"""

import pytest

pytestmark = pytest.mark.anyio

STRANGERS_EVENTS = (
    "pull_request_target",
    "pull_request_review",
    "issue_comment",
    "issues",
    "discussion_comment",
    "workflow_run",
    "workflow_dispatch",
    "repository_dispatch",
    "check_suite",
    "fork",
    "watch",
    "gollum",
    "status",
    "label",
    "delete",
    "page_build",
)


@pytest.mark.parametrize("event", STRANGERS_EVENTS)
async def test_pull_request_target(app_world, event):
    async with app_world.running() as world:
        main = world.main()
        assert (await world.put(main, "1", b"by main")).status_code == 200
        before = world.stored()
        job = world.main(event_name=event)

        stored, read = await world.put(job, "2", b"poison"), await world.get(job, "1")
        assert (stored.status_code, read.status_code) == (403, 404)
        assert stored.headers["x-secure-cache-reason"] == "denied"
        assert world.stored() == before
        session = (await world.exchange(world.main(event_name=event))).json()
        if token := session.get("access_token"):
            assert (await world.put(token, "2", b"poison")).status_code == 403
        assert (await world.get(main, "2")).status_code == 404


async def test_a_merged_pull_requests_last_run_is_not_main(app_world):
    """`pull_request: closed` of a merged pull request has the base branch as its ref."""
    async with app_world.running() as world:
        closed = world.main(event_name="pull_request", base_ref="main", head_ref="fix")

        assert (await world.put(closed, "1", b"poison")).status_code == 403
        assert (await world.get(world.main(), "1")).status_code == 404
