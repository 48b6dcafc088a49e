"""C2SP tlog-cosignature, Ed25519 (type 0x04): a witness's signature with its time. Pure.

The signed message does not hold the witness's name: one key must never go by two names.
"""

import base64
from dataclasses import dataclass
from typing import Self

from secure_cache.model.errors import LogInconsistent, Malformed
from secure_cache.tlog.note import check_key_name, decode_base64, key_id, verify_ed25519

COSIGNATURE_ED25519 = 0x04
_MAX_TIME = 2**63 - 1


@dataclass(frozen=True, slots=True)
class CosignatureVerifier:
    """A witness's public key and name. A `note.Verifier`."""

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
        name, _, rest = vkey.partition("+")
        raw = decode_base64(rest.partition("+")[2])
        verifier = cls(name, raw[1:])
        if raw[0] != COSIGNATURE_ED25519 or str(verifier) != vkey:
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
        key = base64.b64encode(bytes([COSIGNATURE_ED25519]) + self.public_key).decode()
        return f"{self.name}+{self.key_id.hex()}+{key}"


def cosignature_time(signature: bytes) -> int:
    """When the witness signed, in seconds since 1970, if its signature verifies.

    Raises:
        LogInconsistent: the signature can not be one.
    """
    time = int.from_bytes(signature[:8], "big")
    if len(signature) != 8 + 64 or time > _MAX_TIME:
        raise LogInconsistent("not an Ed25519 cosignature")
    return time


def cosigned_message(text: bytes, time: int) -> bytes:
    """What a witness signs for a checkpoint's whole text."""
    return b"cosignature/v1\ntime %d\n" % time + text
