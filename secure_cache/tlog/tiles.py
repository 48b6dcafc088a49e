"""C2SP tlog-tiles: which tiles there are, what they are called, what an entry bundle holds. Pure.

`fanout` is 256 in every real log; smaller trees let a simulation reach many levels.
Parsing accepts exactly what formatting emits.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from secure_cache.model.errors import LogInconsistent, Malformed
from secure_cache.tlog.merkle import HASH_BYTES, leaf_hash

FANOUT = 256
MAX_ENTRY_BYTES = 65_535
MAX_BUNDLE_BYTES = FANOUT * (2 + MAX_ENTRY_BYTES)
MAX_TILE_BYTES = FANOUT * HASH_BYTES
MAX_SIZE = 2**63 - 1
MAX_LEVEL = 63
ENTRIES = -1
"""The `level` of an entry bundle, which stands beside the tiles of level 0."""

_PATH = re.compile(
    r"tile/(entries|0|[1-9][0-9]?)/((?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class TileId:
    """One tile or entry bundle.

    Attributes:
        level: 0 to 63, or `ENTRIES`.
        index: its place in the level, from 0.
        width: how many hashes or entries it holds; `FANOUT` when full.

    Raises:
        Malformed: a number is out of range.
    """

    level: int
    index: int
    width: int = FANOUT

    def __post_init__(self) -> None:
        if not ENTRIES <= self.level <= MAX_LEVEL:
            raise Malformed("a tile's level is 0 to 63")
        if not 0 <= self.index <= MAX_SIZE:
            raise Malformed("a tile's index is out of range")
        if not 1 <= self.width <= FANOUT:
            raise Malformed("a tile's width is 1 to 256")

    @classmethod
    def parse(cls, path: str) -> Self:
        """Read a path such as `tile/0/x001/234.p/17`.

        Raises:
            Malformed: not the one canonical spelling of a tile.
        """
        match = _PATH.fullmatch(path)
        if match is None:
            raise Malformed("not the path of a tile")
        level, index, width = match.groups()
        tile = cls(
            ENTRIES if level == "entries" else int(level),
            int(index.replace("x", "").replace("/", "")),
            FANOUT if width is None else int(width),
        )
        if str(tile) != path:
            raise Malformed("not the canonical path of a tile")
        return tile

    @property
    def is_partial(self) -> bool:
        return self.width < FANOUT

    @property
    def stem(self) -> str:
        """The path without `.p/<width>`: that of the full tile."""
        digits = str(self.index)
        digits = digits.zfill(-(-len(digits) // 3) * 3)
        groups = [digits[i : i + 3] for i in range(0, len(digits), 3)]
        where = "/".join(["x" + group for group in groups[:-1]] + groups[-1:])
        return f"tile/{'entries' if self.level == ENTRIES else self.level}/{where}"

    def __str__(self) -> str:
        return f"{self.stem}.p/{self.width}" if self.is_partial else self.stem


def is_partial_path(path: str) -> bool:
    """Whether a path of the log is that of a partial tile or bundle.

    A partial form is swept once the full one is there; all else of the tree is kept for ever.
    So they stand in different stores, and any path tells in which.
    """
    return ".p/" in path


def tile_name(level: int, index: int, width: int, *, fanout: int = FANOUT) -> str:
    """The path of a tile with `width` of `fanout` hashes."""
    return str(TileId(level, index, FANOUT if width == fanout else width))


def hashes_at(level: int, size: int, *, fanout: int = FANOUT) -> int:
    """How many hashes stand at a tile level of a tree with `size` entries."""
    return int(size // fanout**level)


def levels_of(size: int, *, fanout: int = FANOUT) -> int:
    """How many tile levels such a tree has; none when it is empty."""
    levels = 0
    while size:
        levels, size = levels + 1, size // fanout
    return levels


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """Entries as `u16be length || entry` each.

    Raises:
        Malformed: an entry is above 65 535 bytes.
    """
    if any(len(entry) > MAX_ENTRY_BYTES for entry in entries):
        raise Malformed("an entry of the log has at most 65 535 bytes")
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def decode_bundle(data: bytes) -> tuple[bytes, ...]:
    """The entries of a bundle.

    Raises:
        Malformed: it ends within an entry.
    """
    entries: list[bytes] = []
    view = memoryview(data)
    at, end = 0, len(view)
    while at < end:
        if end - at < 2:
            raise Malformed("an entry bundle ends within a length")
        start = at + 2
        at = start + int.from_bytes(view[at:start], "big")
        if at > end:
            raise Malformed("an entry bundle ends within an entry")
        entries.append(bytes(view[start:at]))
    return tuple(entries)


def encode_hashes(hashes: Sequence[bytes]) -> bytes:
    return b"".join(hashes)


def decode_hashes(data: bytes, *, width: int) -> tuple[bytes, ...]:
    """The hashes of a tile.

    Raises:
        LogInconsistent: it does not hold exactly `width` of them.
    """
    if len(data) != width * HASH_BYTES:
        raise LogInconsistent(f"a tile of {width} hashes has {len(data)} bytes")
    return tuple(data[i : i + HASH_BYTES] for i in range(0, len(data), HASH_BYTES))


def leaf_hashes(bundle: bytes) -> tuple[bytes, ...]:
    """The leaf hashes of the entries that a reader will find in `bundle`.

    Hashing what the encoded buffer really holds, and not what was meant to go in, is the
    lesson of a log that died of one flipped bit (Yeti 2022).

    Raises:
        Malformed: it is not a bundle.
    """
    return tuple(leaf_hash(entry) for entry in decode_bundle(bundle))
