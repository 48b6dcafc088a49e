"""Somebody can write to the bucket, but does not hold an entry key.

Attack table: "manifest replay at another key, namespace or project" and "manifest forgery".
"""

import json
from dataclasses import replace

import pytest
import rfc8785
from fakes.statements import (
    CHUNKS,
    ENTRY,
    LARGE_ENTRY,
    done,
    ed25519_signer,
    entries,
    es256_signer,
    flipped,
    public_key,
    ring_for,
    signed,
)
from hypothesis import assume, given
from hypothesis import strategies as st

from secure_cache.model.digest import Digest
from secure_cache.model.errors import CorruptObject
from secure_cache.model.names import Namespace, parse_key
from secure_cache.provenance.dsse import Envelope, encode_base64, pae
from secure_cache.provenance.keys import KeyRing, KeyStatus
from secure_cache.provenance.record import Record, encode_record, parse_record
from secure_cache.provenance.statement import build_statement, sign_entry
from secure_cache.provenance.verify import check_chunk_list, verify_entry
from secure_cache.storage import layout

SIGNERS = {"ed25519": ed25519_signer(), "es256": es256_signer()}
SIGNER = SIGNERS["ed25519"]
RING = ring_for(*SIGNERS.values())
ENVELOPES = {name: done(sign_entry(LARGE_ENTRY, signer)) for name, signer in SIGNERS.items()}
RECORD = encode_record(Record(ENVELOPES["ed25519"], CHUNKS, "pending/ab/000000000001", 7))


def prove(envelope, ring=RING, entry=LARGE_ENTRY):
    return verify_entry(envelope, ring, namespace=entry.namespace, key=entry.key)


@pytest.mark.parametrize("name", SIGNERS)
@given(data=st.data())
def test_an_envelope_with_one_bit_flipped_never_verifies(name, data):
    envelope = ENVELOPES[name]
    assert prove(envelope).entry == LARGE_ENTRY
    bit = data.draw(st.integers(0, len(envelope) * 8 - 1))
    with pytest.raises(CorruptObject):
        prove(flipped(envelope, bit))


@given(st.integers(0, len(RECORD) * 8 - 1))
def test_a_record_with_one_bit_flipped_is_refused_or_differs_in_its_hint_only(bit):
    try:
        record = parse_record(flipped(RECORD, bit))
        verified = prove(record.envelope)
        check_chunk_list(verified.entry, record.chunks)
    except CorruptObject:
        return
    # Where the leaf was promised is not signed: whoever looks there compares the leaf.
    assert (record.envelope, record.chunks) == (ENVELOPES["ed25519"], CHUNKS)
    assert (record.batch, record.position) != ("pending/ab/000000000001", 7)


@given(entries(), entries())
def test_a_payload_never_verifies_under_the_signature_of_another(one, other):
    assume(one != other)
    signature = Envelope.decode(done(sign_entry(one, SIGNER))).signature
    mixed = Envelope(build_statement(other), SIGNER.keyid, signature).encode()
    with pytest.raises(CorruptObject, match="signature is not by key"):
        prove(mixed, entry=other)


@pytest.mark.parametrize(
    ("namespace", "key"),
    [
        (ENTRY.namespace, parse_key("999")),
        (ENTRY.namespace, parse_key("1234567890123456789")),
        (Namespace("demo", "branch", "main2"), ENTRY.key),
        (Namespace("demo", "branch", "Main"), ENTRY.key),
        (Namespace("demo", "pr", "main"), ENTRY.key),
        (Namespace("other", "branch", "main"), ENTRY.key),
    ],
    ids=str,
)
def test_a_record_copied_to_another_place_is_refused(namespace, key):
    envelope = done(sign_entry(ENTRY, SIGNER))
    with pytest.raises(CorruptObject, match="signed for another"):
        verify_entry(envelope, RING, namespace=namespace, key=key)


@given(entries(), entries())
def test_an_entry_verifies_in_its_own_place_only(one, other):
    same_place = (one.namespace, one.key) == (other.namespace, other.key)
    envelope = done(sign_entry(one, SIGNER))
    if same_place:
        assert prove(envelope, entry=other).entry == one
        return
    with pytest.raises(CorruptObject, match="signed for another"):
        prove(envelope, entry=other)


def test_a_subject_cannot_be_read_as_that_of_another_namespace():
    # `a/b` + `c` and `a` + `b/c` would meet in the subject's name, were a slash allowed in keys.
    with pytest.raises(ValueError, match="cache key"):
        parse_key("b/c")
    one = replace(ENTRY, namespace=Namespace("demo", "branch", "a/b"), key=parse_key("c"))
    other = replace(ENTRY, namespace=Namespace("demo", "branch", "a"), key=parse_key("c"))
    names = {json.loads(build_statement(entry))["subject"][0]["name"] for entry in (one, other)}
    assert names == {"demo:branch/a/b/c", "demo:branch/a/c"}


