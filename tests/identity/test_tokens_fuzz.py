"""Whatever arrives as a token: an identity or one of our errors, and nothing else."""

import base64
import json
import string

import anyio
import pytest
from fakes.issuer import segment, sign
from fakes.patience import patient
from fakes.verifying import World
from hypothesis import given
from hypothesis import strategies as st

from secure_cache.model.errors import ExpiredToken, InvalidToken
from secure_cache.model.identity_json import identity_document, parse_identity
from secure_cache.policy.preset import Unclassifiable

WORLD = World()
GOOD = WORLD.issuer.token()
PAYLOAD = json.loads(base64.urlsafe_b64decode(GOOD.split(".")[1] + "=="))
HEADER = {"alg": "RS256", "kid": WORLD.issuer.kid, "typ": "JWT"}


def judge(token):
    """The identity, or None when the token was refused as it should be."""
    try:
        return anyio.run(WORLD.verifier.verify, token)
    except (InvalidToken, ExpiredToken):
        return None


@patient
@given(st.text(max_size=60))
def test_any_text(text):
    assert judge(text) is None


@patient
@given(st.lists(st.text(string.ascii_letters + string.digits + "-_=", max_size=30), max_size=6))
def test_any_segments(segments):
    assert judge(".".join(segments)) is None


@patient
@given(st.integers(0, len(GOOD) - 1), st.characters())
def test_one_character_changed(position, character):
    changed = GOOD[:position] + character + GOOD[position + 1 :]
    assert (judge(changed) is not None) == (changed == GOOD)


@patient
@given(st.integers(0, len(GOOD) - 1))
def test_cut_short(length):
    assert judge(GOOD[:length]) is None


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([1.8e9, 1_800_000_100, "refs/heads/main", "push", "x" * 1025, 10**30]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


@patient
@given(
    st.dictionaries(
        st.sampled_from([*PAYLOAD, "aud", "nbf", "sha", "groups"]), json_values, max_size=3
    )
)
def test_correctly_signed_with_any_claims(changes):
    identity = judge(sign(HEADER, PAYLOAD | changes, WORLD.issuer.key))
    if identity is None:
        return
    # Whatever is accepted can be written down, and its preset has an answer to it.
    assert parse_identity(json.loads(json.dumps(identity_document(identity)))) == identity
    entry = WORLD.policy.issuers[0]
    context = entry.preset.classify(identity.claim_map, entry.options)
    if not isinstance(context, Unclassifiable) and context.trustable:
        assert identity.claim_map["event_name"] in {"push", "schedule"}


@patient
@given(
    st.dictionaries(
        st.sampled_from(["alg", "kid", "typ", "x5t", "x5t#S256", "crit", "b64", "jwk", "zip"]),
        json_values | st.sampled_from(["RS256", "none", "JWT", "key-0"]),
        max_size=4,
    )
)
def test_correctly_signed_with_any_header(header):
    judge(sign(HEADER | header, PAYLOAD, WORLD.issuer.key))


@patient
@given(st.binary(max_size=40), st.binary(max_size=40))
def test_correctly_signed_bytes(header, payload):
    assert judge(sign(header, payload, WORLD.issuer.key)) is None
    assert judge(sign(HEADER, payload, WORLD.issuer.key)) is None


@pytest.mark.parametrize("document", [b"[]", b"1", b'"x"', b"null", b"{}", b"{", b"\x00", b""])
def test_payloads_that_are_no_claims(document):
    assert judge(sign(HEADER, document, WORLD.issuer.key)) is None
    assert judge(f"{segment(document)}.{segment(PAYLOAD)}.AAAA") is None
