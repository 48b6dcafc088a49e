"""C2SP tlog-cosignature: a witness's signature with its time. Pure.

    type 0x04   Ed25519, over the time and the checkpoint's whole text
    type 0x06   ML-DSA-44, over the time, its own name, and the checkpoint's origin, size and root

The Ed25519 message does not hold the witness's name: one such key must never go by two names.
"""

import base64
import struct
from dataclasses import dataclass
from typing import Protocol, Self, TypeAlias

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

from secure_cache.model.errors import LogInconsistent, Malformed
from secure_cache.tlog.checkpoint import Checkpoint
from secure_cache.tlog.note import Signature, check_key_name, decode_base64, key_id, verify_ed25519

COSIGNATURE_ED25519 = 0x04
COSIGNATURE_MLDSA44 = 0x06
_MAX_TIME = 2**63 - 1
_MLDSA44_PUBLIC_BYTES = 1312
_MLDSA44_SIGNATURE_BYTES = 2420
_SUBTREE = b"subtree/v1\n\0"


@dataclass(frozen=True, slots=True)
class CosignatureVerifier:
    """A witness's Ed25519 public key and name. A `note.Verifier`."""

    name: str
    public_key: bytes

    def __post_init__(self) -> None:
        check_key_name(self.name)
        if len(self.public_key) != 32:
            raise Malformed("an Ed25519 public key has 32 bytes")

    @classmethod
    def parse(cls, vkey: str) -> Self:
        """Read a vkey of type 0x04.

        Raises:
            Malformed: not canonical, or another type.
        """
        name, algorithm, key = _vkey_parts(vkey)
        if algorithm != COSIGNATURE_ED25519 or str(verifier := cls(name, key)) != vkey:
            raise Malformed("not the vkey of an Ed25519 witness")
        return verifier

    @property
    def key_id(self) -> bytes:
        return key_id(self.name, COSIGNATURE_ED25519, self.public_key)

    def verify(self, text: bytes, signature: bytes) -> None:
        """Raises: LogInconsistent."""
        message = cosigned_message(text, cosignature_time(signature))
        verify_ed25519(self.public_key, message, signature[8:])

    def __str__(self) -> str:
        return _vkey(self.name, self.key_id, COSIGNATURE_ED25519, self.public_key)


@dataclass(frozen=True, slots=True)
class MldsaCosignatureVerifier:
    """A witness's ML-DSA-44 public key and name. A `note.Verifier`."""

    name: str
    public_key: bytes

    def __post_init__(self) -> None:
        check_key_name(self.name)
        if len(self.name.encode()) > 255:
            raise Malformed("the name of an ML-DSA-44 witness has at most 255 bytes")
        if len(self.public_key) != _MLDSA44_PUBLIC_BYTES:
            raise Malformed("an ML-DSA-44 public key has 1312 bytes")
        try:
            MLDSA44PublicKey.from_public_bytes(self.public_key)
        except UnsupportedAlgorithm as error:
            raise Malformed("the installed OpenSSL has no ML-DSA-44") from error

    @classmethod
    def parse(cls, vkey: str) -> Self:
        """Read a vkey of type 0x06.

        Raises:
            Malformed: not canonical, or another type.
        """
        name, algorithm, key = _vkey_parts(vkey)
        if algorithm != COSIGNATURE_MLDSA44 or str(verifier := cls(name, key)) != vkey:
            raise Malformed("not the vkey of an ML-DSA-44 witness")
        return verifier

    @property
    def key_id(self) -> bytes:
        return key_id(self.name, COSIGNATURE_MLDSA44, self.public_key)

    def verify(self, text: bytes, signature: bytes) -> None:
        """Raises: LogInconsistent."""
        time = cosignature_time(signature)
        if time == 0:
            raise LogInconsistent("a witness's ML-DSA-44 cosignature has a time")
        try:
            message = subtree_message(text, self.name, time)
            key = MLDSA44PublicKey.from_public_bytes(self.public_key)
            key.verify(signature[8:], message)
        except (InvalidSignature, ValueError, Malformed) as error:
            raise LogInconsistent("a signature of a known key does not verify") from error

    def __str__(self) -> str:
        return _vkey(self.name, self.key_id, COSIGNATURE_MLDSA44, self.public_key)


CosignerKey: TypeAlias = CosignatureVerifier | MldsaCosignatureVerifier


