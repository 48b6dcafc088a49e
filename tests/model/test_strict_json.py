"""The strict JSON loader: one document, one meaning."""

import json

import pytest
from fakes.patience import patient
from hypothesis import given
from hypothesis import strategies as st

from secure_cache.model.strict_json import load_strict_json, load_strict_object


def load(text, **options):
    data = text if isinstance(text, bytes) else text.encode()
    return load_strict_json(data, max_bytes=4096, **options)


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"a":1}',
        '{"a":1,"\\u0061":2}',
        '{"x":{"a":1,"a":2}}',
        "NaN",
        "[Infinity]",
        "-Infinity",
        "1e999",
        "-1e999",
        "9" * 33,
        "9" * 4400,
        '"\\ud800"',
        '{"\\udfff":1}',
        '["\\udc00\\ud800"]',
        "\ufeff{}".encode(),
        "{}".encode("utf-16"),
        "{}".encode("utf-16-le"),
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b'"\xc0\x80"',
        b"{}\x00",
        '"\n"',
        "{}{}",
        "{} x",
        "{'a':1}",
        '{"a":1,}',
        "[1,]",
        "01",
        "+1",
        ".5",
        "\u0661",
        "\uff11",
        "\u00a0{}",
        "",
        "[" * 9 + "]" * 9,
        "[" * 2000,
        "[" * 2000 + "]" * 2000,
    ],
)
def test_a_document_with_a_second_meaning_is_refused(text):
    with pytest.raises(ValueError, match=r"JSON"):
        load(text)


def test_depth_counts_containers_and_the_limit_is_exact():
    assert load("[" * 8 + "1" + "]" * 8) == [[[[[[[[1]]]]]]]]
    with pytest.raises(ValueError, match="deep"):
        load('{"a":[[]]}', max_depth=2)
    assert load('{"a":[]}', max_depth=2) == {"a": []}
    assert load("1", max_depth=0) == 1


def test_a_document_over_the_size_is_refused_unread():
    assert load_strict_json(b'"ab"', max_bytes=4) == "ab"
    with pytest.raises(ValueError, match="more than 3 bytes"):
        load_strict_json(b'"ab"', max_bytes=3)


def test_an_error_never_quotes_the_document():
    with pytest.raises(ValueError, match="not JSON") as caught:
        load('{"secret-value": oops}')
    assert "secret-value" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_an_object_is_asked_for_and_nothing_else_is_given():
    assert load_strict_object(b'{"a":1}', max_bytes=10) == {"a": 1}
    with pytest.raises(ValueError, match="object"):
        load_strict_object(b"[]", max_bytes=10)


def test_paired_surrogate_escapes_are_one_character():
    assert load('"\\ud83d\\ude00"') == "\U0001f600"


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abé", max_size=3), inner),
    max_leaves=8,
)


@patient
@given(plain)
def test_what_json_writes_is_read_back(value):
    assert load_strict_json(json.dumps(value).encode(), max_bytes=10**6, max_depth=20) == value


@patient
@given(st.binary(max_size=40))
def test_no_bytes_make_it_raise_anything_but_a_value_error(data):
    try:
        value = load_strict_json(data, max_bytes=30)
    except ValueError:
        return
    assert value == json.loads(data)
