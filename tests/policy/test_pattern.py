"""Whole names, whole segments, no regex."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_cache.policy.pattern import Pattern

segments = st.sampled_from(["a", "b", "main", "*"])
names = st.lists(st.sampled_from(["a", "b", "main", "x.y", "1"]), min_size=1, max_size=4).map(
    "/".join
)


@st.composite
def patterns(draw):
    parts = draw(st.lists(segments, max_size=3))
    if draw(st.booleans()) or not parts:
        parts.append("**")
    return Pattern.parse("/".join(parts))


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        (
            "main",
            ["main"],
            ["Main", "main\n", "main ", "main-evil", "xmain", "main/x", "", "ma\u0131n"],
        ),
        ("release/*", ["release/1.2", "release/a_b+c@d-e"], ["release", "release/", "release/a/b"]),
        ("release/*", [], ["release-evil", "release/1\n", "release/ü", "x/release/1", "release/ "]),
        ("*/x", ["a/x"], ["/x", "a/b/x", "x"]),
        ("*", ["main"], ["a/b", "", "a b"]),
        ("**", ["a", "a/b/c", "ü"], [""]),
        ("bot/**", ["bot/a", "bot/a/b"], ["bot", "bota/b", "xbot/a"]),
    ],
)
def test_a_pattern_matches_whole_names(pattern, matching, other):
    found = Pattern.parse(pattern)
    assert all(found.matches(name) for name in matching)
    assert not any(found.matches(name) for name in other)


REFUSED = [
    "release*",
    "*-x",
    "a*b",
    "/**",
    "a/**/b",
    "/a",
    "a/",
    "a//b",
    "^main$",
    "main|dev",
    "(main)",
    "rel.*",
    "[ab]",
    "a?",
    "{a,b}",
    "a\\b",
    "***",
    "a/***",
    "~main",
]


@pytest.mark.parametrize("text", [*REFUSED, "a b", "a:b", "", "main\n"])
def test_what_looks_like_a_regex_or_a_partial_glob_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        Pattern.parse(text)


@settings(deadline=None)
@given(patterns(), patterns(), names)
def test_a_pattern_that_covers_another_matches_all_that_it_matches(one, other, name):
    if one.covers(other) and other.matches(name):
        assert one.matches(name)


@settings(deadline=None)
@given(patterns())
def test_a_pattern_covers_itself(pattern):
    assert pattern.covers(pattern)


@settings(deadline=None)
@given(names)
def test_a_literal_matches_itself_alone(name):
    pattern = Pattern.parse(name)
    assert pattern.matches(name)
    assert not pattern.matches(name + "\n")
    assert not pattern.matches(name.upper()) or name.upper() == name
