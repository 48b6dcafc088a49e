"""The Python libraries of DSSE and in-toto read our envelopes, and refuse forged ones."""

import json

import pytest
from fakes.statements import ENTRY, LARGE_ENTRY, done, ed25519_signer, es256_signer
from google.protobuf.json_format import Parse
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

from secure_cache.provenance.dsse import encode_base64
from secure_cache.provenance.event import EntryRemoved, Event
from secure_cache.provenance.event_statement import build_event, sign_event
from secure_cache.provenance.statement import build_statement, sign_entry

SIGNERS = {"ed25519": ed25519_signer(), "es256": es256_signer()}
EVENT = Event(EntryRemoved.of(ENTRY, line="revocation r1"), ENTRY.stored_at, "secure-cache/0.1.0")


def their_key(signer):
    # securesystemslib reads any SPKI PEM and lets the caller choose the key's id.
    kind = {
        "ed25519": ("ed25519", "ed25519"),
        "es256": ("ecdsa", "ecdsa-sha2-nistp256"),
    }[signer.algorithm]
    public = signer.public_pem
    if signer.algorithm == "ed25519":
        public = signer._key.public_key().public_bytes_raw().hex()
    return SSlibKey(signer.keyid, *kind, {"public": public})


def their_envelope(envelope):
    return Envelope.from_dict(json.loads(envelope))


@pytest.mark.parametrize("name", SIGNERS)
def test_securesystemslib_verifies_an_entry_and_an_event(name):
    signer = SIGNERS[name]
    for envelope in (done(sign_entry(ENTRY, signer)), done(sign_event(EVENT, signer))):
        accepted = their_envelope(envelope).verify([their_key(signer)], 1)
        assert list(accepted) == [signer.keyid]


@pytest.mark.parametrize("name", SIGNERS)
def test_securesystemslib_refuses_a_changed_payload(name):
    signer = SIGNERS[name]
    document = json.loads(done(sign_entry(ENTRY, signer)))
    document["payload"] = encode_base64(
        build_statement(ENTRY).replace(b'"tier":"trusted"', b'"tier":"TRUSTED"')
    )
    with pytest.raises(VerificationError):
        Envelope.from_dict(document).verify([their_key(signer)], 1)


@pytest.mark.parametrize(
    "payload",
    [build_statement(ENTRY), build_statement(LARGE_ENTRY), build_event(EVENT)],
    ids=["entry", "large entry", "event"],
)
def test_in_toto_attestation_reads_a_statement(payload):
    statement = Parse(payload.decode(), statement_pb2.Statement())
    Statement.copy_from_pb(statement).validate()
    assert statement.subject[0].digest["sha256"] == str(ENTRY.digest)
