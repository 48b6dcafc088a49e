"""From a token to a caller: verified once, decided once, taken back at once."""

import pytest
from fakes.cache_world import POLICY, World

from secure_cache.core.access import Access
from secure_cache.model.errors import ExpiredToken, InvalidToken, Revoked

pytestmark = pytest.mark.anyio


class Counting:
    """A verifier that knows one token."""

    def __init__(self, world):
        self.world = world
        self.calls = 0
        self.identity = world.caller(branch="main", family="f1").identity

    async def verify(self, token):
        self.calls += 1
        if token != "good":
            raise InvalidToken("not that one")
        return self.identity


@pytest.fixture
def world():
    return World()


def access(world, verifier, **kwargs):
    return Access(verifier=verifier, policy=lambda: world.policy, clock=world.clock, **kwargs)


async def test_a_token_is_verified_once_for_many_requests(world):
    verifier = Counting(world)
    ask = access(world, verifier)
    callers = [await ask("good") for _ in range(5)]

    assert verifier.calls == 1
    assert {str(caller.decision.write) for caller in callers} == {"demo:branch/main"}


async def test_what_is_remembered_is_verified_again_after_a_minute(world):
    verifier = Counting(world)
    ask = access(world, verifier)
    await ask("good")
    world.clock.advance(61)
    await ask("good")

    assert verifier.calls == 2


async def test_a_new_policy_decides_anew_at_once(world):
    ask = access(world, Counting(world))
    await ask("good")
    world.edit(POLICY.replace("branch: main }, tier: trusted", "branch: trunk }, tier: trusted"))
    caller = await ask("good")

    assert caller.decision.rule == "feature"


async def test_a_revoked_family_is_refused_at_once(world):
    ask = access(world, Counting(world))
    await ask("good")
    world.edit(POLICY + "revocations:\n  - { id: r, match: { tid: f1 }, reason: stolen }\n")

    with pytest.raises(Revoked):
        await ask("good")


async def test_a_token_key_that_was_taken_back_counts_at_once(world):
    """`keys revoke` is for a stolen key: a minute of remembered answers is a minute of theft."""

    class KeyGone(Counting):
        async def verify(self, token):
            if self.calls:
                raise InvalidToken("its key was revoked")
            return await super().verify(token)

    keys = ["before"]
    ask = access(world, KeyGone(world), own_keys=lambda: keys[0])
    await ask("good")
    await ask("good")
    keys[0] = "after"

    with pytest.raises(InvalidToken):
        await ask("good")


async def test_a_remembered_token_expires_all_the_same(world):
    verifier = Counting(world)
    ask = access(world, verifier)
    world.clock.now = verifier.identity.expires_at
    await ask("good")
    world.clock.advance(31)

    with pytest.raises(ExpiredToken):
        await ask("good")
    assert verifier.calls == 1


async def test_a_bad_token_is_never_remembered_as_good(world):
    ask = access(world, Counting(world))
    for _ in range(2):
        with pytest.raises(InvalidToken):
            await ask("bad")


async def test_no_token_is_the_anonymous_caller_and_gets_nothing_by_default(world):
    caller = await access(world, Counting(world))(None)

    assert caller.identity is None
    assert not caller.decision.allowed
    assert caller.decision.read == ()


async def test_memory_is_bounded(world):
    class Everybody(Counting):
        async def verify(self, token):
            self.calls += 1
            return self.world.caller(branch=token).identity

    verifier = Everybody(world)
    ask = access(world, verifier, remembered=3)
    for name in "abcdabcd":
        await ask(name)

    assert len(ask._remembered) == 3
    assert verifier.calls == 8
