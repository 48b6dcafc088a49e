"""Nobody learns of an entry that he may not read: not from a look-up, nor from a store.

Attack table: 8 (secrets in artifacts), 9 (existence oracle), 25 (what is open without a token),
26 (links past the checks), 27 (error pages).
"""

import re

import pytest
from fakes.app_world import POLICY
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.anyio

VARYING = {"date", "x-secure-cache-entry"}
WHO = ("pull request", "other pull request", "branch", "other project", "developer", "blind", None)


def token_of(world, who):
    return {
        "pull request": lambda: world.pull_request(7),
        "other pull request": lambda: world.pull_request(8),
        "branch": lambda: world.main(ref="refs/heads/feature"),
        "other project": lambda: world.main(repository_id="101"),
        "developer": lambda: world.own(role="developer"),
        "blind": lambda: world.own(role="blind"),
        None: lambda: None,
    }[who]()


def face(answer):
    """All of an answer but what names a moment or a new entry."""
    headers = {name: value for name, value in answer.headers.items() if name not in VARYING}
    return answer.status_code, headers, answer.content


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
async def test_an_invisible_entry_answers_as_none_at_all(app_world, who, method):
    """The victim is a pull request that stored under `secret`; `absent` was never stored."""
    async with app_world.running() as world:
        victim = world.pull_request(1)
        assert (await world.put(victim, "secret", b"AKIA...")).status_code == 200
        body = {} if method != "PUT" else {"content": b"guess"}
        token = token_of(world, who)
        answers = [
            face(await world.request(method, f"/v1/cache/{key}", token, **body))
            for key in ("secret", "absent")
        ]
        assert answers[0] == answers[1]
        assert (await world.get(victim, "secret")).content == b"AKIA..."


@pytest.mark.parametrize("size", [1, 5_000_000])
async def test_a_store_of_the_same_bytes_is_no_shorter(app_world, size):
    """Also when somebody else has exactly these bytes: nothing is shared between namespaces."""
    async with app_world.running() as world:
        data = b"s" * size
        one = await world.put(world.pull_request(1), "1", data)
        objects = len(world.stored())
        same = await world.put(world.pull_request(2), "1", data)
        other = await world.put(world.pull_request(2), "2", b"t" * size)
        assert face(one) == face(same) == face(other)
        assert len(world.stored()) == objects * 3


@pytest.mark.parametrize(
    "hide",
    [
        'revocations: [{ id: r, match: { namespace: "mono:branch/main" }, reason: test }]',
        'epochs: { "mono:branch/main": 1 }\nrevocations: []',
    ],
)
async def test_what_was_taken_back_answers_as_none_at_all(app_world, hide):
    async with app_world.running() as world:
        assert (await world.put(world.main(), "taken", b"x")).status_code == 200
        world.edit(POLICY.replace("revocations: []", hide))
        reader = world.pull_request(7)
        assert face(await world.get(reader, "taken")) == face(await world.get(reader, "absent"))


async def test_a_rule_without_read_hides_secrets_baked_into_trusted_artifacts(app_world):
    async with app_world.running() as world:
        assert (await world.put(world.main(), "1", b"a secret")).status_code == 200
        blind = world.own(role="blind")
        assert face(await world.get(blind, "1")) == face(await world.get(blind, "2"))
        assert (await world.get(None, "1")).status_code == 404


OPEN = {
    "/healthz", "/readyz", "/metrics", "/log/checkpoint", "/log/vkeys", "/log/keys", "/v1/whoami",
    "/audit/sign-in",
}  # fmt: skip
CONSOLE = {"/audit/sign-in"}
"""A page, and the only one that is open; it is the same for everybody."""
CLOSED = (
    "/", "/admin", "/debug", "/console", "/audit/v1/entries", "/v1/cache", "/v1/cache/",
    "/log/", "/log/tile/0/000", "/log/tile/0/000.p/1", "/log/tile/entries/000.p/1", "/log/head",
    "/log/pending", "/keys", "/keys/log.key", "/policy.yaml", "/secure-cache.toml", "/data",
    "/.git/config", "/v1", "/v1/token", "/v1/cache/../../keys/log.key",
    "/v1/cache/%2e%2e%2fkeys%2flog.key", "/static/../keys/log.key",
)  # fmt: skip


