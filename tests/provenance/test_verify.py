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
    ring_for,
    signed,
)
from hypothesis import given

from secure_cache.model.digest import Digest
from secure_cache.model.entry import CHUNK_BYTES
from secure_cache.model.errors import CorruptObject
from secure_cache.provenance.event import Event, LogOpened
from secure_cache.provenance.event_statement import sign_event
from secure_cache.provenance.keys import KeyRing
from secure_cache.provenance.statement import build_statement, sign_entry
from secure_cache.provenance.verify import (
    VerifiedEntry,
    VerifiedEvent,
    check_chunk_list,
    verify_entry,
    verify_event,
    verify_statement,
)

SIGNER = ed25519_signer()
RING = ring_for(SIGNER)
EVENT = Event(LogOpened("example.com/log", "vkey"), ENTRY.stored_at, "secure-cache/0.1.0")


@pytest.mark.parametrize("signer", [SIGNER, es256_signer()], ids=lambda s: s.algorithm)
def test_a_signed_entry_verifies_where_it_was_stored(signer):
    envelope = done(sign_entry(ENTRY, signer))
    verified = verify_entry(envelope, ring_for(signer), namespace=ENTRY.namespace, key=ENTRY.key)
    assert verified == VerifiedEntry(ENTRY, signer.keyid, envelope)


@given(entries())
def test_every_entry_that_can_be_stated_can_be_proved(entry):
    envelope = done(sign_entry(entry, SIGNER))
    verified = verify_entry(envelope, RING, namespace=entry.namespace, key=entry.key)
    assert verified.entry == entry


def test_a_leaf_of_the_log_is_an_entry_or_an_event():
    entry = verify_statement(done(sign_entry(ENTRY, SIGNER)), RING)
    event = verify_statement(done(sign_event(EVENT, SIGNER)), RING)
    assert isinstance(entry, VerifiedEntry)
    assert isinstance(event, VerifiedEvent)
    assert event.event == EVENT


def test_an_event_is_no_entry_and_an_entry_no_event():
    with pytest.raises(CorruptObject, match="statement is not well formed"):
        verify_entry(
            done(sign_event(EVENT, SIGNER)), RING, namespace=ENTRY.namespace, key=ENTRY.key
        )
    with pytest.raises(CorruptObject, match="event is not well formed"):
        verify_event(done(sign_entry(ENTRY, SIGNER)), RING)


@pytest.mark.parametrize(
    "payload",
    [
        b"{}",
        b"hello",
        rfc8785.dumps(
            json.loads(build_statement(ENTRY)) | {"predicateType": "https://example.com/v9"}
        ),
    ],
    ids=["empty", "no JSON", "another type"],
)
def test_a_signed_statement_of_another_type_is_refused(payload):
    envelope = signed(payload, SIGNER)
    for verify in (verify_statement, verify_event):
        with pytest.raises(CorruptObject):
            verify(envelope, RING)
    with pytest.raises(CorruptObject):
        verify_entry(envelope, RING, namespace=ENTRY.namespace, key=ENTRY.key)


@pytest.mark.parametrize("at", [-1, 11])
def test_an_event_outside_the_time_of_its_key_is_refused(at):
    ring = ring_for(SIGNER, not_before=EVENT.at, not_after=EVENT.at + 10)
    assert verify_event(done(sign_event(EVENT, SIGNER)), ring).event == EVENT
    outside = replace(EVENT, at=EVENT.at + at)
    with pytest.raises(CorruptObject, match="signed"):
        verify_event(done(sign_event(outside, SIGNER)), ring)


def test_an_empty_ring_proves_nothing():
    envelope = done(sign_entry(ENTRY, SIGNER))
    with pytest.raises(CorruptObject, match="not in the key ring"):
        verify_entry(envelope, KeyRing(()), namespace=ENTRY.namespace, key=ENTRY.key)


def test_the_signed_chunk_list_is_accepted():
    check_chunk_list(LARGE_ENTRY, CHUNKS)
    check_chunk_list(ENTRY, b"")


@pytest.mark.parametrize(
    "chunks",
    [b"", CHUNKS[:-1], CHUNKS[:-32], CHUNKS + CHUNKS[:32], CHUNKS[32:] + CHUNKS[:32]],
    ids=["none", "half a digest", "too few", "too many", "another order"],
)
def test_another_chunk_list_is_refused(chunks):
    with pytest.raises(CorruptObject, match="chunk list"):
        check_chunk_list(LARGE_ENTRY, chunks)


def test_a_small_artifact_has_no_chunk_list():
    with pytest.raises(CorruptObject, match="chunk list"):
        check_chunk_list(ENTRY, CHUNKS[:32])


def test_the_last_chunk_may_be_whole():
    entry = replace(ENTRY, size=3 * CHUNK_BYTES, chunk_list_digest=Digest.of(CHUNKS))
    check_chunk_list(entry, CHUNKS)
