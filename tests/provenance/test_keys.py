import json
from dataclasses import replace

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    PublicFormat,
)
from fakes.statements import done, ed25519_signer, es256_signer, flipped, public_key, ring_for
from hypothesis import given
from hypothesis import strategies as st

from secure_cache.model.errors import CorruptObject
from secure_cache.provenance.algorithms import P256_ORDER, Algorithm, low_s
from secure_cache.provenance.keys import KeyRing, KeyStatus, PublicKey
from secure_cache.provenance.signers import (
    Es256Signer,
    generate_key,
    load_private_pem,
    private_pem,
    signer_for,
)

MESSAGE = b"DSSEv1 1 x 1 y"
SIGNERS = {"ed25519": ed25519_signer(), "es256": es256_signer()}
SIGNATURES = {name: done(signer.sign(MESSAGE)) for name, signer in SIGNERS.items()}


def spki_pem(key):
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@pytest.mark.parametrize("name", SIGNERS)
def test_a_key_verifies_what_it_signed(name):
    signer = SIGNERS[name]
    signature = done(signer.sign(MESSAGE))
    assert ring_for(signer).verify(signer.keyid, MESSAGE, signature).keyid == signer.keyid


@pytest.mark.parametrize("name", SIGNERS)
@given(data=st.data())
def test_a_flipped_bit_in_message_or_signature_never_verifies(name, data):
    signer, signature = SIGNERS[name], SIGNATURES[name]
    ring = ring_for(signer)
    bit = data.draw(st.integers(0, len(signature) * 8 - 1))
    with pytest.raises(CorruptObject):
        ring.verify(signer.keyid, MESSAGE, flipped(signature, bit))
    bit = data.draw(st.integers(0, len(MESSAGE) * 8 - 1))
    with pytest.raises(CorruptObject):
        ring.verify(signer.keyid, flipped(MESSAGE, bit), signature)


@given(st.binary(min_size=1, max_size=40))
def test_an_ecdsa_signature_has_one_spelling(message):
    signer = es256_signer()
    ring = ring_for(signer)
    signature = done(signer.sign(message))
    r, s = decode_dss_signature(signature)
    assert low_s(signature) == signature
    for other in (
        encode_dss_signature(r, P256_ORDER - s),
        encode_dss_signature(r, s + P256_ORDER),
        r.to_bytes(32, "big") + s.to_bytes(32, "big"),
        signature + b"\0",
        b"",
    ):
        with pytest.raises(CorruptObject):
            ring.verify(signer.keyid, message, other)


def test_an_empty_ring_refuses_everything():
    signer = ed25519_signer()
    with pytest.raises(CorruptObject, match="not in the key ring"):
        KeyRing(()).verify(signer.keyid, MESSAGE, done(signer.sign(MESSAGE)))


def test_a_key_cannot_stand_twice_in_a_ring():
    key = public_key(ed25519_signer())
    with pytest.raises(ValueError, match="twice"):
        KeyRing((key, replace(key, not_before=5)))


def test_a_ring_knows_its_keys_also_the_revoked_ones():
    signer = ed25519_signer()
    ring = ring_for(signer, status=KeyStatus.REVOKED)
    assert signer.keyid in ring
    assert ed25519_signer(2).keyid not in ring


def test_a_key_id_is_the_sha256_of_the_spki():
    # RFC 8410 section 10.1: the example public key, its SPKI hashed with sha256sum.
    pem = (
        "-----BEGIN PUBLIC KEY-----\n"
        "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n"
        "-----END PUBLIC KEY-----\n"
    )
    key = PublicKey(Algorithm.ED25519, pem, 0)
    assert key.keyid == "a1e9156054e04fac899ae9f275132cdc07a5dbc4ea2c2ad3a1ffc6e0d253681f"


def test_the_window_of_a_key_includes_both_ends():
    key = public_key(ed25519_signer(), not_before=100, not_after=200)
    key.require_valid_at(100)
    key.require_valid_at(200)
    with pytest.raises(CorruptObject, match="before"):
        key.require_valid_at(99)
    with pytest.raises(CorruptObject, match="after"):
        key.require_valid_at(201)


