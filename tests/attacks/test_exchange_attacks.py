"""The token exchange: one session for one CI token, whatever is tried."""

from dataclasses import replace

import anyio
import pytest
from fakes.policy import issuer_entry
from fakes.verifying import World

from secure_cache.identity.exchange import REMEMBERED_SECONDS, TokenExchange
from secure_cache.identity.issue import Grant
from secure_cache.model.errors import (
    AlreadyExists,
    Denied,
    ExpiredToken,
    InvalidToken,
    Malformed,
    ReplayedToken,
    Revoked,
    SecureCacheError,
    StorageForbidden,
    StorageUnavailable,
    TokenProblem,
)
from secure_cache.policy.decision import Decision, Hidden
from secure_cache.storage.memory import MemoryStore

pytestmark = pytest.mark.anyio


class Exchanging(World):
    def __post_init__(self):
        super().__post_init__()
        self.state = MemoryStore(immutable=True)
        self.exchange = self.process()

    def process(self, **changes):
        """One more process that shares the store."""
        return TokenExchange(
            **(
                {
                    "verifier": self.verifier,
                    "policy": lambda: self.policy,
                    "state": self.state,
                    "issuer": lambda: self.token_issuer,
                    "clock": self.clock,
                }
                | changes
            )
        )

    async def used(self):
        return [info.name async for info in self.state.list("jti/")]


@pytest.fixture
def world():
    return Exchanging()


async def test_a_session_proves_the_job_of_the_token(world):
    done = await world.exchange.exchange(world.issuer.token())
    session = await world.verifier.verify(done.session.token)
    assert session.claims == done.identity.claims
    assert session.family == done.identity.token_id
    assert done.session.expires_at == int(world.clock()) + 6 * 3600


async def test_a_token_stolen_from_a_log_is_worth_nothing_after_its_exchange(world):
    token = world.issuer.token()
    await world.exchange.exchange(token)
    for exchange in (world.exchange, world.process()):
        with pytest.raises(ReplayedToken):
            await exchange.exchange(token)


async def test_twenty_parallel_exchanges_give_one_session(world):
    token = world.issuer.token()
    results = []

    async def attempt():
        try:
            results.append(await world.process().exchange(token))
        except ReplayedToken as error:
            results.append(error)

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(attempt)
    assert len(results) == 20
    assert sum(not isinstance(result, ReplayedToken) for result in results) == 1
    assert len(await world.used()) == 1


@pytest.mark.parametrize("without", [[], ["jti"]])
async def test_a_used_token_is_used_until_no_clock_accepts_it(world, without):
    token = world.issuer.token(without=without)
    await world.exchange.exchange(token)
    world.clock.advance(330)
    with pytest.raises(ReplayedToken):
        await world.exchange.exchange(token)
    world.clock.advance(1)
    with pytest.raises(ExpiredToken):
        await world.exchange.exchange(token)


async def test_an_edit_of_the_policy_does_not_make_a_used_token_new(world):
    token = world.issuer.token(iat=int(world.clock()) - 200, exp=int(world.clock()) + 3000)
    entry = world.policy.issuers[0]
    world.policy = replace(world.policy, issuers=(replace(entry, max_age_seconds=300),))
    await world.exchange.exchange(token)
    world.policy = replace(
        world.policy, sha256="2" * 64, issuers=(replace(entry, max_age_seconds=200_000),)
    )
    with pytest.raises(ReplayedToken):
        await world.exchange.exchange(token)


async def test_an_issuer_can_not_use_up_the_ids_of_another(world):
    other = Exchanging()
    entry = issuer_entry("https://other.example", name="other")
    world.policy = replace(world.policy, issuers=(*world.policy.issuers, entry))
    other.issuer._iss = "https://other.example"
    world.keys.issuers["https://other.example"] = other.issuer
    victim = world.issuer.token(jti="the-same")
    await world.exchange.exchange(other.issuer.token(jti="the-same"))
    assert await world.exchange.exchange(victim)


async def test_our_own_tokens_are_not_exchanged_for_ever(world):
    session = (await world.exchange.exchange(world.issuer.token())).session
    issued = world.token_issuer.issue_token(Grant("mono", branch="main"))
    for token in (session.token, issued.token):
        with pytest.raises(InvalidToken) as caught:
            await world.exchange.exchange(token)
        assert caught.value.problem is TokenProblem.NOT_EXCHANGEABLE
    assert len(await world.used()) == 1


class FailingStore:
    def __init__(self, error):
        self.error = error

    async def create(self, name, data):
        raise self.error

    def begin_upload(self, name):
        raise NotImplementedError


@pytest.mark.parametrize("error", [StorageUnavailable("down"), StorageForbidden("no")])
async def test_without_the_store_there_is_no_session(world, error):
    exchange = world.process(state=FailingStore(error))
    with pytest.raises(type(error)):
        await exchange.exchange(world.issuer.token())


class GenerousStore:
    """Lets the same bytes be created again, as a store may that resolves a retry."""

    def __init__(self):
        self.objects = {}

    async def create(self, name, data):
        if self.objects.setdefault(name, data) != data:
            raise AlreadyExists(name)

    def begin_upload(self, name):
        raise NotImplementedError


async def test_a_store_that_forgives_retries_does_not_forgive_replays(world):
    exchange = world.process(state=GenerousStore())
    token = world.issuer.token()
    await exchange.exchange(token)
    with pytest.raises(ReplayedToken):
        await exchange.exchange(token)


@pytest.mark.parametrize("refusal", ["denied", "revoked"])
async def test_a_refused_token_stays_unused(world, refusal):
    token = world.issuer.token()
    allowed = world.policy
    if refusal == "denied":
        answer = Decision(allowed=False, reason="no rule matches this job")
        world.policy = replace(allowed, decision=answer)
        expected = Denied
    else:
        world.policy = replace(allowed, hidden=Hidden("revocation r1", "revocation r1"))
        expected = Revoked
    with pytest.raises(expected):
        await world.exchange.exchange(token)
    assert await world.used() == []
    world.policy = allowed
    assert await world.exchange.exchange(token)


async def test_a_token_that_outlives_the_memory_of_used_ones_is_not_exchanged():
    world = Exchanging(entry={"max_lifetime_seconds": 10**7, "max_age_seconds": 10**7})
    now = int(world.clock())
    with pytest.raises(InvalidToken) as caught:
        await world.exchange.exchange(world.issuer.token(exp=now + REMEMBERED_SECONDS))
    assert caught.value.problem is TokenProblem.TIMES
    assert await world.exchange.exchange(world.issuer.token(exp=now + REMEMBERED_SECONDS - 100))


async def test_a_session_longer_than_six_hours_is_never_made(world):
    exchange = world.process(session_seconds=6 * 3600 + 1)
    with pytest.raises(Malformed):
        await exchange.exchange(world.issuer.token())
    assert await world.used() == []


async def test_a_bad_token_leaves_no_trace(world):
    for token in ("", "x.y.z", world.issuer.token()[:-6] + "AAAAAA", world.issuer.token(aud="x")):
        with pytest.raises(SecureCacheError):
            await world.exchange.exchange(token)
    assert await world.used() == []
