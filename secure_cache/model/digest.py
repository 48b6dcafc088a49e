"""SHA-256 digests with exactly one spelling each."""

import hashlib
import re
from dataclasses import dataclass
from typing import Self

_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Digest:
    """A SHA-256. Written as 64 lower-case hex digits."""

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != 32:
            raise ValueError("a SHA-256 digest has 32 bytes")

    @classmethod
    def of(cls, data: bytes) -> Self:
        return cls(hashlib.sha256(data).digest())

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the one canonical spelling.

        Raises:
            ValueError: upper case, a prefix, blanks or a wrong length.
        """
        if _HEX.fullmatch(text) is None:
            raise ValueError("not a lower-case hex SHA-256")
        return cls(bytes.fromhex(text))

    def __str__(self) -> str:
        return self.raw.hex()