@pytest.mark.parametrize(
    "window",
    [
        {"not_before": -1},
        {"not_before": 5, "not_after": 4},
        {"status": KeyStatus.RETIRED},
    ],
    ids=str,
)
def test_a_window_that_makes_no_sense_is_refused(window):
    with pytest.raises(ValueError, match="key"):
        public_key(ed25519_signer(), **window)


FOREIGN = {
    "another curve": spki_pem(ec.derive_private_key(7, ec.SECP384R1()).public_key()),
    "secp256k1": spki_pem(ec.derive_private_key(7, ec.SECP256K1()).public_key()),
    "Ed448": spki_pem(ed448.Ed448PrivateKey.from_private_bytes(b"\1" * 57).public_key()),
    "RSA": spki_pem(rsa.generate_private_key(65537, 2048).public_key()),
    "no PEM": "x",
    "not ASCII": "ü",
    "empty": "",
    "two keys": SIGNERS["ed25519"].public_pem * 2,
    "text around it": "# our key\n" + SIGNERS["ed25519"].public_pem,
    "Windows line ends": SIGNERS["ed25519"].public_pem.replace("\n", "\r\n"),
    "a compressed point": "-----BEGIN PUBLIC KEY-----\n"
    "MDkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDIgADaxfR8uEsQkf4vOblY6RA8ncDfYEt\n"
    "6zOg9KE5RdiYwpY=\n-----END PUBLIC KEY-----\n",
}


@pytest.mark.parametrize("algorithm", list(Algorithm))
@pytest.mark.parametrize("what", FOREIGN)
def test_only_our_kinds_of_key_in_their_one_spelling_are_accepted(what, algorithm):
    with pytest.raises(ValueError, match=r"key|canonical"):
        PublicKey(algorithm, FOREIGN[what], 0)


def test_a_ring_survives_the_round_trip():
    ring = KeyRing(
        tuple(
            sorted(
                (
                    public_key(ed25519_signer(), not_before=5),
                    public_key(es256_signer(), not_after=9, status=KeyStatus.RETIRED),
                    public_key(ed25519_signer(2), status=KeyStatus.REVOKED),
                ),
                key=lambda key: key.keyid,
            )
        )
    )
    assert KeyRing.decode(ring.encode()) == ring
    assert KeyRing.decode(KeyRing(()).encode()) == KeyRing(())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["v"], 2),
        (["extra"], 1),
        (["keys"], {}),
        (["keys", 0], "x"),
        (["keys", 0, "keyid"], "ab" * 32),
        (["keys", 0, "algorithm"], "none"),
        (["keys", 0, "algorithm"], "es256"),
        (["keys", 0, "status"], "trusted"),
        (["keys", 0, "notBefore"], 5),
        (["keys", 0, "notBefore"], "yesterday"),
        (["keys", 0, "notAfter"], None),
        (["keys", 0, "extra"], 1),
        (["keys", 0, "pem"], ...),
        (["keys", 0, "pem"], ["x"]),
    ],
    ids=str,
)
def test_a_ring_of_another_form_is_refused(path, value):
    document = json.loads(ring_for(ed25519_signer()).encode())
    *above, last = path
    parent = document
    for step in above:
        parent = parent[step]
    if value is ...:
        del parent[last]
    else:
        parent[last] = value
    with pytest.raises(ValueError, match=r"key|canonical"):
        KeyRing.decode(rfc8785.dumps(document))


def test_the_digest_of_a_ring_changes_with_every_status():
    signer = ed25519_signer()
    rings = [ring_for(signer, not_after=9, status=status) for status in KeyStatus]
    assert len({str(ring.digest) for ring in rings}) == len(rings)


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_a_private_key_survives_its_file(algorithm):
    key = generate_key(algorithm)
    again = load_private_pem(private_pem(key))
    assert signer_for(again).keyid == signer_for(key).keyid
    assert signer_for(again).algorithm is algorithm


def test_private_keys_of_other_kinds_are_refused_and_not_quoted():
    p384 = ec.derive_private_key(7, ec.SECP384R1())
    locked = ed25519.Ed25519PrivateKey.from_private_bytes(b"\1" * 32).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )
    for pem in (b"", b"secret", private_pem(p384), locked):
        with pytest.raises(ValueError, match=r"^not an") as caught:
            load_private_pem(pem)
        assert caught.value.__cause__ is None
    with pytest.raises(ValueError, match="P-256"):
        Es256Signer(p384)
