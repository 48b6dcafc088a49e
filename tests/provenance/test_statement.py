import json
from dataclasses import fields, replace

import pytest
import rfc8785
from fakes.statements import CHUNKS, ENTRY, LARGE_ENTRY, entries
from hypothesis import given

from secure_cache.model.digest import Digest
from secure_cache.model.entry import CHUNK_BYTES, Entry
from secure_cache.model.errors import CorruptObject, Malformed
from secure_cache.model.names import Namespace
from secure_cache.provenance.statement import build_statement, chunk_count, parse_statement


def changed(path, value, entry=ENTRY):
    """A statement in canonical form with the member at `path` set, or removed by `...`."""
    document = json.loads(build_statement(entry))
    *above, last = path
    parent = document
    for step in above:
        parent = parent[step]
    if value is ...:
        del parent[last]
    else:
        parent[last] = value
    return rfc8785.dumps(document)


@given(entries())
def test_a_statement_survives_the_round_trip(entry):
    payload = build_statement(entry)
    again = parse_statement(payload)
    # By its text, because a token's id and times, and 1 beside True, do not count in `==`.
    assert repr(again) == repr(entry)
    assert build_statement(again) == payload


@given(entries(), entries())
def test_two_entries_never_share_a_statement(one, other):
    assert (repr(one) == repr(other)) == (build_statement(one) == build_statement(other))


def test_a_statement_says_what_the_specification_says():
    document = json.loads(build_statement(LARGE_ENTRY))
    assert document["_type"] == "https://in-toto.io/Statement/v1"
    assert document["predicateType"] == "https://secure-cache.dev/attestations/cache-entry/v1"
    assert document["subject"] == [
        {
            "name": "demo:branch/main/12345678901234567890",
            "digest": {"sha256": str(LARGE_ENTRY.digest)},
        }
    ]
    predicate = document["predicate"]
    assert predicate.pop("writer")["sub"] == "repo:acme/mono:ref:refs/heads/main"
    assert predicate == {
        "entryId": "01KDYBV6D80000000000000010",
        "project": "demo",
        "namespace": {"kind": "branch", "id": "main"},
        "key": "12345678901234567890",
        "tier": "trusted",
        "sizeBytes": 2 * CHUNK_BYTES + 1,
        "chunks": {"sizeBytes": CHUNK_BYTES, "listSha256": str(Digest.of(CHUNKS))},
        "storedAt": "2026-01-02T03:04:05Z",
        "rule": "main",
        "policySha256": "ab" * 32,
        "epoch": 0,
        "server": "secure-cache/0.1.0",
    }


