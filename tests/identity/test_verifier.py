"""The verifier as a service: what it remembers, and for how long."""

from dataclasses import replace

import pytest
from fakes.issuer import sign
from fakes.policy import AUDIENCE, issuer_entry
from fakes.verifying import ISS, World

from secure_cache.identity import verifier as module
from secure_cache.model.errors import ExpiredToken, InvalidToken, TokenProblem
from secure_cache.policy.preset import PresetOptions

pytestmark = pytest.mark.anyio


@pytest.fixture
def world():
    return World()


async def test_a_token_is_verified_once_and_then_remembered(world):
    token = world.issuer.token()
    first = await world.verifier.verify(token)
    for _ in range(5):
        assert await world.verifier.verify(token) == first
    assert world.keys.asked == 1
    world.clock.advance(301)
    assert await world.verifier.verify(token) == first
    assert world.keys.asked == 2


async def test_a_remembered_token_still_expires(world):
    token = world.issuer.token(exp=int(world.clock()) + 60)
    await world.verifier.verify(token)
    world.clock.advance(91)
    with pytest.raises(ExpiredToken):
        await world.verifier.verify(token)


async def test_a_new_policy_verifies_again(world):
    token = world.issuer.token()
    await world.verifier.verify(token)
    world.policy = replace(world.policy, sha256="1" * 64, issuers=())
    with pytest.raises(InvalidToken) as caught:
        await world.verifier.verify(token)
    assert caught.value.problem is TokenProblem.UNKNOWN_ISSUER


async def test_another_audience_in_the_policy_counts_at_once(world):
    token = world.issuer.token()
    await world.verifier.verify(token)
    world.policy = replace(world.policy, sha256="1" * 64, audience="https://new.example")
    with pytest.raises(InvalidToken) as caught:
        await world.verifier.verify(token)
    assert "https://new.example" in caught.value.hint


async def test_a_wrong_signature_is_remembered_for_a_minute(world):
    good = world.issuer.token()
    bad = good[:-6] + "AAAAAA"
    for _ in range(3):
        with pytest.raises(InvalidToken) as caught:
            await world.verifier.verify(bad)
        assert caught.value.problem is TokenProblem.SIGNATURE
    assert world.keys.asked == 1
    world.clock.advance(61)
    with pytest.raises(InvalidToken):
        await world.verifier.verify(bad)
    assert world.keys.asked == 2
    assert await world.verifier.verify(good)


async def test_an_unknown_key_is_not_remembered(world):
    published = list(world.issuer.published)
    token = world.issuer.token()
    world.issuer.published.clear()
    with pytest.raises(InvalidToken):
        await world.verifier.verify(token)
    world.issuer.published.extend(published)
    assert await world.verifier.verify(token)


async def test_memory_is_bounded(world, monkeypatch):
    monkeypatch.setattr(module, "_REMEMBERED", 3)
    monkeypatch.setattr(module, "_REMEMBERED_BAD", 3)
    for number in range(6):
        token = world.issuer.token(run_id=str(number))
        await world.verifier.verify(token)
        with pytest.raises(InvalidToken):
            await world.verifier.verify(token[:-6] + "AAAAAA")
    assert len(world.verifier._good) == 3
    assert len(world.verifier._bad) == 3


async def test_the_identity_holds_known_claims_only_and_unknown_ones_are_counted(world):
    token = world.issuer.token(sha="abc", brand_new="x", another={"a": 1})
    identity = await world.verifier.verify(token)
    assert identity.claims == (
        ("event_name", "push"),
        ("ref", "refs/heads/main"),
        ("ref_type", "branch"),
        ("repository_id", "74"),
        ("repository_owner_id", "65"),
        ("sha", "abc"),
    )
    assert world.unknown == [("ci", frozenset({"brand_new", "another"}))]
    assert identity.subject.startswith("repo:")
    assert identity.family is None


