"""What the files of a key folder hold: formats only, no I/O."""

import base64
import json
import re
from dataclasses import dataclass, replace
from typing import Self

from secure_cache.model.strict_json import load_strict_object
from secure_cache.provenance.keys import KeyRing, PublicKey, ring_of
from secure_cache.tlog.note import ED25519, Ed25519NoteSigner

MANIFEST = "keys.json"
LOG_KEY = "log.key"
MAX_MANIFEST_BYTES = 1024 * 1024

# 44 characters are the algorithm's byte and a 32-byte seed.
_LOG_KEY_TEXT = re.compile(r"PRIVATE\+KEY\+([^+\n]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/]{44})\n")


@dataclass(frozen=True, slots=True)
class Manifest:
    """`keys.json`: public halves only, so that it may be copied to verifiers."""

    entry: KeyRing
    token: KeyRing
    log_vkey: str

    def encode(self) -> bytes:
        document = {
            "v": 1,
            "log": self.log_vkey,
            "entry": [key.document() for key in self.entry.keys],
            "token": [key.document() for key in self.token.keys],
        }
        return (json.dumps(document, indent=2) + "\n").encode()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Raises: ValueError."""
        document = load_strict_object(data, max_bytes=MAX_MANIFEST_BYTES)
        if document.keys() != {"v", "log", "entry", "token"} or document["v"] != 1:
            raise ValueError("other members than v (1), log, entry and token")
        return cls(_ring(document["entry"]), _ring(document["token"]), str(document["log"]))

    def ring(self, which: str) -> KeyRing:
        return self.entry if which == "entry" else self.token

    def with_ring(self, which: str, ring: KeyRing) -> Self:
        return replace(self, entry=ring) if which == "entry" else replace(self, token=ring)


def private_name(which: str, keyid: str) -> str:
    """The file of a private key."""
    return f"{which}-{keyid}.pem"


def format_log_key(origin: str, seed: bytes) -> bytes:
    """The log's private key as Go's note tools read it. `seed` has 32 bytes."""
    signer = Ed25519NoteSigner(origin, seed)
    key = base64.b64encode(bytes([ED25519]) + seed).decode("ascii")
    return f"PRIVATE+KEY+{origin}+{signer.key_id.hex()}+{key}\n".encode()


def parse_log_key(data: bytes) -> Ed25519NoteSigner:
    """The inverse of `format_log_key`.

    Raises:
        ValueError: anything else. The text never quotes the key, and chains no error that may.
    """
    match = _LOG_KEY_TEXT.fullmatch(data.decode(errors="replace"))
    if match is not None:
        seed = base64.b64decode(match[3])[1:]
        if format_log_key(match[1], seed) == data:
            return Ed25519NoteSigner(match[1], seed)
    raise ValueError("not the private key of a log")


def _ring(documents: object) -> KeyRing:
    if not isinstance(documents, list):
        raise ValueError("a ring is not a list of keys")  # noqa: TRY004 - one error for callers
    return ring_of(PublicKey.from_document(document) for document in documents)
