"""Tokens of this server: what it issues comes back as the same identity, and nothing else does."""

import base64
import json
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from fakes.issuer import sign
from fakes.policy import AUDIENCE, issuer_entry
from fakes.verifying import ISS, World

from secure_cache.identity.issue import (
    MAX_ROLE_SECONDS,
    MAX_SESSION_SECONDS,
    Grant,
)
from secure_cache.identity.keys import ed25519_key_set, public_jwk_set, thumbprint
from secure_cache.identity.presets.self_issued import MAX_LIFETIME_SECONDS
from secure_cache.model.errors import (
    ExpiredToken,
    InvalidToken,
    Malformed,
    TokenProblem,
    TooLarge,
)
from secure_cache.model.identity import ContextKind, Identity

pytestmark = pytest.mark.anyio


@pytest.fixture
def world():
    return World()


def read(token):
    return [json.loads(base64.urlsafe_b64decode(part + "==")) for part in token.split(".")[:2]]


def own_sign(world, claims, **header):
    fields = {"alg": "EdDSA", "kid": world.own_keys.keys[0].kid, "typ": "cache+jwt"} | header
    return sign(fields, claims, world.own_key, "EdDSA")


@pytest.mark.parametrize(
    ("grant", "kind", "name"),
    [
        (Grant("mono", branch="main"), ContextKind.BRANCH, "main"),
        (Grant("mono", branch="b\u00fccher/1"), ContextKind.BRANCH, "b\u00fccher/1"),
        (Grant("mono", pull_request="7", base="main"), ContextKind.PULL_REQUEST, "7"),
        (Grant("mono", role="developer"), ContextKind.ROLE, "developer"),
    ],
)
async def test_an_issued_token_comes_back_as_what_was_granted(world, grant, kind, name):
    issued = world.token_issuer.issue_token(grant)
    identity = await world.verifier.verify(issued.token)
    assert (identity.issuer, identity.iss) == ("own", AUDIENCE)
    assert identity.family == issued.family
    assert identity.expires_at == issued.expires_at == int(world.clock()) + 3600
    assert identity.claim_map["prj"] == "mono"
    entry = world.policy.issuer(AUDIENCE)
    context = entry.preset.classify(identity.claim_map, entry.options)
    assert (context.kind, context.name) == (kind, name)
    header, claims = read(issued.token)
    assert header == {
        "alg": "EdDSA",
        "kid": thumbprint(world.own_key.public_key()),
        "typ": "cache+jwt",
    }
    assert claims["iss"] == claims["aud"] == AUDIENCE


@pytest.mark.parametrize(
    ("grant", "ttl"),
    [
        (Grant("mono"), 60),
        (Grant("mono", branch="main", role="developer"), 60),
        (Grant("mono", branch="main", base="main"), 60),
        (Grant("mono", pull_request="7"), 60),
        (Grant("mono", pull_request="x", base="main"), 60),
        (Grant("mono", branch=""), 60),
        (Grant("mono", branch="main\n"), 60),
        (Grant("Mono", branch="main"), 60),
        (Grant("mono", branch="main"), 0),
        (Grant("mono", branch="main"), -1),
        (Grant("mono", branch="main"), MAX_LIFETIME_SECONDS + 1),
        (Grant("mono", role="developer"), MAX_ROLE_SECONDS + 1),
    ],
)
def test_a_token_that_would_not_be_accepted_is_not_issued(world, grant, ttl):
    with pytest.raises(Malformed):
        world.token_issuer.issue_token(grant, ttl_seconds=ttl)


@pytest.mark.parametrize(
    ("grant", "longest"),
    [
        (Grant("mono", branch="main"), MAX_LIFETIME_SECONDS),
        (Grant("mono", role="developer"), MAX_ROLE_SECONDS),
    ],
)
async def test_the_longest_life_is_allowed_and_ends(world, grant, longest):
    token = world.token_issuer.issue_token(grant, ttl_seconds=longest).token
    world.clock.advance(longest + 30)
    assert await world.verifier.verify(token)
    world.clock.advance(1)
    with pytest.raises(ExpiredToken):
        await world.verifier.verify(token)


async def ci_identity(world, **claims):
    return await world.verifier.verify(world.issuer.token(**claims))


async def test_a_session_is_the_identity_of_the_job(world):
    original = await ci_identity(world, sha="abc", run_id="9")
    session = world.token_issuer.issue_session(original)
    identity = await world.verifier.verify(session.token)
    assert identity == replace(original, family=original.token_id)
    assert identity.token_id != original.token_id
    assert identity.expires_at == int(world.clock()) + MAX_SESSION_SECONDS
    assert "ref" not in read(session.token)[1]


async def test_a_session_needs_no_issuer_of_our_own_in_the_policy():
    world = World(self_issued=False)
    session = world.token_issuer.issue_session(await ci_identity(world))
    assert await world.verifier.verify(session.token)
    with pytest.raises(InvalidToken) as caught:
        await world.verifier.verify(
            world.token_issuer.issue_token(Grant("mono", branch="main")).token
        )
    assert caught.value.problem is TokenProblem.UNKNOWN_ISSUER


