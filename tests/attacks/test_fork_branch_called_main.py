"""A fork calls its branch `main` and opens a merge request (GitLab, HackerOne 3137660), or its
branch name is built to be read as another one (Ultralytics 2024-12: names as injections)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_cache.model.names import Namespace, parse_key
from secure_cache.storage import layout

pytestmark = pytest.mark.anyio

FORK = {"pipeline_source": "merge_request_event", "ref_protected": "false"}


@pytest.mark.parametrize(
    "claims",
    [
        FORK | {"project_id": "20", "job_project_id": "99"},
        # An instance from before the fix: everything says that it is the victim's own main.
        FORK | {"ref_protected": "true"},
        FORK | {"ref_protected": "true", "job_project_id": None},
    ],
    ids=["fixed", "lying", "old"],
)
async def test_fork_branch_called_main(app_world, claims):
    async with app_world.running() as world:
        main, fork = world.gitlab.token(), world.gitlab.token(**claims)
        assert (await world.put(main, "1", b"by main")).status_code == 200
        assert (await world.whoami(fork))["write"] == "mr/20/refs/heads/main"

        assert (await world.put(fork, "2", b"poison")).status_code == 200
        assert (await world.get(main, "2")).status_code == 404
        assert (await world.put(main, "2", b"by main")).status_code == 200


async def test_a_push_whose_code_is_from_another_project_is_nobody(app_world):
    async with app_world.running() as world:
        fork = world.gitlab.token(job_project_id="99")
        assert (await world.put(fork, "1", b"poison")).status_code == 403
        assert (await world.get(world.gitlab.token(), "1")).status_code == 404


async def test_an_unprotected_main_is_not_trusted(app_world):
    async with app_world.running() as world:
        job = world.gitlab.token(ref_protected="false")
        assert (await world.put(job, "1", b"poison")).status_code == 403


async def test_a_github_fork_is_its_number_whatever_its_branch_is_called(app_world):
    async with app_world.running() as world:
        fork = world.pull_request(7, head_ref="main", base_ref="main")
        assert (await world.whoami(fork))["write"] == "pr/7"
        assert (await world.put(fork, "1", b"poison")).status_code == 200
        assert (await world.get(world.main(), "1")).status_code == 404


@pytest.mark.parametrize(
    "ref",
    [
        "refs/heads/main\n",
        "refs/heads/main ",
        "refs/heads/main/",
        "refs/heads//main",
        "refs/heads/./main",
        "refs/heads/x/../main",
        "refs/heads/main\x00",
        "refs/heads/\u202emain",
        "refs/heads/ma\u200bin",
        "refs/heads/\uff4dain",
        "refs/heads/Main",
        "refs/heads/%6dain",
        "refs/heads/main%2f",
        "refs/heads/refs/heads/main",
        "refs/heads/$(main)",
        "refs/heads/'; DROP TABLE main; --",
        "refs/tags/main",
        "main",
    ],
)
async def test_a_branch_name_that_looks_like_main_is_not_main(app_world, ref):
    async with app_world.running() as world:
        ref_type = "tag" if ref.startswith("refs/tags") else "branch"
        job = world.main(ref=ref, ref_type=ref_type)
        told = await world.whoami(job)
        assert told["write"] != "branch/main"
        assert told["tier"] != "trusted"
        await world.put(job, "1", b"poison")
        assert (await world.get(world.main(), "1")).status_code == 404


names = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=40)
places = st.tuples(
    st.sampled_from(["mono", "mono-a", "a"]),
    st.sampled_from(["branch", "pr", "mr", "sub"]),
    names.filter(lambda name: name.isprintable()),
    st.text("aA0_-", min_size=1, max_size=8),
)


@given(places, places)
def test_two_places_never_share_a_stored_object(one, other):
    """Also not on a store that folds case, normalises Unicode or resolves dots."""
    paths = []
    for project, kind, name, key in (one, other):
        path = layout.record(Namespace(project, kind, name), parse_key(key))
        assert path.isascii()
        assert ".." not in path
        paths.append(path)
    same = one == other
    assert (paths[0] == paths[1]) is same
    if one[:3] != other[:3]:
        folded = [path.rpartition("/")[0].casefold() for path in paths]
        assert folded[0] != folded[1]