class Cosigner(Protocol):
    """Holds a witness's private key."""

    @property
    def verifier(self) -> CosignerKey: ...

    def cosign(self, checkpoint: Checkpoint, time: int) -> Signature:
        """Whoever calls it has made sure, durably, that nothing older and nothing else of this
        log will ever be cosigned after it."""
        ...


class Ed25519Cosigner:
    """Cosigns with a key held in memory. `seed` is the 32-byte private key."""

    def __init__(self, name: str, seed: bytes) -> None:
        if len(seed) != 32:
            raise Malformed("an Ed25519 seed has 32 bytes")
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self._verifier = CosignatureVerifier(name, self._key.public_key().public_bytes_raw())

    @property
    def verifier(self) -> CosignatureVerifier:
        return self._verifier

    def cosign(self, checkpoint: Checkpoint, time: int) -> Signature:
        value = self._key.sign(cosigned_message(str(checkpoint).encode(), time))
        return _timed(self._verifier, time, value)


class MldsaCosigner:
    """The same with ML-DSA-44, which a quantum computer would not break. `seed` has 32 bytes."""

    def __init__(self, name: str, seed: bytes) -> None:
        if len(seed) != 32:
            raise Malformed("an ML-DSA-44 seed has 32 bytes")
        self._key = MLDSA44PrivateKey.from_seed_bytes(seed)
        self._verifier = MldsaCosignatureVerifier(name, self._key.public_key().public_bytes_raw())

    @property
    def verifier(self) -> MldsaCosignatureVerifier:
        return self._verifier

    def cosign(self, checkpoint: Checkpoint, time: int) -> Signature:
        message = subtree_message(str(checkpoint).encode(), self._verifier.name, time)
        return _timed(self._verifier, time, self._key.sign(message))


def parse_cosigner_key(vkey: str) -> CosignerKey:
    """The verifier of a witness's vkey, of either type.

    Raises:
        Malformed: not canonical, or not the key of a witness (a log's own key has type 0x01).
    """
    _, algorithm, _ = _vkey_parts(vkey)
    if algorithm == COSIGNATURE_ED25519:
        return CosignatureVerifier.parse(vkey)
    if algorithm == COSIGNATURE_MLDSA44:
        return MldsaCosignatureVerifier.parse(vkey)
    raise Malformed(f"a witness's vkey has type 4 or 6, not {algorithm}")


def cosignature_time(signature: bytes) -> int:
    """When the witness signed, in seconds since 1970, if its signature verifies.

    Raises:
        LogInconsistent: the signature can not be one.
    """
    time = int.from_bytes(signature[:8], "big")
    if len(signature) - 8 not in {64, _MLDSA44_SIGNATURE_BYTES} or time > _MAX_TIME:
        raise LogInconsistent("not a cosignature")
    return time


def cosigned_message(text: bytes, time: int) -> bytes:
    """What an Ed25519 witness signs for a checkpoint's whole text."""
    return b"cosignature/v1\ntime %d\n" % time + text


def subtree_message(text: bytes, name: str, time: int) -> bytes:
    """What an ML-DSA-44 witness signs. Extension lines are not part of it.

    Raises:
        Malformed: the text is not a checkpoint, or a name is too long.
    """
    checkpoint = Checkpoint.parse(text.decode())
    names = [name.encode(), checkpoint.origin.encode()]
    if not all(1 <= len(item) <= 255 for item in names):
        raise Malformed("a name in a cosignature has 1 to 255 bytes")
    cosigner, origin = (bytes([len(item)]) + item for item in names)
    end = struct.pack(">QQ", 0, checkpoint.size)
    return _SUBTREE + cosigner + struct.pack(">Q", time) + origin + end + checkpoint.root


def _timed(verifier: CosignerKey, time: int, value: bytes) -> Signature:
    return Signature(verifier.name, verifier.key_id, struct.pack(">Q", time) + value)


def _vkey_parts(vkey: str) -> tuple[str, int, bytes]:
    name, _, rest = vkey.partition("+")
    raw = decode_base64(rest.partition("+")[2])
    if not raw:
        raise Malformed("a vkey is name+hash+key")
    return name, raw[0], raw[1:]


def _vkey(name: str, key_id_: bytes, algorithm: int, public_key: bytes) -> str:
    key = base64.b64encode(bytes([algorithm]) + public_key).decode()
    return f"{name}+{key_id_.hex()}+{key}"
