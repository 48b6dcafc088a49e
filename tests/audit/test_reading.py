"""Every leaf has a row, and both ways of reading give the same one."""

import json
from dataclasses import replace

import pytest
from fakes.audit import EVENTS, JUNK, leaf_of, leaf_of_event, numbered, writer
from fakes.statements import (
    ENTRY,
    LARGE_ENTRY,
    ed25519_signer,
    entries,
    es256_signer,
    events,
    signed,
)
from hypothesis import given
from hypothesis import strategies as st

from secure_cache.audit.quick import read_leaf, read_quickly
from secure_cache.audit.reading import read_leaf_strictly, statement_of
from secure_cache.audit.row import COLUMNS, Row
from secure_cache.model.errors import DamagedIndex
from secure_cache.provenance.dsse import Envelope
from secure_cache.provenance.event_statement import build_event
from secure_cache.provenance.statement import build_statement
from secure_cache.tlog.merkle import leaf_hash

SIGNER = ed25519_signer()


def quick_or_nothing(leaf):
    """The quick way may refuse; it may never differ."""
    row = read_quickly(3, leaf)
    assert row is None or row == read_leaf_strictly(3, leaf)
    return row


@given(entries())
def test_any_entry_reads_the_same_both_ways(entry):
    leaf = signed(build_statement(entry), SIGNER)
    quick_or_nothing(leaf)
    row = read_leaf(3, leaf)
    assert (row.number, row.leaf, row.event) == (3, leaf_hash(leaf), "stored")
    assert (row.namespace, row.key, row.size) == (str(entry.namespace), entry.key, entry.size)
    assert (row.subject, row.jti_sha256) == (entry.writer.subject, entry.writer.token_id)
    assert row.at == entry.stored_at


@given(events)
def test_any_event_has_a_row_that_names_it(event):
    leaf = signed(build_event(event), SIGNER)
    assert quick_or_nothing(leaf) is None
    row = read_leaf(3, leaf)
    assert row.event in {"opened", "policy", "keys", "quarantined", "removed"}
    assert (row.at, row.server) == (event.at, event.server)
    assert json.loads(row.detail)
    assert statement_of(leaf) == event


@pytest.mark.parametrize("entry", [ENTRY, LARGE_ENTRY], ids=["small", "large"])
@pytest.mark.parametrize("signer", [SIGNER, es256_signer()], ids=["ed25519", "es256"])
def test_an_ordinary_entry_goes_the_quick_way(entry, signer):
    assert quick_or_nothing(leaf_of(entry, signer)) is not None


@given(
    st.sampled_from([ENTRY, LARGE_ENTRY]).map(leaf_of),
    st.integers(0, 5000),
    st.binary(min_size=0, max_size=3),
    st.integers(0, 3),
)
def test_changed_envelopes_read_the_same_both_ways(leaf, at, new, cut):
    at %= len(leaf)
    quick_or_nothing(leaf[:at] + new + leaf[at + cut :])


@given(
    st.sampled_from([ENTRY, LARGE_ENTRY]).map(build_statement),
    st.integers(0, 5000),
    st.sampled_from(
        [b"", b" ", b"0", b"1", b"-", b"e", b".0", b"\\u0061", b"\xc3\xa9", b"a", b'"']
    ),
    st.integers(0, 3),
)
def test_changed_statements_read_the_same_both_ways(payload, at, new, cut):
    at %= len(payload)
    quick_or_nothing(signed(payload[:at] + new + payload[at + cut :], SIGNER))


