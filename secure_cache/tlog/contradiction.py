"""Proof that a log has told two stories, which anybody can check with the log's key alone. Pure.

Two checkpoints that one key signed contradict each other when they have one size and two roots,
or when the newer one's own history, at the size of the older one, had another root. For the
second the proof says which root that was, and proves that the newer tree extends it.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from secure_cache.model.errors import LogInconsistent, Malformed
from secure_cache.model.strict_json import load_strict_object
from secure_cache.tlog.checkpoint import Checkpoint, open_checkpoint
from secure_cache.tlog.merkle import HASH_BYTES
from secure_cache.tlog.note import MAX_NOTE_BYTES, Verifier, decode_base64
from secure_cache.tlog.proof import MAX_PROOF_HASHES, verify_consistency

MAX_CONTRADICTION_BYTES = 4 * MAX_NOTE_BYTES
_VERSION = 1
_KIND = "log-contradiction"
_MEMBERS = {"v", "kind", "older", "newer", "rootAtOlder", "proof"}


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Two signed checkpoints, and why they can not both be true. Nothing is verified yet.

    Attributes:
        older: the signed note with the smaller or the same size.
        newer: the other one.
        root_at_older: the root that the newer tree has at the older one's size; for two
            checkpoints of one size, None.
        proof: that the newer tree extends that root; empty for one size.
    """

    older: bytes
    newer: bytes
    root_at_older: bytes | None = None
    proof: tuple[bytes, ...] = ()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read what `encode` writes.

        Raises:
            Malformed: anything else.
        """
        try:
            document = load_strict_object(data, max_bytes=MAX_CONTRADICTION_BYTES)
        except ValueError as error:
            raise Malformed(f"not a contradiction: {error}") from error
        if document.keys() != _MEMBERS or (document["v"], document["kind"]) != (_VERSION, _KIND):
            raise Malformed("not a contradiction of version 1")
        root, proof = document["rootAtOlder"], document["proof"]
        if not isinstance(proof, list) or len(proof) > MAX_PROOF_HASHES:
            raise Malformed("the proof is not a list of at most 63 hashes")
        return cls(
            _text(document["older"]).encode(),
            _text(document["newer"]).encode(),
            None if root is None else _hash(root),
            tuple(_hash(item) for item in proof),
        )

    def encode(self) -> bytes:
        root = self.root_at_older
        document: dict[str, Any] = {
            "v": _VERSION,
            "kind": _KIND,
            "older": self.older.decode(),
            "newer": self.newer.decode(),
            "rootAtOlder": None if root is None else base64.b64encode(root).decode(),
            "proof": [base64.b64encode(hash_).decode() for hash_ in self.proof],
        }
        return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()

    def verify(
        self, verifiers: Sequence[Verifier], *, origin: str
    ) -> tuple[Checkpoint, Checkpoint]:
        """Check that the two contradict each other, and give them.

        Raises:
            Malformed: one is not a checkpoint.
            LogInconsistent: it proves nothing: a signature fails, or they may both be true.
        """
        older = open_checkpoint(self.older, verifiers, origin=origin)
        newer = open_checkpoint(self.newer, verifiers, origin=origin)
        if older.size == newer.size:
            if older.root == newer.root:
                raise LogInconsistent("the two checkpoints say the same")
            return older, newer
        if self.root_at_older is None or self.root_at_older == older.root:
            raise LogInconsistent("nothing shows that the two checkpoints contradict each other")
        verify_consistency(
            old_size=older.size,
            new_size=newer.size,
            old_root=self.root_at_older,
            new_root=newer.root,
            proof=self.proof,
        )
        return older, newer


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise Malformed("a signed note is a text")
    return value


def _hash(value: object) -> bytes:
    raw = decode_base64(_text(value))
    if len(raw) != HASH_BYTES:
        raise Malformed("a hash has 32 bytes")
    return raw
