"""Verification keys: JSON Web Key Sets, read strictly (RFC 7517, RFC 7638, RFC 8037).

A key that is not for verifying our kind of signature is skipped, with the reason; a set that could
mean two things is refused whole. A key has one algorithm, fixed here and never by a token.
"""

import base64
import functools
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from secure_cache.model.strict_json import JsonValue, load_strict_object

MAX_SET_BYTES = 512 * 1024
MAX_KEYS = 100
KID: Final = re.compile(r"[A-Za-z0-9._=+:@-]{1,256}")

_RSA_BITS = range(2048, 8193)
_ROCA_PRIMES = tuple(
    number for number in range(3, 168) if all(number % divisor for divisor in range(2, number))
)
_ALGORITHMS: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    ("RSA", ""): ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("OKP", "Ed25519"): ("EdDSA",),
}
ASYMMETRIC: Final = frozenset(name for names in _ALGORITHMS.values() for name in names)
_MEMBERS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key bound to its one algorithm. `kid` is None where the set has none."""

    kid: str | None
    algorithm: str
    jwk: jwt.PyJWK


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys of one issuer.

    Attributes:
        keys: those that can verify.
        skipped: why each other entry of the set was left out.
    """

    keys: tuple[VerificationKey, ...] = ()
    skipped: tuple[str, ...] = ()

    def find(self, kid: str | None) -> VerificationKey | None:
        """The key with this id. Without an id, the only key of a set that has exactly one."""
        if kid is None:
            return self.keys[0] if len(self.keys) == 1 else None
        return next((key for key in self.keys if key.kid == kid), None)


def parse_key_set(data: bytes, algorithms: Iterable[str]) -> KeySet:
    """Read a JWK set.

    Args:
        data: the document.
        algorithms: what the issuer may sign with, the preferred one first: it is taken for a
            key that does not name its own.

    Raises:
        ValueError: not strict JSON, not a JWK set, too long, more than `MAX_KEYS` entries, or
            two entries with one `kid`.
    """
    document = load_strict_object(data, max_bytes=MAX_SET_BYTES)
    entries = document.get("keys")
    if not isinstance(entries, list):
        raise ValueError("not a JWK set: no list of keys")  # noqa: TRY004 - one error for callers
    if len(entries) > MAX_KEYS:
        raise ValueError(f"a JWK set of more than {MAX_KEYS} keys")
    ids = [entry.get("kid") for entry in entries if isinstance(entry, dict)]
    texts = [kid for kid in ids if isinstance(kid, str)]
    if len(texts) != len(set(texts)):
        raise ValueError("a JWK set with two keys of one kid")
    allowed = tuple(name for name in algorithms if name in ASYMMETRIC)
    keys, skipped = [], []
    for number, entry in enumerate(entries):
        try:
            keys.append(_key(entry, allowed))
        except ValueError as error:
            skipped.append(f"key {number}: {error}")
    return KeySet(tuple(keys), tuple(skipped))


def ed25519_key_set(public_keys: Iterable[Ed25519PublicKey]) -> KeySet:
    """The keys of this server itself, each under its thumbprint."""
    return parse_key_set(json.dumps(public_jwk_set(public_keys)).encode(), ("EdDSA",))


def public_jwk_set(public_keys: Iterable[Ed25519PublicKey]) -> dict[str, list[dict[str, str]]]:
    """The document to publish, so that other services can verify our tokens."""
    return {
        "keys": [
            {**_ed25519_members(key), "kid": thumbprint(key), "alg": "EdDSA", "use": "sig"}
            for key in public_keys
        ]
    }


def thumbprint(public_key: Ed25519PublicKey) -> str:
    """RFC 7638, SHA-256, base64url without padding."""
    canonical = json.dumps(_ed25519_members(public_key), sort_keys=True, separators=(",", ":"))
    return _base64url(hashlib.sha256(canonical.encode()).digest())


def _key(entry: JsonValue, allowed: tuple[str, ...]) -> VerificationKey:
    if not isinstance(entry, dict):
        raise ValueError("not an object")  # noqa: TRY004 - one error for callers
    kid = entry.get("kid")
    if "kid" in entry and (not isinstance(kid, str) or KID.fullmatch(kid) is None):
        raise ValueError("kid is not 1 to 256 plain characters")
    if not _PRIVATE.isdisjoint(entry):
        raise ValueError("holds private or symmetric key material")
    if entry.get("use", "sig") != "sig":
        raise ValueError("use is not sig")
    operations = entry.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise ValueError("key_ops lacks verify")
    algorithm = _algorithm(entry, allowed)
    return VerificationKey(
        kid if isinstance(kid, str) else None, algorithm, _load(entry, algorithm)
    )


def _algorithm(entry: Mapping[str, JsonValue], allowed: tuple[str, ...]) -> str:
    kty, crv = entry.get("kty"), entry.get("crv", "")
    possible = (
        _ALGORITHMS.get((kty, crv), ()) if isinstance(kty, str) and isinstance(crv, str) else ()
    )
    if not possible:
        raise ValueError("kty or crv is not one for our signatures")
    named = entry.get("alg")
    if named is None and "alg" not in entry:
        named = next((name for name in allowed if name in possible), None)
    if not isinstance(named, str) or named not in possible or named not in allowed:
        raise ValueError("alg is not one that this issuer may use with such a key")
    return named


def _load(entry: Mapping[str, JsonValue], algorithm: str) -> jwt.PyJWK:
    kty = str(entry["kty"])
    members: dict[str, str] = {"kty": kty}
    for name in _MEMBERS[kty]:
        value = entry.get(name)
        if not isinstance(value, str) or not value or len(value) > 4096:
            raise ValueError(f"{name} is missing, too long or not a string")
        members[name] = value
    try:
        jwk = jwt.PyJWK(members, algorithm=algorithm)
    except (jwt.PyJWTError, ValueError):
        raise ValueError("not a usable public key") from None
    if isinstance(jwk.key, RSAPublicKey):
        if jwk.key.key_size not in _RSA_BITS:
            raise ValueError("an RSA key outside 2048 to 8192 bits")
        if _is_roca(jwk.key.public_numbers().n):
            raise ValueError("an RSA key with the ROCA weakness (CVE-2017-15361)")
    return jwk


def _is_roca(modulus: int) -> bool:
    """The weak generator made primes that are powers of 65537 modulo every small prime, so the
    modulus is one too; a sound modulus is that for all of them by a chance of next to nothing."""
    return all(modulus % prime in _powers_of_65537(prime) for prime in _ROCA_PRIMES)


@functools.cache
def _powers_of_65537(prime: int) -> frozenset[int]:
    return frozenset(pow(65537, exponent, prime) for exponent in range(prime - 1))


def _ed25519_members(public_key: Ed25519PublicKey) -> dict[str, str]:
    raw = public_key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return {"crv": "Ed25519", "kty": "OKP", "x": _base64url(raw)}


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
