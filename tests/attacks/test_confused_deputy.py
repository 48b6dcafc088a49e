"""The project is what the token proves, and nothing that a request says beside it.

Attack table: 11. GitHub and GitLab sign for everybody, so pins are what keeps strangers out.
"""

import itertools

import pytest

pytestmark = pytest.mark.anyio


async def test_a_job_of_one_project_touches_no_other(app_world):
    async with app_world.running() as world:
        tokens = {
            "mono": world.main(),
            "other": world.main(repository_id="101"),
            "lab": world.gitlab.token(),
        }
        for project, token in tokens.items():
            assert (await world.put(token, "1", project.encode())).status_code == 200
        for project, token in tokens.items():
            assert (await world.get(token, "1")).content == project.encode()
            assert (await world.whoami(token))["project"] == project


HEADERS = {
    "x-project": "other",
    "x-secure-cache-project": "other",
    "x-secure-cache-namespace": "other:branch/main",
    "x-artifact-read-scopes": "main,own",
    "x-forwarded-user": "admin",
    "x-original-url": "/v1/cache/2",
    "x-http-method-override": "PUT",
    "x-forwarded-prefix": "/other",
    "cookie": "project=other",
    "host": "other.example",
}


async def test_what_a_request_says_beside_its_token_changes_nothing(app_world):
    async with app_world.running() as world:
        mono, other = world.main(), world.main(repository_id="101")
        assert (await world.put(other, "1", b"of other")).status_code == 200
        for path, (name, value) in itertools.product(
            ("/v1/cache/1", "/v1/cache/1?slug=other&teamId=other&project=other"), HEADERS.items()
        ):
            answer = await world.request("GET", path, mono, headers={name: value})
            assert answer.status_code == 404, (path, name)
            assert b"of other" not in answer.content


@pytest.mark.parametrize(
    "claims",
    [
        {"repository_owner_id": "66"},
        {"repository_id": "999"},
        # A name that was given up and registered again by somebody else.
        {"repository_id": "999", "repository": "octo-org/octo-repo"},
        {"repository_owner_id": 65},
        {"repository_id": ["74"]},
        {"repository_id": "074"},
    ],
)
async def test_a_repository_of_strangers_is_denied(app_world, claims):
    async with app_world.running() as world:
        stranger = world.main(**claims)
        assert (await world.put(stranger, "1", b"x")).status_code in {401, 403}
        assert world.stored() == []


async def test_one_issuer_cannot_speak_for_the_other(app_world):
    """GitLab's key under GitHub's name, and GitLab claims that look like GitHub's."""
    async with app_world.running() as world:
        forged = world.github.token(key=world.gitlab.key)
        assert (await world.put(forged, "1", b"x")).status_code == 401
        dressed = world.gitlab.token(
            repository_id="74",
            repository_owner_id="65",
            event_name="push",
            without=("project_id",),
        )
        assert (await world.put(dressed, "1", b"x")).status_code == 403
