import base64
import json

import pytest
from fakes.statements import ENTRY, ed25519_signer, flipped, signed
from hypothesis import given
from hypothesis import strategies as st

from secure_cache.model.errors import CorruptObject, Malformed
from secure_cache.provenance.dsse import IN_TOTO, MAX_ENVELOPE_BYTES, Envelope, decode_base64, pae
from secure_cache.provenance.statement import build_statement

KEYID = "ab" * 32
ENVELOPE = Envelope(b'{"a":1}', KEYID, b"signature").encode()


def respelled(**changes):
    """The envelope with some members changed, otherwise in canonical form."""
    return json.dumps(
        json.loads(ENVELOPE) | changes, separators=(",", ":"), sort_keys=True
    ).encode()


def test_the_pae_is_that_of_the_specification():
    # secure-systems-lab/dsse protocol.md, "Test Vectors"
    encoded = pae("http://example.com/HelloWorld", b"hello world")
    assert encoded == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def test_the_pae_counts_bytes_and_not_characters():
    assert pae("ü", "ß".encode()) == "DSSEv1 2 ü 2 ß".encode()


@given(st.binary(max_size=200), st.binary(min_size=1, max_size=80))
def test_an_envelope_survives_the_round_trip(payload, signature):
    envelope = Envelope(payload, KEYID, signature)
    assert Envelope.decode(envelope.encode()) == envelope


@given(st.integers(0, len(ENVELOPE) * 8 - 1))
def test_a_flipped_bit_never_gives_the_same_envelope(bit):
    try:
        changed = Envelope.decode(flipped(ENVELOPE, bit))
    except CorruptObject:
        return
    assert changed != Envelope.decode(ENVELOPE)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        ENVELOPE + b"\n",
        b" " + ENVELOPE,
        b"\xef\xbb\xbf" + ENVELOPE,
        ENVELOPE + ENVELOPE,
        ENVELOPE.replace(b'"payload":', b'"payload":"", "payload":'),
        ENVELOPE.replace(b'{"payload":', b'{"payload":"e30=","payload":'),
        ENVELOPE.replace(b'"payload"', b'"p\\u0061yload"'),
        ENVELOPE.replace(b"/vnd", b"\\/vnd"),
        ENVELOPE.replace(b",", b", ", 1),
        ENVELOPE.decode().encode("utf-16"),
        ENVELOPE[:-1],
        ENVELOPE.replace(b'"keyid":"ab', b'"keyid":"\xff\xfe'),
        ENVELOPE.replace(b'"keyid":"ab', b'"keyid":"\\ud800'),
    ],
)
def test_there_is_one_spelling_of_an_envelope(data):
    with pytest.raises(CorruptObject):
        Envelope.decode(data)


@pytest.mark.parametrize(
    "changes",
    [
        {"extra": 1},
        {"payloadType": "application/json"},
        {"payloadType": IN_TOTO.upper()},
        {"payloadType": None},
        {"payload": None},
        {"payload": ["eyJhIjoxfQ=="]},
        {"payload": "eyJhIjoxfQ"},
        {"payload": "eyJhIjoxfR=="},
        {"payload": "eyJhIjoxfQ==\n"},
        {"payload": "eyJhIjox fQ=="},
        {"payload": "eyJh_joxfQ=="},
        {"payload": "eyJhß=="},
        {"signatures": []},
        {"signatures": {}},
        {"signatures": [{"keyid": KEYID, "sig": "c2ln"}] * 2},
        {"signatures": ["c2ln"]},
        {"signatures": [{"sig": "c2ln"}]},
        {"signatures": [{"keyid": KEYID}]},
        {"signatures": [{"keyid": KEYID, "sig": "c2ln", "alg": "none"}]},
        {"signatures": [{"keyid": KEYID, "sig": ""}]},
        {"signatures": [{"keyid": KEYID, "sig": "A" * 8000}]},
        {"signatures": [{"keyid": KEYID.upper(), "sig": "c2ln"}]},
        {"signatures": [{"keyid": KEYID + "\n", "sig": "c2ln"}]},
        {"signatures": [{"keyid": "", "sig": "c2ln"}]},
        {"signatures": [{"keyid": 7, "sig": "c2ln"}]},
    ],
)
def test_a_malformed_envelope_is_refused(changes):
    with pytest.raises(CorruptObject, match="not well formed"):
        Envelope.decode(respelled(**changes))


@pytest.mark.parametrize("missing", ["payload", "payloadType", "signatures"])
def test_no_member_may_be_missing(missing):
    document = json.loads(ENVELOPE)
    del document[missing]
    with pytest.raises(CorruptObject, match="other members"):
        Envelope.decode(json.dumps(document, separators=(",", ":")).encode())


def test_an_envelope_for_the_log_has_a_limit():
    largest = Envelope(b"x" * 45_000, KEYID, b"s")
    assert Envelope.decode(largest.encode()) == largest
    with pytest.raises(Malformed, match="too large"):
        Envelope(b"x" * 47_000, KEYID, b"s").encode()
    with pytest.raises(CorruptObject):
        Envelope.decode(b" " * (MAX_ENVELOPE_BYTES + 1))


def test_the_one_signature_covers_type_and_payload():
    signer = ed25519_signer()
    envelope = Envelope.decode(signed(build_statement(ENTRY), signer))
    assert envelope.pae().startswith(b"DSSEv1 28 application/vnd.in-toto+json ")
    assert envelope.pae().endswith(build_statement(ENTRY))
    assert len(envelope.signature) == 64


@given(st.binary(max_size=64))
def test_base64_has_one_spelling(data):
    text = base64.b64encode(data).decode()
    assert decode_base64(text) == data
