"""C2SP tlog-proof: one file that proves, offline, that an entry is in a log. Pure.

    c2sp.org/tlog-proof@v1
    extra <base64>              optional, authenticated by nothing
    index <n>
    <base64 hash>               zero or more
    <empty line>
    <signed checkpoint>

The file holds neither the entry nor the log's key: the verifier brings both.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from secure_cache.model.errors import Malformed
from secure_cache.tlog.checkpoint import Checkpoint, open_checkpoint, parse_number
from secure_cache.tlog.merkle import HASH_BYTES, leaf_hash
from secure_cache.tlog.note import MAX_NOTE_BYTES, Verifier, decode_base64
from secure_cache.tlog.proof import MAX_PROOF_HASHES, verify_inclusion
from secure_cache.tlog.tiles import MAX_SIZE

_VERSION = "c2sp.org/tlog-proof@v1"
MAX_PROOF_BYTES = 2 * MAX_NOTE_BYTES


@dataclass(frozen=True, slots=True)
class TlogProof:
    """An inclusion proof with the checkpoint that it leads to. Nothing is verified yet.

    Raises:
        Malformed: a part that can not be written.
    """

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes
    unverified_extra: bytes | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.index <= MAX_SIZE:
            raise Malformed("the index of a proof is out of range")
        if len(self.hashes) > MAX_PROOF_HASHES:
            raise Malformed("a proof has at most 63 hashes")
        if any(len(hash_) != HASH_BYTES for hash_ in self.hashes):
            raise Malformed("a hash in a proof has 32 bytes")

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a `.tlog-proof` file.

        Raises:
            Malformed: not exactly what `bytes` writes.
        """
        if len(data) > MAX_PROOF_BYTES:
            raise Malformed("the proof is too large")
        head, blank, checkpoint = data.partition(b"\n\n")
        try:
            lines = head.decode("ascii").split("\n")
        except UnicodeDecodeError as error:
            raise Malformed("the proof is not ASCII before its checkpoint") from error
        if not blank or not checkpoint or lines.pop(0) != _VERSION:
            raise Malformed("not a tlog-proof of version 1")
        extra = None
        if lines and lines[0].startswith("extra "):
            extra = decode_base64(lines.pop(0).removeprefix("extra "))
        if not lines or not lines[0].startswith("index "):
            raise Malformed("a proof has an index")
        index = parse_number(lines.pop(0).removeprefix("index "))
        proof = cls(index, tuple(decode_base64(line) for line in lines), checkpoint, extra)
        if bytes(proof) != data:
            raise Malformed("the proof is not in canonical form")
        return proof

    def __bytes__(self) -> bytes:
        lines = [_VERSION]
        if self.unverified_extra is not None:
            lines.append(f"extra {base64.b64encode(self.unverified_extra).decode()}")
        lines.append(f"index {self.index}")
        lines += [base64.b64encode(hash_).decode() for hash_ in self.hashes]
        return "\n".join(lines).encode() + b"\n\n" + self.checkpoint

    def verify(self, entry: bytes, verifiers: Sequence[Verifier], *, origin: str) -> Checkpoint:
        """Check that `entry` is in the log, and give the checkpoint that says so.

        Does **not** check `unverified_extra`, nor what the entry means.

        Raises:
            Malformed: the checkpoint is not one.
            LogInconsistent: a signature or the proof fails, or it is another log's.
        """
        checkpoint = open_checkpoint(self.checkpoint, verifiers, origin=origin)
        verify_inclusion(
            index=self.index,
            size=checkpoint.size,
            leaf=leaf_hash(entry),
            proof=self.hashes,
            root=checkpoint.root,
        )
        return checkpoint