@pytest.mark.parametrize(
    "issuers",
    [
        (),
        (issuer_entry("https://other.example"),),
        (issuer_entry(ISS, name="renamed"),),
        (issuer_entry(ISS + "/"),),
    ],
)
async def test_a_session_ends_when_its_issuer_leaves_the_policy(world, issuers):
    session = world.token_issuer.issue_session(await ci_identity(world))
    assert await world.verifier.verify(session.token)
    world.policy = replace(world.policy, issuers=issuers, sha256="1" * 64)
    with pytest.raises(InvalidToken) as caught:
        await world.verifier.verify(session.token)
    assert caught.value.problem is TokenProblem.UNKNOWN_ISSUER


async def test_a_session_expires_and_is_never_longer_than_six_hours(world):
    original = await ci_identity(world)
    with pytest.raises(Malformed):
        world.token_issuer.issue_session(original, ttl_seconds=MAX_SESSION_SECONDS + 1)
    token = world.token_issuer.issue_session(original).token
    world.clock.advance(MAX_SESSION_SECONDS + 31)
    with pytest.raises(ExpiredToken):
        await world.verifier.verify(token)


async def test_an_identity_that_does_not_fit_into_a_token_gets_no_session(world):
    claims = tuple((f"claim-{number:02}", "x" * 1000) for number in range(8))
    big = Identity("ci", ISS, "job", claims, token_id="0" * 64)
    with pytest.raises(TooLarge):
        world.token_issuer.issue_session(big)


def grant_claims(world, **changes):
    _, claims = read(world.token_issuer.issue_token(Grant("mono", branch="main")).token)
    return {name: value for name, value in (claims | changes).items() if value is not ...}


@pytest.mark.parametrize(
    "change",
    [
        {"tid": ...},
        {"tid": ""},
        {"tid": 1},
        {"admin": True},
        {"aud": "https://other.example"},
        {"aud": [AUDIENCE]},
        {"aud": ...},
        {"sub": ...},
        {"exp": 1_800_000_000 + MAX_LIFETIME_SECONDS + 1},
        {"branch": ..., "role": "developer", "exp": 1_800_000_000 + MAX_ROLE_SECONDS + 1},
        {"idn": {}},
        {"idn": None, "branch": ..., "prj": ...},
        {"idn": {"issuer": "ci"}, "branch": ..., "prj": ...},
    ],
)
async def test_a_stolen_key_can_not_stretch_what_a_token_may_say(world, change):
    assert await world.verifier.verify(own_sign(world, grant_claims(world)))
    with pytest.raises(InvalidToken):
        await world.verifier.verify(own_sign(world, grant_claims(world, **change)))


async def session_claims(world, **changes):
    _, claims = read(world.token_issuer.issue_session(await ci_identity(world)).token)
    return claims | changes


async def test_a_session_with_a_grant_or_a_long_life_of_its_own_is_refused(world):
    assert await world.verifier.verify(own_sign(world, await session_claims(world)))
    too_late = int(world.clock()) + MAX_SESSION_SECONDS + 1
    for change in ({"branch": "main"}, {"prj": "mono"}, {"role": "x"}, {"exp": too_late}):
        with pytest.raises(InvalidToken):
            await world.verifier.verify(own_sign(world, await session_claims(world, **change)))


async def test_a_session_can_not_claim_to_be_one_of_our_own_grants(world):
    own = await world.verifier.verify(
        world.token_issuer.issue_token(Grant("mono", branch="main")).token
    )
    session = world.token_issuer.issue_session(replace(own, family=None))
    with pytest.raises(InvalidToken):
        await world.verifier.verify(session.token)


@pytest.mark.parametrize(
    "header",
    [{"typ": "JWT"}, {"typ": "cache+JWT"}, {"alg": "RS256"}, {"kid": "other"}],
)
async def test_our_key_under_another_header_is_refused(world, header):
    with pytest.raises(InvalidToken):
        await world.verifier.verify(own_sign(world, grant_claims(world), **header))


async def test_our_tokens_name_their_key(world):
    claims = grant_claims(world)
    token = sign({"alg": "EdDSA", "typ": "cache+jwt"}, claims, world.own_key, "EdDSA")
    with pytest.raises(InvalidToken):
        await world.verifier.verify(token)


async def test_a_key_taken_out_of_use_ends_its_tokens_at_once(world):
    token = world.token_issuer.issue_token(Grant("mono", branch="main")).token
    assert await world.verifier.verify(token)
    new = Ed25519PrivateKey.from_private_bytes(b"n" * 32)
    world.own_keys = ed25519_key_set([new.public_key(), world.own_key.public_key()])
    assert await world.verifier.verify(token)
    world.own_keys = ed25519_key_set([new.public_key()])
    with pytest.raises(InvalidToken) as caught:
        await world.verifier.verify(token)
    assert caught.value.problem is TokenProblem.UNKNOWN_KEY


def test_the_thumbprint_is_that_of_rfc_8037():
    raw = base64.urlsafe_b64decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo=")
    key = Ed25519PublicKey.from_public_bytes(raw)
    assert thumbprint(key) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    (published,) = public_jwk_set([key])["keys"]
    assert published["x"] == "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
    assert published["kid"] == thumbprint(key)
