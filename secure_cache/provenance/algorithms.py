"""The signature algorithms, and the one spelling of keys and signatures in each."""

import hashlib
from enum import StrEnum
from typing import TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

VerifyingKey: TypeAlias = Ed25519PublicKey | EllipticCurvePublicKey


class Algorithm(StrEnum):
    """How a key signs. Ed25519 gives 64 raw bytes, ES256 gives a DER `ECDSA-Sig-Value`."""

    ED25519 = "ed25519"
    ES256 = "es256"


def check_signature(key: VerifyingKey, message: bytes, signature: bytes) -> None:
    """Verify by the key's own algorithm.

    Raises:
        ValueError: not this key's signature over `message`, or not in its one spelling.
    """
    try:
        if isinstance(key, Ed25519PublicKey):
            key.verify(signature, message)
            return
        if low_s(signature) != signature:
            raise ValueError("not the one spelling of an ECDSA signature")
        key.verify(signature, message, ECDSA(SHA256()))
    except InvalidSignature:
        raise ValueError("the signature does not verify") from None


def low_s(signature: bytes) -> bytes:
    """An ECDSA P-256 signature in DER with the smaller of its two `s`.

    Anybody can turn one valid signature into the other; accepting one only keeps a stored
    envelope equal to the logged one.

    Raises:
        ValueError: not DER, or `s` out of range.
    """
    r, s = decode_dss_signature(signature)
    if not 0 < s < P256_ORDER:
        raise ValueError("an ECDSA signature out of range")
    return encode_dss_signature(r, min(s, P256_ORDER - s))


def key_id(key: VerifyingKey) -> str:
    """Hex SHA-256 of the SPKI DER."""
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()


def public_pem(key: VerifyingKey) -> str:
    """The one spelling of a public key: SPKI PEM."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")


def load_public_pem(pem: str, algorithm: Algorithm) -> VerifyingKey:
    """The inverse of `public_pem`.

    Raises:
        ValueError: not one key of that algorithm in its one spelling.
    """
    try:
        key = load_pem_public_key(pem.encode("ascii"))
    except Exception as error:  # cryptography documents no closed set for hostile PEM
        raise ValueError("not a public key in PEM") from error
    if isinstance(key, Ed25519PublicKey):
        kind = Algorithm.ED25519
    elif isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        kind = Algorithm.ES256
    else:
        raise ValueError("not an Ed25519 or P-256 key")  # noqa: TRY004 - one error for callers
    if kind is not algorithm:
        raise ValueError(f"a key for {kind}, not for {algorithm}")
    if public_pem(key) != pem:
        raise ValueError("a public key's PEM is not in its canonical form")
    return key
