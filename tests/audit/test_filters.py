"""Filters from text: each mistake says which filter is wrong and what is allowed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_cache.audit.filters import NAMES, Condition, Filter, Range, allowed
from secure_cache.model.errors import WrongFilter

DAY = 86_400
JAN_2 = 1_767_312_000


def only(**given):
    return Filter.parse({name: [value] for name, value in given.items()})


def test_nothing_asked_is_everything():
    assert Filter.parse({}) == Filter()
    assert Filter.parse({"tier": []}) == Filter()


def test_values_of_one_filter_are_alternatives_and_filters_add_up():
    wanted = Filter.parse({"tier": ["trusted", "candidate"], "project": ["demo"]})
    assert set(wanted.conditions) == {
        Condition(("tier",), frozenset({"trusted", "candidate"})),
        Condition(("project",), frozenset({"demo"})),
    }


def test_times_are_moments_or_whole_days():
    assert only(since="2026-01-02T00:00:01Z").ranges == (Range("at", JAN_2 + 1, None),)
    assert only(since="2026-01-02").ranges == (Range("at", JAN_2, None),)
    assert only(until="2026-01-02").ranges == (Range("at", None, JAN_2 + DAY - 1),)
    both = only(since="2026-01-02", until="2026-01-02")
    assert both.ranges == (Range("at", JAN_2, JAN_2 + DAY - 1),)


@pytest.mark.parametrize(
    ("text", "number"), [("0", 0), ("4096", 4096), ("64KiB", 65_536), ("2MiB", 2 << 20)]
)
def test_sizes_have_units(text, number):
    assert only(min_size=text).ranges == (Range("size", number, None),)
    assert only(max_size=text).ranges == (Range("size", None, number),)


def test_a_namespace_may_be_named_inside_the_one_project_that_is_asked_for():
    full = only(namespace="demo:branch/main")
    assert full.conditions == (Condition(("namespace",), frozenset({"demo:branch/main"})),)
    assert only(project="demo", namespace="branch/main").conditions[1] == full.conditions[0]
    with pytest.raises(WrongFilter, match="project:kind/id"):
        only(namespace="branch/main")


def test_a_digest_may_be_written_with_its_algorithm():
    assert only(digest="sha256:" + "ab" * 32) == only(digest="ab" * 32)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("since", "yesterday", "2026-01-02T03:04:05Z"),
        ("since", "2026-1-2", "a time such as"),
        ("until", "2026-01-02T03:04:05", "a time such as"),
        ("until", "2026-02-30", "a time such as"),
        ("min_size", "-1", "bytes, such as"),
        ("min_size", "1e3", "bytes, such as"),
        ("max_size", "1 KiB", "bytes, such as"),
        ("max_size", "9999999999999999GiB", "bytes, such as"),
        ("event", "deleted", "stored, opened, policy"),
        ("project", "Demo", "a project's name"),
        ("namespace", "demo", "project:kind/id"),
        ("kind", "Branch", "a namespace's kind"),
        ("tier", "root", "trusted, candidate, contributor"),
        ("key", "a/b", "128 letters"),
        ("digest", "AB" * 32, "64 lower-case hex"),
        ("entry_id", "1", "ULID"),
        ("issuer", "", "1 to 1024"),
        ("subject", "s" * 1025, "1 to 1024"),
        ("subject", "\udcff", "1 to 1024"),
        ("namespace", "demo:branch/\udcff", "project:kind/id"),
        ("policy_sha256", "x", "64 lower-case hex"),
        ("jti_sha256", "x", "64 lower-case hex"),
        ("keyid", "x", "64 lower-case hex"),
    ],
)
def test_a_wrong_value_says_which_filter_and_what_is_allowed(name, text, says):
    with pytest.raises(WrongFilter) as caught:
        only(**{name: text})
    assert str(caught.value).startswith(f"{name}: ")
    assert says in str(caught.value)


def test_an_unknown_filter_says_which_there_are():
    with pytest.raises(WrongFilter) as caught:
        only(colour="red")
    assert "'colour'" in str(caught.value)
    assert all(name in str(caught.value) for name in NAMES)


def test_a_range_has_one_end_each_and_a_list_is_bounded():
    with pytest.raises(WrongFilter, match="since: exactly one"):
        Filter.parse({"since": ["2026-01-02", "2026-01-03"]})
    with pytest.raises(WrongFilter, match="key: at most 64"):
        Filter.parse({"key": [str(n) for n in range(65)]})


def test_every_filter_says_what_it_takes():
    assert all(allowed(name) for name in NAMES)


@given(st.sampled_from(NAMES), st.text(max_size=60))
def test_any_text_is_a_filter_or_a_printable_complaint(name, text):
    complaint = ""
    try:
        only(**{name: text})
    except WrongFilter as error:
        complaint = str(error)
    assert complaint.isprintable()
    assert complaint.isascii()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"since": ["2026-01-03"], "until": ["2026-01-02"]}, "until: before since"),
        ({"min_size": ["5"], "max_size": ["4"]}, "max_size: less than min_size"),
    ],
)
def test_a_range_that_ends_before_it_begins_is_a_mistake_and_no_empty_answer(given, said):
    with pytest.raises(WrongFilter, match=said):
        Filter.parse(given)