def test_the_artifacts_name_comes_from_the_signed_entry():
    # A record cannot be pointed at another object: there is no name in it to change.
    other = replace(ENTRY, entry_id="01KDYBV6D80000000000000020")
    assert layout.artifact(ENTRY.entry_id, ENTRY.stored_at) != layout.artifact(
        other.entry_id, other.stored_at
    )
    assert build_statement(other) != build_statement(ENTRY)


def test_a_key_that_nobody_knows_is_refused():
    stranger = ed25519_signer(9)
    with pytest.raises(CorruptObject, match="not in the key ring"):
        prove(done(sign_entry(LARGE_ENTRY, stranger)))


def test_a_stranger_cannot_sign_under_the_name_of_our_key():
    stranger = ed25519_signer(9)
    payload = build_statement(LARGE_ENTRY)
    signature = done(stranger.sign(Envelope(payload, SIGNER.keyid, b"").pae()))
    with pytest.raises(CorruptObject, match="signature is not by key"):
        prove(Envelope(payload, SIGNER.keyid, signature).encode())


@pytest.mark.parametrize(
    ("window", "why"),
    [
        ({"not_before": LARGE_ENTRY.stored_at + 1}, "before key"),
        ({"not_after": LARGE_ENTRY.stored_at - 1}, "after key"),
        (
            {"not_after": LARGE_ENTRY.stored_at - 1, "status": KeyStatus.RETIRED},
            "after key",
        ),
        ({"status": KeyStatus.REVOKED}, "is revoked"),
        ({"not_after": LARGE_ENTRY.stored_at + 1, "status": KeyStatus.REVOKED}, "is revoked"),
    ],
    ids=["not yet valid", "expired", "retired", "revoked", "revoked in its time"],
)
def test_a_key_outside_its_time_is_refused(window, why):
    with pytest.raises(CorruptObject, match=why):
        prove(ENVELOPES["ed25519"], KeyRing((public_key(SIGNER, **window),)))


def test_a_retired_key_still_proves_what_it_signed_in_its_time():
    key = public_key(SIGNER, not_after=LARGE_ENTRY.stored_at, status=KeyStatus.RETIRED)
    assert prove(ENVELOPES["ed25519"], KeyRing((key,))).entry == LARGE_ENTRY


def test_an_algorithm_is_never_taken_from_the_envelope():
    for signer, other in (SIGNERS.values(), reversed(SIGNERS.values())):
        payload = build_statement(LARGE_ENTRY)
        signature = done(other.sign(Envelope(payload, signer.keyid, b"").pae()))
        with pytest.raises(CorruptObject, match="signature is not by key"):
            prove(Envelope(payload, signer.keyid, signature).encode())
    document = json.loads(ENVELOPES["ed25519"])
    document["signatures"][0]["alg"] = "none"
    with pytest.raises(CorruptObject, match="other members"):
        prove(rfc8785.dumps(document))


def test_a_signature_over_another_payload_type_is_refused():
    payload = build_statement(LARGE_ENTRY)
    signature = done(SIGNER.sign(pae("application/json", payload)))
    with pytest.raises(CorruptObject, match="signature is not by key"):
        prove(Envelope(payload, SIGNER.keyid, signature).encode())


def test_a_signature_over_the_bare_payload_is_refused():
    payload = build_statement(LARGE_ENTRY)
    with pytest.raises(CorruptObject, match="signature is not by key"):
        prove(Envelope(payload, SIGNER.keyid, done(SIGNER.sign(payload))).encode())


def test_a_second_signature_cannot_ride_along():
    document = json.loads(ENVELOPES["ed25519"])
    document["signatures"].append({"keyid": "ab" * 32, "sig": encode_base64(b"x" * 64)})
    for signatures in (document["signatures"], document["signatures"][::-1]):
        document["signatures"] = signatures
        with pytest.raises(CorruptObject, match="exactly one signature"):
            prove(rfc8785.dumps(document))


def test_a_signed_statement_with_a_duplicate_member_is_refused():
    # Our own key signed it, and still it has two readings: the first `tier` or the last.
    payload = build_statement(LARGE_ENTRY).replace(
        b'"tier":"trusted"', b'"tier":"contributor","tier":"trusted"'
    )
    with pytest.raises(CorruptObject, match="duplicate key"):
        prove(signed(payload, SIGNER))


def test_a_signed_statement_whose_subject_contradicts_it_is_refused():
    document = json.loads(build_statement(LARGE_ENTRY))
    document["subject"][0]["name"] = "demo:branch/release/1"
    with pytest.raises(CorruptObject, match="contradicts itself"):
        prove(signed(rfc8785.dumps(document), SIGNER))


def test_a_swapped_chunk_list_is_refused():
    forged = b"".join(Digest.of(b"poison %d" % number).raw for number in range(3))
    record = parse_record(encode_record(Record(ENVELOPES["ed25519"], forged, "batch", 0)))
    verified = prove(record.envelope)
    with pytest.raises(CorruptObject, match="not the one that was signed"):
        check_chunk_list(verified.entry, record.chunks)
