"""The document of an identity: strict, and the same in both directions."""

import json

import pytest
from fakes.patience import patient
from hypothesis import given
from hypothesis import strategies as st

from secure_cache.model.identity import Identity
from secure_cache.model.identity_json import identity_document, parse_identity
from secure_cache.model.strict_json import load_strict_json

ID = "0123456789abcdef" * 4


def make(**changes):
    values = {
        "issuer": "gha",
        "iss": "https://ci.example",
        "subject": "repo:o/r",
        "claims": (("ref", "refs/heads/main"), ("run", 7)),
        "token_id": ID,
        "family": None,
        "issued_at": 100,
        "expires_at": 400,
    }
    return Identity(**(values | changes))


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
name = text.filter(bool)
scalar = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False).filter(lambda f: not f.is_integer())
    | text
)
claims = st.dictionaries(name, scalar | st.lists(scalar, max_size=4).map(tuple), max_size=6)


@patient
@given(
    claims=claims.map(lambda c: tuple(sorted(c.items(), key=lambda item: item[0]))),
    issuer=name,
    subject=name,
    family=st.none() | name,
    times=st.tuples(st.integers(0, 2**53 - 1), st.integers(0, 2**53 - 1)),
)
def test_an_identity_comes_back_from_its_document(claims, issuer, subject, family, times):
    identity = make(
        claims=claims,
        issuer=issuer,
        subject=subject,
        family=family,
        issued_at=times[0],
        expires_at=times[1],
    )
    written = json.dumps(identity_document(identity)).encode()
    back = parse_identity(load_strict_json(written, max_bytes=10**6))
    assert back == identity
    assert (back.token_id, back.issued_at, back.expires_at) == (ID, *times)
    assert json.dumps(identity_document(back)).encode() == written


@pytest.mark.parametrize(
    "change",
    [
        {"issuer": ""},
        {"issuer": 1},
        {"iss": None},
        {"sub": ["a"]},
        {"sub": "x" * 1025},
        {"sub": "\ud800"},
        {"token_id": ID.upper()},
        {"token_id": ID + "\n"},
        {"token_id": ID[:-1]},
        {"iat": -1},
        {"iat": True},
        {"iat": 1.0},
        {"exp": 2**53},
        {"exp": "1"},
        {"family": None},
        {"family": ""},
        {"claims": []},
        {"claims": {"a": {"b": 1}}},
        {"claims": {"a": [["b"]]}},
        {"claims": {"a": 1.0}},
        {"claims": {"a": [1.0]}},
        {"claims": {"a": 2**53}},
        {"claims": {"a": float("nan")}},
        {"claims": {"a": float("inf")}},
        {"claims": {"a": "\udfff"}},
        {"claims": {"\udfff": "a"}},
        {"claims": {"": "a"}},
        {"claims": {"a": "x" * 1025}},
        {"claims": {"a": ["x"] * 65}},
        {"claims": {str(n): "x" for n in range(97)}},
        {"more": 1},
    ],
)
def test_a_document_that_no_identity_gives_is_refused(change):
    with pytest.raises(ValueError, match=r"identity|claim"):
        parse_identity(identity_document(make()) | change)


@pytest.mark.parametrize("missing", ["issuer", "iss", "sub", "claims", "token_id", "iat", "exp"])
def test_a_document_without_a_member_is_refused(missing):
    document = identity_document(make())
    del document[missing]
    with pytest.raises(ValueError, match="members"):
        parse_identity(document)


@pytest.mark.parametrize("document", [None, [], "x", 1])
def test_something_else_than_an_object_is_refused(document):
    with pytest.raises(ValueError, match="object"):
        parse_identity(document)


@pytest.mark.parametrize(
    "claims",
    [
        (("b", "1"), ("a", "1")),
        (("a", "1"), ("a", "2")),
        (("a", 1.0),),
        (("a", float("nan")),),
        (("a", "\ud800"),),
    ],
)
def test_an_identity_without_one_canonical_document_is_not_written(claims):
    with pytest.raises(ValueError, match=r"claim"):
        identity_document(make(claims=claims))
