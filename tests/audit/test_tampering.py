"""An index that was damaged, or changed by hand, is noticed; the log never pays for it."""

import random
import re
import sqlite3

import anyio
import pytest
from fakes.audit import ListedLog, leaf_of, numbered, random_leaves

from secure_cache.audit.filters import NAMES, Filter
from secure_cache.audit.index import AuditIndex
from secure_cache.audit.queries import PageRequest
from secure_cache.audit.quick import read_leaf
from secure_cache.audit.row import Row
from secure_cache.audit.segment import GROUPS
from secure_cache.model.errors import DamagedIndex, LogInconsistent, Misconfigured
from secure_cache.tlog.edge import Edge

LEAVES = random_leaves(70)
LOG = ListedLog(LEAVES)


@pytest.fixture
def path(tmp_path):
    """An index of four full segments and some rows."""
    index = AuditIndex.open(tmp_path / "index.sqlite", segment=16)
    anyio.run(index.catch_up, LOG)
    index.close()
    with sqlite3.connect(index.path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return index.path


def change(path, *statements):
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(*statement) if isinstance(statement, tuple) else connection.execute(
            statement
        )
    connection.commit()
    connection.close()


def ask_everything(index):
    """What auditors may ask; gives all rows."""
    for name in NAMES:
        if name not in {"since", "until", "min_size", "max_size"}:
            for row in index.query().rows[:3]:
                value = getattr(row, name, None)
                if value is not None:
                    index.query(Filter.parse({name: [value]}))
    index.count(Filter.parse({"since": ["2026-01-01"], "max_size": ["4096"]}))
    for group in GROUPS:
        index.count_by(group)
        index.count_by(group, Filter.parse({"event": ["stored"]}))
    return index.query(page=PageRequest(limit=1000)).rows


def findings(path):
    index = AuditIndex.open(path)
    found = index.check()
    index.close()
    return [str(finding) for finding in found]


def test_an_untouched_index_is_good(path):
    index = AuditIndex.open(path)
    assert index.check() == ()
    assert anyio.run(index.check_against, LOG) == ()
    assert ask_everything(index) == tuple(read_leaf(n, leaf) for n, leaf in enumerate(LEAVES))


@pytest.mark.parametrize("number", [3, 20, 63, 64, 69])
def test_a_row_changed_by_hand_is_noticed_when_it_is_shown(path, number):
    change(path, ("UPDATE entries SET subject = 'somebody else' WHERE number = ?", (number,)))
    index = AuditIndex.open(path)
    with pytest.raises(DamagedIndex, match=r"entry \d+ was changed.*audit index rebuild"):
        index.query(page=PageRequest(limit=1000))
    with pytest.raises(DamagedIndex, match="audit index rebuild"):
        index.entry(number)
    assert index.entry(number - 1).number == number - 1
    assert any(f"entry {number}" in finding for finding in findings(path))


def test_a_row_found_by_what_it_is_not_is_noticed(path):
    """Two sets were swapped: the rows are whole, and are not those that were asked for."""
    change(
        path,
        "CREATE TEMP TABLE copy AS SELECT * FROM postings WHERE facet = 4",
        "UPDATE postings SET members = (SELECT c.members FROM copy c WHERE"
        " c.segment = postings.segment AND c.value = 'contributor')"
        " WHERE facet = 4 AND value = 'trusted' AND segment IN"
        " (SELECT segment FROM copy WHERE value = 'contributor')",
    )
    index = AuditIndex.open(path)
    with pytest.raises(DamagedIndex, match="is not what it was found by"):
        index.query(Filter.parse({"tier": ["trusted"]}))
    assert any("postings of segment" in finding for finding in findings(path))


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("DELETE FROM entries WHERE number = 5", "not all are there"),
        ("UPDATE entries SET number = 1000 WHERE number = 69", "do not end at entry 69"),
        ("DELETE FROM entries WHERE number = 69", "do not end at entry 69"),
        (("INSERT INTO entries SELECT -1, leaf, event, at, project, namespace, kind, tier, key,"
         " digest, size, entry_id, issuer, iss, subject, repository_id, repository, run_id,"
         ' "commit", actor_id, actor, rule, policy_sha256, jti_sha256, tid, epoch, server, keyid,'
         " detail, seal FROM entries WHERE number = 3"), "beyond the log"),
        ("DELETE FROM postings WHERE segment = 2 AND facet = 5", "postings of segment 2"),
        ("INSERT INTO postings VALUES (9, 0, 'stored', x'62')", "of segments that there are not"),
        ("UPDATE postings SET members = x'70' WHERE segment = 1 AND facet = 0", "postings of"),
        ("UPDATE slices SET low = low - 1 WHERE segment = 0", "slices of segment 0"),
        ("DELETE FROM slices WHERE segment = 3 AND number = 1", "slices of segment 3"),
        ("UPDATE groups SET summary = x'90' WHERE segment = 0", "groups of segment 0"),
        ("UPDATE groups SET codes = x'00' WHERE segment = 0", "groups of segment 0"),
        ("DELETE FROM groups WHERE segment = 0", "groups of segment 0"),
        ("UPDATE state SET size = 69", "does not fit|do not end|not well formed"),
        ("UPDATE state SET root = zeroblob(32)", "does not fit its proof"),
        ("UPDATE state SET edge = x'00'", "not well formed"),
        ("UPDATE state SET edge = 'text'", "not well formed"),
        ("UPDATE state SET segment = 0", "does not fit"),
        ("UPDATE state SET origin = ''", "does not fit"),
        ("DELETE FROM state", "does not say how far"),
    ],
)  # fmt: skip
def test_every_change_by_hand_is_found_by_the_check(path, statement, says):
    change(path, statement)
    try:
        found = "; ".join(findings(path))
    except DamagedIndex as error:
        found = str(error)
    assert re.search(says, found)


