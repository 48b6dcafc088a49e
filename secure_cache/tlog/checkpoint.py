"""C2SP tlog-checkpoint: origin, size and root, signed as a note. Pure."""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from secure_cache.model.errors import LogInconsistent, Malformed
from secure_cache.tlog.merkle import EMPTY_ROOT, HASH_BYTES
from secure_cache.tlog.note import (
    NoteSigner,
    Verifier,
    check_text,
    decode_base64,
    open_note,
    sign_note,
)
from secure_cache.tlog.tiles import MAX_SIZE

_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log is at one moment.

    Attributes:
        origin: which log; for ours the name of its key.
        size: number of entries.
        root: the Merkle tree hash.
        extensions: further lines. The specification advises against them; ours has none, and
            `open_checkpoint` refuses them.

    Raises:
        Malformed: a part that can not be written.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.origin or "\n" in self.origin:
            raise Malformed("a checkpoint's origin is one line")
        if not 0 <= self.size <= MAX_SIZE:
            raise Malformed("a checkpoint's size is out of range")
        if len(self.root) != HASH_BYTES:
            raise Malformed("a checkpoint's root has 32 bytes")
        if self.size == 0 and self.root != EMPTY_ROOT:
            raise Malformed("the root of an empty log is the hash of nothing")
        if any(not line or "\n" in line for line in self.extensions):
            raise Malformed("an extension line is not empty")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a note's text.

        Raises:
            Malformed: not exactly what `str` writes.
        """
        lines = check_text(text)[:-1].split("\n")
        if len(lines) < 3:
            raise Malformed("a checkpoint has an origin, a size and a root")
        origin, size, root, *extensions = lines
        return cls(origin, parse_number(size), decode_base64(root), tuple(extensions))

    def __str__(self) -> str:
        root = base64.b64encode(self.root).decode()
        return "".join(f"{line}\n" for line in (self.origin, self.size, root, *self.extensions))


def parse_number(text: str) -> int:
    """A decimal number below 2**63, without sign, leading zero or any other decoration.

    Raises:
        Malformed: anything else.
    """
    if _NUMBER.fullmatch(text) is None or int(text) > MAX_SIZE:
        raise Malformed("not a decimal number")
    return int(text)


def open_checkpoint(data: bytes, verifiers: Sequence[Verifier], *, origin: str) -> Checkpoint:
    """Parse a signed checkpoint and verify it.

    Raises:
        Malformed: it is not a checkpoint, or it has extension lines.
        LogInconsistent: a signature fails, no known key signed, or another log's origin.
    """
    checkpoint = Checkpoint.parse(open_note(data, verifiers).text)
    if checkpoint.origin != origin:
        raise LogInconsistent(f"a checkpoint of {checkpoint.origin!r}, not of {origin!r}")
    if checkpoint.extensions:
        raise Malformed("a checkpoint with extension lines")
    return checkpoint


async def sign_checkpoint(checkpoint: Checkpoint, signer: NoteSigner) -> bytes:
    """The signed note. Raises as `sign_note`."""
    return await sign_note(str(checkpoint), signer)
