"""Pending batches: leaves that are durable and acknowledged, but have no index yet. Pure.

A batch is named by the boot that wrote it and a number that counts its batches, so that "which
batches are in the log" is one number per boot. The name of a boot begins with the time at which
it was made; the rest is random.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from secure_cache.model.errors import LogInconsistent, Malformed
from secure_cache.storage import layout
from secure_cache.tlog.tiles import decode_bundle, encode_bundle

MAX_BATCH_ENTRIES = 4096
MAX_BATCH_BYTES = 16 * 1024 * 1024
_MAGIC = b"tlog-pending-v1\n"
_NAME = re.compile(r"pending/([0-9a-f]{32})/([0-9]{12})", re.ASCII)


@dataclass(frozen=True, slots=True)
class BatchName:
    """Which batch: the writer's boot, and its number from 1."""

    boot: str
    sequence: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the name of a pending object.

        Raises:
            Malformed: it is not one.
        """
        match = _NAME.fullmatch(text)
        if match is None or int(match[2]) == 0:
            raise Malformed("not the name of a pending batch")
        return cls(match[1], int(match[2]))

    @property
    def boot_time(self) -> float:
        """When the boot was named, seconds since 1970."""
        return int(self.boot[:12], 16) / 1000

    def __str__(self) -> str:
        return layout.pending(self.boot, self.sequence)


def boot_id(now: float, random_bytes: Callable[[int], bytes]) -> str:
    """A new boot: 48 bits of milliseconds, 80 random bits; 32 hex digits."""
    return f"{int(now * 1000) & (2**48 - 1):012x}{random_bytes(10).hex()}"


def encode_batch(leaves: Sequence[bytes]) -> bytes:
    """A header, the SHA-256 of the rest, and the leaves as in an entry bundle."""
    body = encode_bundle(leaves)
    return _MAGIC + hashlib.sha256(body).digest() + body


def decode_batch(data: bytes) -> tuple[bytes, ...]:
    """The leaves of a batch.

    Raises:
        LogInconsistent: the bytes are not those that were written. What was acknowledged
            must not be logged in another form.
    """
    start = len(_MAGIC) + 32
    body = data[start:]
    if data[:start] != _MAGIC + hashlib.sha256(body).digest():
        raise LogInconsistent("a pending batch is damaged")
    leaves = decode_bundle(body)
    if not 0 < len(leaves) <= MAX_BATCH_ENTRIES:
        raise LogInconsistent("a pending batch has no entries, or too many")
    return leaves