async def test_what_is_open_without_a_token(app_world):
    async with app_world.running() as world:
        assert (await world.put(world.main(), "1", b"x")).status_code == 200
        for path in sorted(OPEN):
            assert (await world.request("GET", path)).status_code == 200, path
        for path in CLOSED:
            answer = await world.request("GET", path)
            assert answer.status_code in {401, 403, 404, 405}, path
            assert "PRIVATE" not in answer.text
        for path in ("/audit/", "/audit/entries/0", "/audit/policies"):
            answer = await world.request("GET", path)
            assert (answer.status_code, answer.content) == (303, b""), path
            # With the way back, which is what was asked for, and says nothing of what is there.
            assert answer.headers["location"].partition("?")[0] == "/audit/sign-in"
        assert "PRIVATE" not in (await world.request("GET", "/log/keys")).text
        await world.server._parts.log.flush()
        size = int((await world.request("GET", "/log/checkpoint")).text.split("\n")[1])
        tiles = [f"/log/tile/{kind}/000.p/{size}" for kind in ("0", "entries")]
        auditor = world.own(role="auditor")
        for path in tiles:
            assert (await world.request("GET", path)).status_code == 403
            assert (await world.request("GET", path, world.main())).status_code == 403
            assert (await world.request("GET", path, auditor)).status_code == 200
        for method in ("DELETE", "POST", "PATCH", "OPTIONS", "LIST", "PROPFIND", "TRACE"):
            answer = await world.request(method, "/v1/cache/1")
            assert answer.status_code in {404, 405}, method
        anonymous = (await world.request("GET", "/v1/whoami")).json()
        assert (anonymous["allowed"], anonymous["read"], anonymous["write"]) == (False, [], None)
        metrics = (await world.request("GET", "/metrics")).text
        assert "mono" not in metrics
        assert "octo-org" not in metrics


async def test_no_answer_is_a_page_or_a_link_elsewhere(app_world):
    async with app_world.running() as world:
        main = world.main()
        assert (await world.put(main, "1", b"x" * 70_000)).status_code == 200
        for token in (main, None, "garbage"):
            for method in ("GET", "HEAD", "PUT"):
                for path in (
                    "/v1/cache/1",
                    "/v1/cache/2",
                    "/v1/cache/a%00b",
                    *CLOSED,
                    *(OPEN - CONSOLE),
                ):
                    answer = await world.request(method, path, token)
                    assert not 300 <= answer.status_code < 400, path
                    assert "location" not in answer.headers
                    assert "html" not in answer.headers.get("content-type", "")
                    assert "traceback" not in answer.text.lower()


keys = st.from_regex(re.compile(r"[A-Za-z0-9_-]{1,128}"), fullmatch=True)


@settings(deadline=None, max_examples=20)
@given(existing=keys, absent=keys, data=st.binary(max_size=200))
def test_no_key_and_no_bytes_make_an_invisible_entry_show(existing, absent, data):
    """The property behind the examples, over stores in memory."""
    import anyio
    from fakes.cache_world import cache_world

    from secure_cache.model.errors import SecureCacheError

    if existing == absent:
        return

    async def ask(world, key, what):
        stranger = world.caller(pull_request="2", base="main")
        try:
            if what == "get":
                return await world.fetch(stranger, key)
            entry = await world.store(stranger, key, b"guess")
        except SecureCacheError as error:
            return type(error), error.code, str(error)
        return entry.tier, entry.size, str(entry.namespace)

    async def compare():
        async with cache_world() as world:
            await world.store(world.caller(pull_request="1", base="main"), existing, data)
            for what in ("get", "put", "get", "put"):
                assert await ask(world, existing, what) == await ask(world, absent, what)

    anyio.run(compare)