def test_every_field_of_an_entry_is_stated():
    others = {
        "entry_id": "01KDYBV6D80000000000000020",
        "namespace": Namespace("demo", "pr", "1"),
        "key": "9",
        "tier": type(ENTRY.tier).CONTRIBUTOR,
        "digest": Digest.of(b"other"),
        "size": 9,
        "stored_at": ENTRY.stored_at + 1,
        "writer": replace(ENTRY.writer, subject="somebody else"),
        "rule": "other",
        "policy_sha256": "cd" * 32,
        "epoch": 1,
        "server": "secure-cache/0.1.1",
    }
    assert others.keys() | {"chunk_list_digest"} == {field.name for field in fields(Entry)}
    for name, value in others.items():
        assert build_statement(replace(ENTRY, **{name: value})) != build_statement(ENTRY), name
    other_chunks = replace(LARGE_ENTRY, chunk_list_digest=Digest.of(b"other"))
    assert build_statement(other_chunks) != build_statement(LARGE_ENTRY)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["_type"], "https://in-toto.io/Statement/v0.1"),
        (["predicateType"], "https://slsa.dev/provenance/v1"),
        (["predicateType"], "https://secure-cache.dev/attestations/cache-entry/v2"),
        (["extra"], 1),
        (["subject"], []),
        (["subject", 0, "digest", "sha512"], "00"),
        (["subject", 0, "digest", "sha256"], "AB" * 32),
        (["subject", 0, "digest", "sha256"], "ab" * 31),
        (["subject", 0, "name"], "demo:branch/main/999"),
        (["subject", 0, "uri"], "https://example.com"),
        (["predicate", "extra"], None),
        (["predicate", "entryId"], "01kdybv6d8000000000000000z"),
        (["predicate", "entryId"], "81KDYBV6D8000000000000000Z"),
        (["predicate", "entryId"], "../../../etc/passwd"),
        (["predicate", "entryId"], ...),
        (["predicate", "project"], "other"),
        (["predicate", "project"], "Demo"),
        (["predicate", "namespace", "id"], "other"),
        (["predicate", "namespace", "id"], "a\u0000b"),
        (["predicate", "namespace", "extra"], 1),
        (["predicate", "key"], "999"),
        (["predicate", "key"], "../999"),
        (["predicate", "tier"], "TRUSTED"),
        (["predicate", "tier"], 3),
        (["predicate", "sizeBytes"], "8"),
        (["predicate", "sizeBytes"], True),
        (["predicate", "sizeBytes"], 8.5),
        (["predicate", "sizeBytes"], -1),
        (["predicate", "sizeBytes"], None),
        (["predicate", "sizeBytes"], CHUNK_BYTES + 1),
        (["predicate", "chunks"], None),
        (["predicate", "chunks"], {"sizeBytes": CHUNK_BYTES, "listSha256": "ab" * 32}),
        (["predicate", "storedAt"], "2026-01-02T03:04:05+00:00"),
        (["predicate", "storedAt"], "2026-01-02T03:04:05.0Z"),
        (["predicate", "storedAt"], 1_767_323_045),
        (["predicate", "writer"], {}),
        (["predicate", "writer", "extra"], 1),
        (["predicate", "writer", "claims", "ref"], {"a": 1}),
        (["predicate", "writer", "iat"], -1),
        (["predicate", "rule"], ""),
        (["predicate", "rule"], "x" * 2049),
        (["predicate", "policySha256"], "AB" * 32),
        (["predicate", "epoch"], -1),
        (["predicate", "epoch"], False),
        (["predicate", "server"], "x" * 129),
    ],
)
def test_a_statement_of_another_form_is_refused(path, value):
    with pytest.raises(CorruptObject):
        parse_statement(changed(path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["predicate", "chunks"], ...),
        (["predicate", "chunks", "sizeBytes"], 1024),
        (["predicate", "chunks", "extra"], 1),
        (["predicate", "chunks", "listSha256"], "zz"),
        (["predicate", "sizeBytes"], CHUNK_BYTES),
    ],
)
def test_a_large_artifact_has_chunks_of_the_one_size(path, value):
    with pytest.raises(CorruptObject):
        parse_statement(changed(path, value, LARGE_ENTRY))


RESPELLED = {
    "a newline at the end": lambda payload: payload + b"\n",
    "a blank before": lambda payload: b" " + payload,
    "a float": lambda payload: payload.replace(b'"sizeBytes":8', b'"sizeBytes":8.0'),
    "an exponent": lambda payload: payload.replace(b'"sizeBytes":8', b'"sizeBytes":8e0'),
    "minus zero": lambda payload: payload.replace(b'"epoch":0', b'"epoch":-0'),
    "an escape": lambda payload: payload.replace(b'"rule":"main"', b'"rule":"m\\u0061in"'),
    "a shadowed member": lambda payload: payload.replace(
        b'"rule":"main"', b'"rule":"other","rule":"main"'
    ),
    "a member twice": lambda payload: payload.replace(
        b'"rule":"main"', b'"rule":"main","rule":"main"'
    ),
    "UTF-16": lambda payload: payload.decode().encode("utf-16"),
    "blanks between": lambda payload: json.dumps(json.loads(payload)).encode(),
    "a byte order mark": lambda payload: b"\xef\xbb\xbf" + payload,
}


@pytest.mark.parametrize("how", RESPELLED)
def test_there_is_one_spelling_of_a_statement(how):
    payload = RESPELLED[how](build_statement(ENTRY))
    assert payload != build_statement(ENTRY)
    with pytest.raises(CorruptObject):
        parse_statement(payload)


@pytest.mark.parametrize(
    "changes",
    [
        {"entry_id": "x"},
        {"key": "a/b"},
        {"size": -1},
        {"size": 2**53},
        {"epoch": 2**53},
        {"chunk_list_digest": Digest.of(b"")},
        {"size": CHUNK_BYTES + 1},
        {"rule": "x" * 2049},
        {"server": ""},
        {"policy_sha256": "x"},
        {"writer": replace(ENTRY.writer, claims=(("a", 2**60),))},
        {"writer": replace(ENTRY.writer, claims=(("a", float("nan")),))},
        {"writer": replace(ENTRY.writer, subject="\ud800")},
        {"writer": replace(ENTRY.writer, token_id="x")},
    ],
)
def test_what_could_not_be_read_back_is_never_stated(changes):
    with pytest.raises(Malformed):
        build_statement(replace(ENTRY, **changes))


def test_chunks_are_counted_from_one_byte_more_than_a_chunk():
    sizes = [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, 2 * CHUNK_BYTES + 1]
    assert [chunk_count(size) for size in sizes] == [0, 0, 0, 2, 2, 3]
