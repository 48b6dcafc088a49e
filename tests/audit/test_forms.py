"""Rows as JSON and CSV: complete, and inert whatever claims hold."""

import csv
import io
import json

import pytest
from fakes.audit import (
    EVENTS,
    SIGNER,
    leaf_of,
    leaf_of_event,
    numbered,
    random_leaves,
    writer,
)
from fakes.statements import entries, signed
from hypothesis import given

from secure_cache.audit.forms import CSV_COLUMNS, csv_header, csv_lines, json_line, row_document
from secure_cache.audit.quick import read_leaf
from secure_cache.provenance.statement import build_statement


def read_csv(*rows):
    data = csv_header() + csv_lines(rows)
    return list(csv.DictReader(io.StringIO(data.decode(), newline="")))


@given(entries())
def test_any_entry_becomes_one_inert_line_of_each_form(entry):
    row = read_leaf(0, signed(build_statement(entry), SIGNER))
    line = json_line(row)
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert json.loads(line) == row_document(row)
    assert json.loads(line)["subject"] == entry.writer.subject
    (cells,) = read_csv(row)
    assert set(cells) == set(CSV_COLUMNS)
    for cell in cells.values():
        assert cell.isprintable()
        assert not cell.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r"))


@pytest.mark.parametrize(
    ("subject", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("  =1", "'  =1"),
        ("\t=1", "\\t=1"),
        ("\r\n=1", "\\r\\n=1"),
        ("\uff1d1", "'\uff1d1"),
        ('a","=1', 'a","=1'),
        ("a;=1", "a;=1"),
        ("\u202eevil\u2066", "\\u202eevil\\u2066"),
        ("\x1b[2J", "\\x1b[2J"),
        ("<img src=x onerror=alert(1)>", "<img src=x onerror=alert(1)>"),
        ("Zoë", "Zoë"),
    ],
    ids=ascii,
)
def test_hostile_text_is_inert_in_a_spreadsheet(subject, cell):
    row = read_leaf(0, leaf_of(numbered(1, writer=writer(subject=subject))))
    (cells,) = read_csv(row)
    assert cells["subject"] == cell
    assert row_document(row)["subject"] == subject


def test_a_document_says_only_what_the_entry_says():
    policy = row_document(read_leaf(4, leaf_of_event(EVENTS[1])))
    assert policy["detail"] == {"number": 1, "previous_sha256": None}
    assert policy["time"] == "2026-01-01T00:00:00Z"
    assert "subject" not in policy
    junk = row_document(read_leaf(5, b"junk"))
    assert set(junk) == {"index", "leaf_hash", "event"}


def test_an_export_has_a_line_for_every_row():
    rows = [read_leaf(number, leaf) for number, leaf in enumerate(random_leaves(30))]
    table = read_csv(*rows)
    assert [line["index"] for line in table] == [str(number) for number in range(30)]
    assert [line["event"] for line in table] == [row.event for row in rows]