def test_a_row_that_was_taken_out_is_damage_to_whoever_asks_for_it(path):
    change(path, "DELETE FROM entries WHERE number IN (5, 66)")
    index = AuditIndex.open(path, segment=16)
    for number in (5, 66):
        with pytest.raises(DamagedIndex, match=f"entry {number} is missing"):
            index.entry(number)
    with pytest.raises(DamagedIndex, match="entry 66 is missing"):
        index.count_by("rule", Filter.parse({"event": ["stored"]}))
    with pytest.raises(DamagedIndex, match="entry 5 is missing"):
        anyio.run(index.check_against, LOG)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER quiet AFTER INSERT ON entries BEGIN DELETE FROM entries; END",
        "CREATE VIEW more AS SELECT 1",
        "CREATE INDEX fast ON entries (subject)",
        "DROP TABLE groups",
        "ALTER TABLE entries ADD COLUMN more",
        "PRAGMA user_version = 99",
    ],
)
def test_changed_tables_are_refused_before_anything_is_read(path, statement):
    change(path, statement)
    with pytest.raises(DamagedIndex, match="audit index rebuild"):
        AuditIndex.open(path)


def test_a_forged_edge_stops_the_next_batch(path):
    """Edge and root changed together, so that they fit each other: the log does not fit them."""
    rows = [row.leaf for row in (read_leaf(n, leaf) for n, leaf in enumerate(LEAVES))]
    rows[5] = bytes(32)
    edge, _ = Edge.empty().extend(rows)
    data = b"".join(hash_ for level in edge.levels for hash_ in level)
    change(path, ("UPDATE state SET root = ?, edge = ?", (edge.root(), data)))
    index = AuditIndex.open(path)
    with pytest.raises(LogInconsistent, match="was changed, or the index was"):
        anyio.run(index.catch_up, ListedLog([*LEAVES, *LEAVES[:5]]))
    assert index.state().size == 70
    assert any("do not lead to the root" in finding for finding in findings(path))


def test_forged_seals_are_found_with_the_log(path):
    index = AuditIndex.open(path)
    number = next(row.number for row in index.query().rows if row.number >= 64 and row.subject)
    forged = index.entry(number)._replace(subject="somebody else").sealed()
    change(
        path,
        (
            "UPDATE entries SET subject = 'somebody else', seal = ? WHERE number = ?",
            (forged[-1], number),
        ),
    )
    assert index.entry(number).subject == "somebody else"
    assert index.check() == ()
    (finding,) = anyio.run(index.check_against, LOG)
    assert str(finding) == f"entry {number}: its row is not what its leaf says"


def test_a_check_against_another_log_says_so(path):
    index = AuditIndex.open(path)
    other = [*LEAVES[:30], leaf_of(numbered(5)), *LEAVES[31:]]
    with pytest.raises(LogInconsistent):
        anyio.run(index.check_against, ListedLog(other))


@pytest.mark.parametrize("keep", [0, 1, 15, 16, 100, 4096, 8191, 8192, 20_000, 50_000])
def test_a_truncated_file_is_damaged_or_new_but_never_believed(path, keep):
    with path.open("r+b") as file:
        file.truncate(keep)
    if keep <= 1:
        # To SQLite that is an empty file: no index yet.
        index = AuditIndex.open(path)
        assert index.count() == 0
        anyio.run(index.catch_up, LOG)
        assert index.count() == 70
        return
    with pytest.raises(DamagedIndex, match="audit index rebuild"):
        ask_everything(AuditIndex.open(path))


@pytest.mark.parametrize("seed", range(12))
def test_any_flipped_bit_is_noticed_or_changes_nothing(path, seed):
    """Somewhere in the file. What is answered is right; what is not right is not answered."""
    chance = random.Random(seed)
    data = bytearray(path.read_bytes())
    expected = tuple(read_leaf(number, leaf) for number, leaf in enumerate(LEAVES))
    noticed = 0
    for _ in range(25):
        at = chance.randrange(len(data) * 8)
        data[at // 8] ^= 1 << at % 8
        path.write_bytes(data)
        data[at // 8] ^= 1 << at % 8
        index = None
        try:
            index = AuditIndex.open(path)
            rows = ask_everything(index)
        except (DamagedIndex, Misconfigured):
            noticed += 1
        else:
            assert rows == expected
            noticed += bool(index.check())
        finally:
            if index is not None:
                index.close()
    # Pages have room that holds nothing.
    assert noticed


@pytest.mark.parametrize("column", ["members", "digits", "summary", "codes"])
@pytest.mark.parametrize("junk", [b"", b"\xff", b"p\xff\xff", b"b", b"x" * 3, "text", None, 7])
def test_derived_sets_that_are_not_well_formed_are_damage(path, column, junk):
    table = {"members": "postings", "digits": "slices"}.get(column, "groups")
    try:
        change(path, (f"UPDATE {table} SET {column} = ?", (junk,)))  # noqa: S608
    except sqlite3.IntegrityError:
        return
    index = AuditIndex.open(path)
    with pytest.raises(DamagedIndex):
        ask_everything(index)
    assert index.check()


def test_a_row_keeps_its_types(path):
    change(path, "UPDATE entries SET at = CAST(at AS TEXT) WHERE number = 3")
    stored = AuditIndex.open(path)
    with sqlite3.connect(path) as connection:
        row = connection.execute("SELECT * FROM entries WHERE number = 3").fetchone()
    connection.close()
    # Its column gives a number's text back as the number that it was.
    assert Row.unseal(row) == stored.entry(3)