async def test_claims_that_name_people_are_neither_kept_nor_counted():
    world = World(entry={"preset": "gitlab"})
    identity = await world.verifier.verify(
        world.issuer.token(user_email="a@example.com", user_login="a", project_id="1")
    )
    assert not {"user_email", "user_login"} & identity.claim_map.keys()
    assert "user_email" not in world.unknown[0][1]


async def test_claims_that_the_admin_mapped_are_kept():
    options = PresetOptions(claim_names=(("branch", "my_branch"), ("kept:team", "team")))
    world = World(entry={"preset": "generic", "options": options})
    identity = await world.verifier.verify(
        world.issuer.token(my_branch="main", team="a", other="b")
    )
    assert identity.claim_map["my_branch"] == "main"
    assert identity.claim_map["team"] == "a"
    assert "other" not in identity.claim_map


@pytest.mark.parametrize("value", ["x" * 1025, "\u00e9" * 513, 2**53, ["x"] * 65])
async def test_a_known_claim_over_the_limits_refuses_the_token(world, value):
    with pytest.raises(InvalidToken) as caught:
        await world.verifier.verify(world.issuer.token(sha=value))
    assert caught.value.problem is TokenProblem.CLAIMS


async def test_an_object_in_a_known_claim_is_dropped(world):
    token = world.issuer.token(sha={"a": 1}, workflow=[["a"]], actor=["a", 1, None])
    identity = await world.verifier.verify(token)
    assert "sha" not in identity.claim_map
    assert "workflow" not in identity.claim_map
    assert identity.claim_map["actor"] == ("a", 1, None)


async def test_a_list_of_audiences_needs_a_preset_that_allows_it(world):
    entry = world.policy.issuers[0]
    multi = replace(entry, preset=replace(entry.preset, multi_audience=True))
    world.policy = replace(world.policy, issuers=(multi,))
    for audience in ([AUDIENCE], [AUDIENCE, "https://other.example"], AUDIENCE):
        assert await world.verifier.verify(world.issuer.token(aud=audience))
    for audience in ([], ["x"], [AUDIENCE, 1], [AUDIENCE] * 11, [[AUDIENCE]], {AUDIENCE: 1}):
        with pytest.raises(InvalidToken):
            await world.verifier.verify(world.issuer.token(aud=audience))


async def test_a_token_without_kid_is_judged_by_the_only_key(world):
    token = world.issuer.token()
    header = {"alg": "RS256"}
    claims = {"aud": AUDIENCE, "sub": "x", "iss": ISS, "iat": 1_800_000_000, "exp": 1_800_000_300}
    assert await world.verifier.verify(sign(header, claims, world.issuer.key))
    assert await world.verifier.verify(token)
    world.issuer.rotate(keep=True)
    with pytest.raises(InvalidToken):
        await world.verifier.verify(sign(header, claims | {"sub": "y"}, world.issuer.key))


async def test_one_issuer_can_not_sign_for_another(world):
    other = issuer_entry("https://other.example", name="other")
    world.policy = replace(world.policy, issuers=(*world.policy.issuers, other))
    world.keys.issuers["https://other.example"] = World("ES256").issuer
    with pytest.raises(InvalidToken):
        await world.verifier.verify(world.issuer.token(iss="https://other.example"))


@pytest.mark.parametrize("jti", ["", None, 1, True, ["x"], "x" * 1025])
async def test_a_jti_is_text_when_it_is_there(world, jti):
    with pytest.raises(InvalidToken):
        await world.verifier.verify(world.issuer.token(jti=jti))


async def test_without_jti_the_signing_input_names_the_token(world):
    first = await world.verifier.verify(world.issuer.token(without=["jti"]))
    second = await world.verifier.verify(world.issuer.token(without=["jti"], run_id="2"))
    assert first.token_id != second.token_id


async def test_nbf_is_optional(world):
    assert await world.verifier.verify(world.issuer.token(without=["nbf"]))
