"""Signers over keys that this process holds."""

from typing import TypeAlias

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from secure_cache.provenance.algorithms import Algorithm, key_id, low_s, public_pem

SigningKey: TypeAlias = Ed25519PrivateKey | ec.EllipticCurvePrivateKey


class Ed25519Signer:
    """Signs with an Ed25519 key: 64 bytes, deterministic."""

    algorithm = Algorithm.ED25519

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.keyid = key_id(key.public_key())

    @property
    def public_pem(self) -> str:
        return public_pem(self._key.public_key())

    async def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)


class Es256Signer:
    """Signs with ECDSA on P-256 and SHA-256, deterministic (RFC 6979): DER, with the smaller `s`.

    Raises:
        ValueError: the key is on another curve.
    """

    algorithm = Algorithm.ES256

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        if not isinstance(key.curve, ec.SECP256R1):
            raise ValueError("ES256 needs a P-256 key")  # noqa: TRY004 - it is the key's value
        self._key = key
        self.keyid = key_id(key.public_key())

    @property
    def public_pem(self) -> str:
        return public_pem(self._key.public_key())

    async def sign(self, message: bytes) -> bytes:
        return low_s(self._key.sign(message, ec.ECDSA(SHA256(), deterministic_signing=True)))


LocalSigner: TypeAlias = Ed25519Signer | Es256Signer


def generate_key(algorithm: Algorithm) -> SigningKey:
    """A new private key, from the operating system's randomness."""
    if algorithm is Algorithm.ED25519:
        return Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP256R1())


def private_pem(key: SigningKey) -> bytes:
    """PKCS #8 PEM, not encrypted."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def load_private_pem(pem: bytes) -> SigningKey:
    """Read a PKCS #8 PEM.

    Raises:
        ValueError: not one unencrypted Ed25519 or P-256 key. The text never quotes the PEM.
    """
    try:
        key = load_pem_private_key(pem, password=None)
    except Exception:  # noqa: BLE001 - and never chained: a parser's message may quote a secret
        raise ValueError("not an unencrypted private key in PEM") from None
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    if isinstance(key, Ed25519PrivateKey):
        return key
    raise ValueError("not an Ed25519 or P-256 key")


def signer_for(key: SigningKey) -> LocalSigner:
    return Ed25519Signer(key) if isinstance(key, Ed25519PrivateKey) else Es256Signer(key)