def changed(**values):
    """A payload with other values in its predicate, canonical all the same."""
    document = json.loads(build_statement(ENTRY))
    document["predicate"].update(values)
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    "values",
    [
        {"entryId": "01kdybv6d8000000000000000z"},
        {"epoch": -1},
        {"epoch": 2**53},
        {"epoch": True},
        {"key": "a/b"},
        {"namespace": {"id": "", "kind": "branch"}},
        {"namespace": {"id": "other", "kind": "branch"}},
        {"namespace": {"id": "a\u0000", "kind": "branch"}},
        {"policySha256": "AB" * 32},
        {"project": "Demo"},
        {"rule": ""},
        {"rule": "r" * 2049},
        {"server": ""},
        {"server": "a\nb"},
        {"sizeBytes": 2**53},
        {"sizeBytes": 5 * 1024 * 1024},
        {"sizeBytes": 8.5},
        {"storedAt": "2026-01-02T03:04:60Z"},
        {"storedAt": "2026-02-30T03:04:05Z"},
        {"storedAt": "2026-1-02T03:04:05Z"},
        {"storedAt": "0000-01-02T03:04:05Z"},
        {"storedAt": "٢٠٢٦-01-02T03:04:05Z"},
        {"tier": "Trusted"},
        {"writer": {}},
        {"writer": []},
        {"chunks": {"listSha256": "ab" * 32, "sizeBytes": 4194304}},
        {"more": 1},
    ],
    ids=str,
)
def test_what_the_verifier_refuses_is_unreadable_both_ways(values):
    leaf = signed(changed(**values), SIGNER)
    assert quick_or_nothing(leaf) is None
    assert read_leaf(3, leaf) == Row(3, leaf_hash(leaf), "unreadable")


def test_only_changed_values_make_the_difference():
    assert quick_or_nothing(signed(changed(epoch=7), SIGNER)).epoch == 7


@given(st.binary(max_size=200))
def test_any_bytes_have_a_row(leaf):
    assert read_leaf(0, leaf) == Row(0, leaf_hash(leaf), "unreadable")


@pytest.mark.parametrize("leaf", [*JUNK, b"x" * 65_535, b"[" * 60_000], ids=range(5))
def test_junk_is_unreadable(leaf):
    assert read_leaf(9, leaf) == Row(9, leaf_hash(leaf), "unreadable")


def test_an_envelope_that_is_too_large_is_unreadable():
    huge = replace(ENTRY, writer=writer(**{f"c{n}": "x" * 1000 for n in range(60)}))
    envelope = Envelope(build_statement(huge), SIGNER.keyid, b"s" * 64)
    leaf = json.dumps(envelope.document(), sort_keys=True, separators=(",", ":")).encode()
    assert quick_or_nothing(leaf) is None
    assert read_leaf(0, leaf).event == "unreadable"


def test_a_row_takes_from_claims_what_auditors_ask_for():
    github = writer(
        repository_id="74",
        repository="acme/mono",
        run_id="1000",
        sha="c0ffee",
        actor_id="12",
        actor="bob",
        family="fam",
    )
    row = read_leaf(0, leaf_of(numbered(1, writer=github)))
    assert (row.repository_id, row.repository) == ("74", "acme/mono")
    assert (row.run_id, row.commit, row.actor_id, row.actor) == ("1000", "c0ffee", "12", "bob")
    assert row.tid == "fam"
    gitlab = replace(
        ENTRY.writer,
        claims=(("pipeline_id", 5), ("project_id", "20"), ("sha", "c0"), ("user_id", True)),
    )
    row = read_leaf(0, leaf_of(numbered(1, writer=gitlab)))
    assert (row.repository_id, row.run_id, row.commit, row.actor_id) == ("20", "5", "c0", "true")


def test_events_say_what_they_are_about():
    rows = {row.event: row for row in (read_leaf(0, leaf_of_event(what)) for what in EVENTS)}
    assert json.loads(rows["policy"].detail) == {"number": 1, "previous_sha256": None}
    assert rows["policy"].policy_sha256 == rows["policy"].digest
    assert rows["quarantined"].entry_id == ENTRY.entry_id
    assert rows["quarantined"].namespace == "demo:branch/main"
    assert json.loads(rows["removed"].detail)["line"] == "superseded"
    assert json.loads(rows["opened"].detail)["origin"] == EVENTS[0].origin
    assert json.loads(rows["keys"].detail)["added"] == ["ab" * 32]


@pytest.mark.parametrize("column", range(len(COLUMNS) + 1), ids=[*COLUMNS, "seal"])
def test_a_row_that_was_changed_is_noticed(column):
    stored = list(read_leaf(3, leaf_of(ENTRY)).sealed())
    assert Row.unseal(tuple(stored)).number == 3
    stored[column] = None if stored[column] is not None else "x"
    with pytest.raises(DamagedIndex):
        Row.unseal(tuple(stored))
    with pytest.raises(DamagedIndex):
        Row.unseal(tuple(stored[:-1]))
