"""tj-actions/changed-files, CVE-2025-30066: the runner's memory, tokens included, was printed into
public build logs of some 23 000 repositories.

Attack table: 20 (our own log), 23 (what a stolen token is worth).
"""

import io
import json

import pytest
import structlog
from fakes.app_world import POLICY

from secure_cache.observability.logging import configure_logging

pytestmark = pytest.mark.anyio


@pytest.fixture
def log():
    stream = io.StringIO()
    before = structlog.get_config()
    configure_logging(style="json", level="debug", stream=stream)
    yield stream
    structlog.configure(**before)


async def test_tj_actions_token_theft(app_world):
    async with app_world.running() as world:
        ci_token = world.main(run_id="31")
        session = (await world.exchange(ci_token)).json()["access_token"]

        # The CI token from the log: used up.
        replayed = await world.exchange(ci_token)
        assert (replayed.status_code, replayed.headers["x-secure-cache-reason"]) == (
            401,
            "token-replayed",
        )
        # The session from the log: taken back with its run, at once.
        assert (await world.put(session, "1", b"x")).status_code == 200
        line = 'revocations: [{ id: tj, match: { run_id: "31" }, reason: printed }]'
        world.edit(POLICY.replace("revocations: []", line))
        assert (await world.put(session, "2", b"poison")).status_code == 403
        assert (await world.get(session, "1")).status_code == 404
        # And without anybody doing anything: it ends.
        world.edit(POLICY)
        world.clock.advance(6 * 3600 + 31)
        late = await world.put(session, "3", b"poison")
        assert (late.status_code, late.headers["x-secure-cache-reason"]) == (403, "token-expired")


async def test_the_ci_token_itself_lives_five_minutes(app_world):
    async with app_world.running() as world:
        stolen = world.main()
        world.clock.advance(331)
        assert (await world.put(stolen, "1", b"poison")).status_code == 403
        assert (await world.exchange(stolen)).status_code == 401


async def test_no_token_stands_in_our_log_whatever_happens_to_it(app_world, log):
    async with app_world.running() as world:
        tokens = [world.main(), world.pull_request(7), world.main(aud="https://elsewhere")]
        tokens.append(tokens[0][:-4] + "AAAA")
        for token in tokens:
            await world.get(token, "1")
            await world.put(token, "1", b"x")
            await world.whoami(token)
            await world.exchange(token)
            await world.request("GET", f"/v1/{token}", token)
            await world.request("GET", f"/v1/whoami?token={token}")
    text = log.getvalue()
    assert text.count('"event":"request"') >= 6 * len(tokens)
    for token in tokens:
        for part in token.split("."):
            assert part not in text


HOSTILE = (
    "x\n" + json.dumps({"event": "request", "status": 200, "subject": "admin"}),
    "x\r\nGET / HTTP/1.1",
    "\x1b[2J\x1b[31mred",
    "\u202egpj.exe",
    "\u2028line",
    "A" * 4000,
)


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("claim", ["sub", "actor", "ref", "workflow_ref", "environment"])
async def test_a_claim_forges_no_line_of_the_log(app_world, log, claim, text):
    async with app_world.running() as world:
        before = len(log.getvalue().splitlines())
        await world.get(world.main(**{claim: text}), "1")
        lines = log.getvalue().splitlines()[before:]
    requests = [line for line in map(json.loads, lines) if line["event"] == "request"]
    assert len(requests) == 1
    assert requests[0]["status"] in {401, 404}
    for line in lines:
        assert line.isprintable()
        assert len(line) < 4000
