import base64
import json

import pytest
import rfc8785
from fakes.statements import CHUNKS, ENTRY, LARGE_ENTRY, done, ed25519_signer, flipped
from hypothesis import given
from hypothesis import strategies as st

from secure_cache.model.errors import CorruptObject, Malformed
from secure_cache.provenance.record import (
    MAX_CHUNKS,
    MAX_RECORD_BYTES,
    Record,
    encode_record,
    parse_record,
)
from secure_cache.provenance.statement import sign_entry

ENVELOPE = done(sign_entry(ENTRY, ed25519_signer()))
SMALL = Record(ENVELOPE, b"", "pending/0123abcd/000000000001", 0)
LARGE = Record(
    done(sign_entry(LARGE_ENTRY, ed25519_signer())), CHUNKS, "pending/0123abcd/000000000002", 255
)


@pytest.mark.parametrize("record", [SMALL, LARGE], ids=["small", "large"])
def test_a_record_survives_the_round_trip(record):
    assert parse_record(encode_record(record)) == record


def test_a_record_keeps_the_very_bytes_of_the_envelope():
    document = json.loads(encode_record(LARGE))
    assert rfc8785.dumps(document["envelope"]) == LARGE.envelope
    assert document["v"] == 1
    assert document["log"] == {"batch": "pending/0123abcd/000000000002", "position": 255}
    assert json.loads(encode_record(SMALL))["chunks"] is None


@given(st.integers(0, len(encode_record(LARGE)) * 8 - 1))
def test_a_flipped_bit_never_gives_the_same_record(bit):
    try:
        changed = parse_record(flipped(encode_record(LARGE), bit))
    except CorruptObject:
        return
    assert changed != LARGE


def test_the_largest_record_fits_its_limit():
    payload = b"x" * 45_000
    envelope = ENVELOPE.replace(json.loads(ENVELOPE)["payload"].encode(), base64.b64encode(payload))
    largest = Record(envelope, b"d" * 32 * MAX_CHUNKS, "a" * 200, 2**53 - 1)
    assert len(encode_record(largest)) <= MAX_RECORD_BYTES
    assert parse_record(encode_record(largest)) == largest


@pytest.mark.parametrize(
    "record",
    [
        Record(ENVELOPE, b"half", "batch", 0),
        Record(ENVELOPE, b"d" * 32 * (MAX_CHUNKS + 1), "batch", 0),
        Record(ENVELOPE, b"", "", 0),
        Record(ENVELOPE, b"", "../up", 0),
        Record(ENVELOPE, b"", "a" * 201, 0),
        Record(ENVELOPE, b"", "batch\n", 0),
        Record(ENVELOPE, b"", "batch", -1),
        Record(ENVELOPE, b"", "batch", 2**53),
    ],
    ids=["half", "too many", "no batch", "dots", "long", "newline", "negative", "huge"],
)
def test_what_could_not_be_read_back_is_never_written(record):
    with pytest.raises(Malformed):
        encode_record(record)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["v"], 2),
        (["v"], True),
        (["v"], "1"),
        (["v"], ...),
        (["extra"], 1),
        (["chunks"], ""),
        (["chunks"], "AAAA"),
        (["chunks"], "not base64!"),
        (["chunks"], 5),
        (["chunks"], ...),
        (["log"], None),
        (["log", "batch"], ""),
        (["log", "batch"], 5),
        (["log", "position"], -1),
        (["log", "position"], True),
        (["log", "position"], "0"),
        (["log", "extra"], 0),
        (["envelope"], None),
        (["envelope"], {}),
        (["envelope", "extra"], 1),
        (["envelope", "payload"], "e30"),
        (["envelope", "signatures"], []),
        (["envelope", "payloadType"], "text/plain"),
    ],
    ids=str,
)
def test_a_record_of_another_form_is_refused(path, value):
    document = json.loads(encode_record(LARGE))
    *above, last = path
    parent = document
    for step in above:
        parent = parent[step]
    if value is ...:
        del parent[last]
    else:
        parent[last] = value
    with pytest.raises(CorruptObject):
        parse_record(rfc8785.dumps(document))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 4096,
        b"{}",
        b"[]",
        encode_record(SMALL) + b"\n",
        encode_record(SMALL)[:-1],
        encode_record(SMALL).replace(b'"v":1', b'"v":1.0'),
        encode_record(SMALL).replace(b'"v":1', b'"v":1,"v":1'),
        b'{"chunks":null,' + encode_record(SMALL)[1:],
        b" " * (MAX_RECORD_BYTES + 1),
        b"[" * 100_000,
    ],
    ids=[
        "empty", "zeros", "object", "list", "newline", "cut", "float", "twice", "first twice",
        "too large", "deep",
    ],
)  # fmt: skip
def test_there_is_one_spelling_of_a_record(data):
    with pytest.raises(CorruptObject):
        parse_record(data)
