"""The monitor's judgement, entry by entry."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_cache.audit.watch import Watch
from secure_cache.audit.watch_rules import Glob, WatchRules
from secure_cache.model.errors import InvalidPolicy, Malformed
from secure_cache.provenance.keys import ring_of

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "audit.md"
RULES = b"version: 1\nexpect: [{ name: all, issuer: self }]\n"


def test_the_rules_in_the_document_are_rules():
    (example,) = re.findall(
        r"^```yaml\n(version: 1\nexpect:.*?)^```$", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE
    )
    rules = WatchRules.parse(example.encode(), name="rules.yaml")
    assert next(rule.name for rule in rules.expected) == "main on GitHub"
    assert rules.max_age_seconds == 86_400
    assert rules.ignored == {"removed"}


@pytest.mark.parametrize(
    ("pattern", "value", "matches"),
    [
        ("a", "a", True),
        ("a", "ab", False),
        ("*", "", True),
        ("a*", "a", True),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("refs/heads/*", "refs/heads/a/b", True),
        ("*/ci.yml@refs/heads/main", "o/r/.github/workflows/ci.yml@refs/heads/main", True),
        ("*/ci.yml@refs/heads/main", "o/r/ci.yml@refs/heads/main2", False),
        ("a*b*c", "aXbYc", True),
        ("a*b*c", "aXcYb", False),
    ],
)
def test_a_star_stands_for_any_characters(pattern, value, matches):
    assert Glob(pattern).matches(value) is matches


@given(st.text("ab*/", max_size=8), st.text("ab/", max_size=12))
def test_a_glob_is_what_a_regex_would_say(pattern, value):
    expected = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), value, re.DOTALL)
    assert Glob(pattern).matches(value) is (expected is not None)


@given(st.binary(max_size=400))
def test_no_leaf_stops_the_monitor_and_none_of_a_strangers_is_passed_over(leaf):
    watch = Watch(WatchRules.parse(RULES, name="r"), ring_of(()), ())
    assert [alert.alert for alert in watch.judge(3, leaf)] == ["unreadable"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b"version: 2\nexpect: [{ name: a, issuer: b }]\n", InvalidPolicy),
        (b"version: 1\nexpect: []\n", InvalidPolicy),
        (b"version: 1\nexpect: [{ name: a }]\n", InvalidPolicy),
        (b"version: 1\nexpect: [{ name: a, issuer: b, claim: {} }]\n", InvalidPolicy),
        (b"version: 1\nexpect: [{ name: a, issuer: b }]\nmax_age: soon\n", InvalidPolicy),
        (RULES + b"ignore: [stael]\n", Malformed),
    ],
)
def test_rules_with_a_mistake_are_refused(text, error):
    with pytest.raises(error):
        WatchRules.parse(text, name="rules.yaml")
