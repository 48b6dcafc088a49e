"""The index against a naive list: any log, any filter, any page."""

import sqlite3
from datetime import UTC, datetime

import anyio
import pytest
from fakes.audit import T0, ListedLog, leaf_choices, make_leaf, random_leaves
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from secure_cache.audit.filters import NAMES, Filter
from secure_cache.audit.index import AuditIndex
from secure_cache.audit.queries import PageRequest
from secure_cache.audit.quick import read_leaf
from secure_cache.audit.timeline import Bucket
from secure_cache.model.clock import rfc3339
from secure_cache.model.errors import DamagedIndex, NotFound, WrongFilter

DAY = 86_400


def built(path, leaves, *, segment=16):
    index = AuditIndex.open(path, segment=segment)
    anyio.run(index.catch_up, ListedLog(leaves))
    return index


# What each filter means, without looking at how the index does it.
EQUAL = {
    "event": ["event"],
    "project": ["project"],
    "namespace": ["namespace"],
    "kind": ["kind"],
    "tier": ["tier"],
    "key": ["key"],
    "digest": ["digest"],
    "entry_id": ["entry_id"],
    "issuer": ["issuer", "iss"],
    "subject": ["subject"],
    "repository_id": ["repository_id"],
    "repository": ["repository", "repository_id"],
    "run_id": ["run_id"],
    "commit": ["commit"],
    "actor_id": ["actor_id"],
    "actor": ["actor", "actor_id"],
    "rule": ["rule"],
    "policy_sha256": ["policy_sha256"],
    "jti_sha256": ["jti_sha256"],
    "tid": ["tid"],
    "keyid": ["keyid"],
}


def naive(row, given):
    for name, values in given.items():
        if name in EQUAL:
            ok = any(getattr(row, column) == value for column in EQUAL[name] for value in values)
        elif name == "since":
            ok = row.at is not None and rfc3339(row.at) >= values[0]
        elif name == "until":
            ok = row.at is not None and rfc3339(row.at) <= values[0]
        elif name == "min_size":
            ok = row.size is not None and row.size >= int(values[0])
        else:
            assert name == "max_size"
            ok = row.size is not None and row.size <= int(values[0])
        if not ok:
            return False
    return True


def groups_of(row):
    day = None if row.at is None else datetime.fromtimestamp(row.at, UTC).date().isoformat()
    return {
        "namespace": row.namespace,
        "writer": None if row.issuer is None else f"{row.issuer} {row.subject}",
        "rule": row.rule,
        "day": day,
        "project": row.project,
        "tier": row.tier,
        "event": row.event,
        "issuer": row.issuer,
    }


