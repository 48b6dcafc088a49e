"""DSSE envelopes: what is signed, and the one spelling in which it is stored and logged.

Specification: DSSE 1.0 (`protocol.md`, `envelope.md`), narrowed: exactly one signature, standard
base64 in its canonical form, and the envelope written by RFC 8785 (JCS). The bytes of an
envelope are the leaf of the log, so one statement must not have two envelopes that differ only
in spelling. Nothing here knows what a payload means, and nothing here verifies.
"""

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any, Self

import rfc8785

from secure_cache.model.errors import CorruptObject, Malformed
from secure_cache.model.strict_json import load_strict_object

IN_TOTO = "application/vnd.in-toto+json"
"""The payload type of every envelope of this project."""

MAX_ENVELOPE_BYTES = 60 * 1024
"""A C2SP log takes entries of up to 65 535 bytes; verifiers deserve some room."""

MAX_SIGNATURE_BYTES = 4096
"""Room for a post-quantum signature."""

_KEYID = re.compile(r"[0-9a-f]{64}")


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: the exact bytes that are signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


@dataclass(frozen=True, slots=True)
class Envelope:
    """An envelope that is well formed. Nothing in it is proved.

    Attributes:
        unverified_payload: the statement's bytes.
        unverified_keyid: which key is claimed to have signed; hex SHA-256 of its SPKI DER.
        signature: raw Ed25519 (64 bytes) or DER (ECDSA).
    """

    unverified_payload: bytes
    unverified_keyid: str
    signature: bytes

    def pae(self) -> bytes:
        return pae(IN_TOTO, self.unverified_payload)

    def document(self) -> dict[str, Any]:
        """The envelope as a JSON object."""
        return {
            "payload": encode_base64(self.unverified_payload),
            "payloadType": IN_TOTO,
            "signatures": [{"keyid": self.unverified_keyid, "sig": encode_base64(self.signature)}],
        }

    def encode(self) -> bytes:
        """The one spelling: RFC 8785.

        Raises:
            Malformed: larger than `MAX_ENVELOPE_BYTES`.
        """
        data = rfc8785.dumps(self.document())
        if len(data) > MAX_ENVELOPE_BYTES:
            raise Malformed(f"a statement of {len(data)} bytes in its envelope is too large")
        return data

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Accept exactly what `encode` gives.

        Raises:
            CorruptObject: any other bytes.
        """
        try:
            envelope = cls.of(load_strict_object(data, max_bytes=MAX_ENVELOPE_BYTES))
        except ValueError as error:
            raise CorruptObject(f"the envelope is not well formed: {error}") from None
        # Blanks, escapes, member order and number forms have many spellings; the log holds one.
        if envelope.encode() != data:
            raise CorruptObject("the envelope is not in its canonical form")
        return envelope

    @classmethod
    def of(cls, document: dict[str, Any]) -> Self:
        """The inverse of `document`.

        Raises:
            ValueError: it is not an envelope.
        """
        if document.keys() != {"payload", "payloadType", "signatures"}:
            raise ValueError("it has other members than payload, payloadType and signatures")
        if document["payloadType"] != IN_TOTO:
            raise ValueError(f"its payload type is not {IN_TOTO}")
        signatures = document["signatures"]
        # A second signature could not be judged by a verifier that takes any one valid signature.
        if not isinstance(signatures, list) or len(signatures) != 1:
            raise ValueError("it has not exactly one signature")
        (signature,) = signatures
        if not isinstance(signature, dict) or signature.keys() != {"keyid", "sig"}:
            raise ValueError("its signature has other members than keyid and sig")
        keyid = signature["keyid"]
        if not isinstance(keyid, str) or _KEYID.fullmatch(keyid) is None:
            raise ValueError("its keyid is not a lower-case hex SHA-256")
        raw = decode_base64(signature["sig"])
        if not 0 < len(raw) <= MAX_SIGNATURE_BYTES:
            raise ValueError("its signature is empty or too long")
        return cls(decode_base64(document["payload"]), keyid, raw)


def encode_base64(data: bytes) -> str:
    """RFC 4648 section 4, with padding."""
    return base64.b64encode(data).decode("ascii")


def decode_base64(text: object) -> bytes:
    """The inverse of `encode_base64`: accepts exactly what it gives.

    Raises:
        ValueError: not a string, another alphabet, blanks, missing padding, or bits set in the
            padding.
    """
    if not isinstance(text, str):
        raise ValueError("a base64 member is not a string")  # noqa: TRY004 - one error for callers
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("a base64 member is not base64") from None
    if encode_base64(data) != text:
        raise ValueError("a base64 member is not in its canonical form")
    return data
