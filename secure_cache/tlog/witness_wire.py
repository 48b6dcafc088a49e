"""C2SP tlog-witness: what a log and a witness say to each other. Pure.

POST <prefix>/add-checkpoint
    old <size>
    <base64 hash>                         at most 63
    <empty line>
    <signed checkpoint>

200  one cosignature line or more         403  not signed by a key that is known
400  not well formed, or old > size       404  no such log here
409  `<size>`, newline: what was          422  the proof or the root is wrong
     cosigned last, text/x.tlog.size

GET <prefix>/<hex SHA-256 of the origin>/checkpoint      what was cosigned last
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from secure_cache.model.errors import Malformed
from secure_cache.tlog.checkpoint import parse_number
from secure_cache.tlog.merkle import HASH_BYTES
from secure_cache.tlog.note import (
    MAX_NOTE_BYTES,
    MAX_SIGNATURES,
    Note,
    Signature,
    decode_base64,
)
from secure_cache.tlog.proof import MAX_PROOF_HASHES
from secure_cache.tlog.tiles import MAX_SIZE

ADD_CHECKPOINT = "add-checkpoint"
SIZE_TYPE = "text/x.tlog.size"
MAX_REQUEST_BYTES = 65_536
MAX_ANSWER_BYTES = 65_536
_MAX_SIZE_BYTES = 32


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """A request for a cosignature. Nothing of it is verified.

    Attributes:
        old: the size that the witness is thought to have cosigned last; 0 for never.
        proof: that the checkpoint extends the tree of `old`.
        note: the signed checkpoint.

    Raises:
        Malformed: a part that can not be written.
    """

    old: int
    proof: tuple[bytes, ...]
    note: bytes

    def __post_init__(self) -> None:
        if not 0 <= self.old <= MAX_SIZE:
            raise Malformed("the old size is out of range")
        if len(self.proof) > MAX_PROOF_HASHES:
            raise Malformed("a proof has at most 63 hashes")
        if any(len(hash_) != HASH_BYTES for hash_ in self.proof):
            raise Malformed("a hash in a proof has 32 bytes")

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a request's body.

        Raises:
            Malformed: too large, or not exactly what `bytes` writes.
        """
        if len(data) > MAX_REQUEST_BYTES:
            raise Malformed("the request is too large")
        head, blank, note = data.partition(b"\n\n")
        try:
            first, *lines = head.decode("ascii").split("\n")
        except UnicodeDecodeError as error:
            raise Malformed("the request is not ASCII before its checkpoint") from error
        if not blank or not first.startswith("old "):
            raise Malformed("a request begins with the old size, and has a checkpoint")
        if len(lines) > MAX_PROOF_HASHES:
            raise Malformed("a proof has at most 63 hashes")
        old = parse_number(first.removeprefix("old "))
        return cls(old, tuple(decode_base64(line) for line in lines), note)

    def __bytes__(self) -> bytes:
        lines = [f"old {self.old}", *(base64.b64encode(hash_).decode() for hash_ in self.proof)]
        return "\n".join(lines).encode() + b"\n\n" + self.note


def write_size(size: int) -> bytes:
    """The body of a 409."""
    return b"%d\n" % size


def read_size(body: bytes) -> int:
    """What a witness says that it cosigned last.

    Raises:
        Malformed: not one number on one line.
    """
    if len(body) > _MAX_SIZE_BYTES or not body.endswith(b"\n"):
        raise Malformed("the answer 409 has no size")
    try:
        return parse_number(body[:-1].decode("ascii"))
    except UnicodeDecodeError as error:
        raise Malformed("the answer 409 has no size") from error


def write_cosignatures(signatures: Sequence[Signature]) -> bytes:
    """The body of a 200."""
    return "".join(str(signature) for signature in signatures).encode()


def read_cosignatures(note: bytes, body: bytes) -> tuple[Signature, ...]:
    """The signature lines of a 200, none of them verified.

    Args:
        note: the checkpoint that was submitted.
        body: the answer.

    Raises:
        Malformed: not signature lines, or too many.
    """
    if not body or len(body) > MAX_ANSWER_BYTES:
        raise Malformed("the answer 200 has no cosignatures, or too many")
    parsed = Note.parse(note)
    # Beside the text alone, so that the room of the note's own signatures is theirs.
    answer = Note.parse(f"{parsed.unverified_text}\n".encode() + body)
    lines = answer.unverified_signatures
    if answer.unverified_text != parsed.unverified_text:
        raise Malformed("the answer 200 has an empty line")
    if len(parsed.unverified_signatures) + len(lines) > MAX_SIGNATURES:
        raise Malformed("too many cosignatures")
    return lines


def add_signatures(note: bytes, signatures: Sequence[Signature]) -> bytes:
    """The note with these signatures, each in the place of an older one by the same key.

    What no longer fits is left out, the last first.

    Raises:
        Malformed: `note` is not a note.
    """
    parsed = Note.parse(note)
    fresh = {(item.name, item.key_id): item for item in signatures}
    kept = [fresh.pop((s.name, s.key_id), s) for s in parsed.unverified_signatures]
    result = bytes(Note(parsed.unverified_text, tuple(kept)))
    for signature in fresh.values():
        kept.append(signature)
        grown = bytes(Note(parsed.unverified_text, tuple(kept)))
        if len(grown) > MAX_NOTE_BYTES or len(kept) > MAX_SIGNATURES:
            kept.pop()
            continue
        result = grown
    return result


def checkpoint_path(origin: str) -> str:
    """Where a witness shows what it cosigned last of a log."""
    return f"{hashlib.sha256(origin.encode()).hexdigest()}/checkpoint"
