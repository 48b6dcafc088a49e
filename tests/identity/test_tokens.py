"""The steps of the verifier on their own: each holds without the ones around it."""

import json
from dataclasses import replace

import pytest
from fakes.policy import AUDIENCE, issuer_entry
from fakes.verifying import World

from secure_cache.identity.issue import Grant
from secure_cache.identity.keys import parse_key_set
from secure_cache.identity.tokens import check_signature, parse_token, verify_token
from secure_cache.model.errors import InvalidToken, TokenProblem


@pytest.fixture
def world():
    return World()


def key_of(world):
    data = json.dumps({"keys": world.issuer.published}).encode()
    return parse_key_set(data, ("RS256",)).keys[0]


def verify(world, token, entry, key=None):
    return verify_token(
        parse_token(token),
        key or key_of(world),
        issuer=entry,
        audience=AUDIENCE,
        now=world.clock(),
    )


def test_the_right_issuer_and_key_verify(world):
    entry = world.policy.issuers[0]
    verified = verify(world, world.issuer.token(), entry)
    assert verified.claims["ref"] == "refs/heads/main"
    assert verified.times.expires_at == int(world.clock()) + 300


def test_an_issuer_with_another_iss_does_not_take_the_token(world):
    entry = replace(world.policy.issuers[0], iss="https://ci.example/")
    with pytest.raises(InvalidToken) as caught:
        verify(world, world.issuer.token(), entry)
    assert caught.value.problem is TokenProblem.UNKNOWN_ISSUER


def test_the_type_must_be_that_of_the_issuer(world):
    entry = issuer_entry(world.issuer.iss, preset="self", algorithms=("RS256",))
    with pytest.raises(InvalidToken) as caught:
        verify(world, world.issuer.token(), entry)
    assert caught.value.problem is TokenProblem.TYPE
    ours = world.token_issuer.issue_token(Grant("mono", branch="main")).token
    entry = issuer_entry(AUDIENCE, algorithms=("EdDSA",))
    with pytest.raises(InvalidToken) as caught:
        verify(world, ours, entry, world.own_keys.keys[0])
    assert caught.value.problem is TokenProblem.TYPE


def test_the_issuers_algorithms_bind_the_key_too(world):
    jws = parse_token(world.issuer.token()).jws
    check_signature(jws, key_of(world), ("RS256",))
    with pytest.raises(InvalidToken, match="alg is not"):
        check_signature(jws, key_of(world), ("ES256",))


def test_the_keys_algorithm_binds_the_token(world):
    jws = replace(parse_token(world.issuer.token()).jws, algorithm="PS256")
    with pytest.raises(InvalidToken, match="alg is not"):
        check_signature(jws, key_of(world), ("RS256", "PS256"))


def test_no_key_is_no_signature(world):
    with pytest.raises(InvalidToken) as caught:
        check_signature(parse_token(world.issuer.token()).jws, None, ("RS256",))
    assert caught.value.problem is TokenProblem.UNKNOWN_KEY