times = st.integers(-1, 11).map(lambda n: [rfc3339(T0 + n * DAY // 4)])
sizes = st.sampled_from(["0", "1", "6", "7", "8", "4095", "4096", "4194304", "9007199254740991"])


@st.composite
def filters(draw, rows):
    given = {}
    for name in draw(st.lists(st.sampled_from(NAMES), max_size=4, unique=True)):
        if name in {"since", "until"}:
            given[name] = draw(times)
        elif name in {"min_size", "max_size"}:
            given[name] = [draw(sizes)]
        else:
            column = draw(st.sampled_from(EQUAL[name]))
            known = sorted({getattr(row, column) for row in rows} - {None})
            if known:
                given[name] = draw(st.lists(st.sampled_from(known), min_size=1, max_size=3))
    for first, last, key in (("since", "until", str), ("min_size", "max_size", int)):
        if {first, last} <= given.keys():
            ends = sorted((given[first], given[last]), key=lambda end, key=key: key(end[0]))
            given[first], given[last] = ends
    return given


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data(), st.lists(leaf_choices, max_size=70), st.sampled_from([8, 16, 64]))
def test_any_filter_finds_what_a_list_would(tmp_path_factory, data, choices, segment):
    leaves = [make_leaf(choice) for choice in choices]
    rows = [read_leaf(number, leaf) for number, leaf in enumerate(leaves)]
    index = built(tmp_path_factory.mktemp("model") / "index.sqlite", leaves, segment=segment)
    for _ in range(6):
        given = data.draw(filters(rows), label="filter")
        wanted = Filter.parse(given)
        matching = [row for row in rows if naive(row, given)]
        assert index.count(wanted) == len(matching)
        newest_first = data.draw(st.booleans())
        limit = data.draw(st.integers(1, 12))
        found, cursor = [], {}
        while True:
            page = index.query(
                wanted, PageRequest(limit=limit, newest_first=newest_first, **cursor)
            )
            assert page.size == len(rows)
            assert len(page.rows) <= limit
            found += page.rows
            if not page.more:
                break
            assert len(page.rows) == limit
            cursor = {"before" if newest_first else "after": page.rows[-1].number}
        assert found == (matching[::-1] if newest_first else matching)
        check_groups(index, wanted, matching)
    index.close()


def check_groups(index, wanted, matching):
    for group in ("namespace", "writer", "rule", "day", "project", "tier", "event", "issuer"):
        counted = index.count_by(group, wanted)
        naive_counts = {}
        for row in matching:
            label = groups_of(row)[group]
            naive_counts[label] = naive_counts.get(label, 0) + 1
        assert dict(counted.counts) == naive_counts
        assert (counted.distinct, counted.total) == (len(naive_counts), len(matching))
        labels = [label for label, _ in counted.counts]
        if group == "day":
            known = [label for label in labels if label is not None]
            assert known == sorted(known)
        else:
            numbers = [number for _, number in counted.counts]
            assert numbers == sorted(numbers, reverse=True)


@settings(max_examples=40)
@given(st.data())
def test_pages_between_two_cursors_are_those_of_the_list(small_index, data):
    index, rows = small_index
    low = data.draw(st.none() | st.integers(-2, 70))
    high = data.draw(st.none() | st.integers(-2, 70))
    newest_first = data.draw(st.booleans())
    given = data.draw(filters(rows))
    page = index.query(
        Filter.parse(given),
        PageRequest(limit=100, after=low, before=high, newest_first=newest_first),
    )
    expected = [
        row
        for row in rows
        if naive(row, given)
        and (low is None or row.number > low)
        and (high is None or row.number < high)
    ]
    assert list(page.rows) == (expected[::-1] if newest_first else expected)
    assert not page.more


@pytest.fixture(scope="module")
def small_index(tmp_path_factory):
    leaves = random_leaves(60)
    index = built(tmp_path_factory.mktemp("small") / "index.sqlite", leaves)
    yield index, [read_leaf(number, leaf) for number, leaf in enumerate(leaves)]
    index.close()


def test_pages_stay_what_they_were_while_the_log_grows(tmp_path):
    leaves = random_leaves(120)
    index = AuditIndex.open(tmp_path / "index.sqlite", segment=16)
    wanted = Filter.parse({"project": ["demo"]})
    anyio.run(index.catch_up, ListedLog(leaves[:50]))
    up = index.query(wanted, PageRequest(limit=5))
    down = index.query(wanted, PageRequest(limit=5, newest_first=True))
    seen_up, seen_down = list(up.rows), list(down.rows)
    for size in (51, 60, 64, 65, 120):
        anyio.run(index.catch_up, ListedLog(leaves[:size]))
        seen_up += index.query(wanted, PageRequest(limit=5, after=seen_up[-1].number)).rows
        seen_down += index.query(
            wanted, PageRequest(limit=5, before=seen_down[-1].number, newest_first=True)
        ).rows
    rows = [read_leaf(number, leaf) for number, leaf in enumerate(leaves)]
    matching = [row for row in rows if row.project == "demo"]
    assert seen_up == matching[: len(seen_up)]
    old = [row for row in matching if row.number < 50][::-1]
    assert seen_down == old[: len(seen_down)]
    index.close()


def test_one_entry_is_its_row(small_index):
    index, rows = small_index
    assert [index.entry(number) for number in range(60)] == rows
    for number in (-1, 60):
        with pytest.raises(NotFound):
            index.entry(number)


def counted_naively(rows, given, width):
    counts = {}
    for row in rows:
        if naive(row, given):
            start = None if row.at is None else row.at // width * width
            counts[start, row.tier, row.event] = counts.get((start, row.tier, row.event), 0) + 1
    return counts


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data(), st.lists(leaf_choices, max_size=70), st.sampled_from([8, 16, 64]))
def test_a_timeline_counts_each_entry_once_where_it_belongs(
    tmp_path_factory, data, choices, segment
):
    leaves = [make_leaf(choice) for choice in choices]
    rows = [read_leaf(number, leaf) for number, leaf in enumerate(leaves)]
    index = built(tmp_path_factory.mktemp("timeline") / "index.sqlite", leaves, segment=segment)
    for _ in range(6):
        given = data.draw(filters(rows), label="filter")
        found = index.timeline(Filter.parse(given), Bucket.DAY)
        cells = {(cell.start, cell.tier, cell.event): cell.entries for cell in found.cells}
        assert cells == counted_naively(rows, given, DAY)
        assert (found.total, found.size) == (sum(cells.values()), len(rows))
        starts = [cell.start for cell in found.cells]
        assert starts == sorted(starts, key=lambda start: (start is None, start or 0))

        low = data.draw(st.integers(0, 9 * 4)) * DAY // 4
        given["since"], given["until"] = [rfc3339(T0 + low)], [rfc3339(T0 + low + 7 * DAY)]
        by_hour = index.timeline(Filter.parse(given))
        assert by_hour.bucket is Bucket.HOUR
        assert {(cell.start, cell.tier, cell.event): cell.entries for cell in by_hour.cells} == (
            counted_naively(rows, given, 3600)
        )
    index.close()


def test_hours_are_counted_for_a_week_at_most(small_index):
    index, _ = small_index
    since = "2026-01-01T00:00:00Z"
    for long in ({}, {"since": [since]}, {"since": [since], "until": ["2026-01-08T01:00:00Z"]}):
        assert index.timeline(Filter.parse(long)).bucket is Bucket.DAY
        with pytest.raises(WrongFilter, match="hour needs since and until, at most 7 days"):
            index.timeline(Filter.parse(long), Bucket.HOUR)


def test_a_timeline_over_sets_that_were_changed_is_refused(tmp_path):
    path = tmp_path / "index.sqlite"
    index = built(path, random_leaves(40))
    index.close()
    connection = sqlite3.connect(path)
    changed = connection.execute(
        "DELETE FROM postings WHERE segment = 0 AND facet = 0 AND value = 'stored'"
    )
    assert changed.rowcount == 1
    connection.commit()
    connection.close()
    index = AuditIndex.open(path, segment=16)
    with pytest.raises(DamagedIndex, match="segment 0"):
        index.timeline()
    index.close()


def test_counts_may_be_cut_and_say_so(small_index):
    index, _ = small_index
    whole, cut = index.count_by("writer"), index.count_by("writer", limit=2)
    assert cut.counts == whole.counts[:2]
    assert (cut.distinct, cut.total) == (whole.distinct, whole.total)


def test_an_unknown_group_or_a_page_without_bounds_is_refused(small_index):
    index, _ = small_index
    with pytest.raises(WrongFilter, match="namespace, writer, rule, day"):
        index.count_by("claims")
    for limit in (0, -1, 1001):
        with pytest.raises(WrongFilter, match="1 to 1000"):
            index.query(page=PageRequest(limit=limit))


def test_an_empty_index_answers_with_nothing(tmp_path):
    index = AuditIndex.open(tmp_path / "index.sqlite")
    assert index.query().rows == ()
    assert index.count() == 0
    assert index.count_by("day").counts == ()
    assert index.state().size == 0
    index.close()
