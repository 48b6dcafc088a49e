"""The right edge of the tree: all that is needed to append, and the tiles that appending makes.

Pure. One partial tile per level, together they fold to the root.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from secure_cache.model.errors import LogInconsistent
from secure_cache.tlog.merkle import tree_hash
from secure_cache.tlog.tiles import FANOUT, hashes_at, levels_of, tile_name


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile with its hashes."""

    level: int
    index: int
    hashes: tuple[bytes, ...]
    fanout: int = FANOUT

    @property
    def name(self) -> str:
        return tile_name(self.level, self.index, len(self.hashes), fanout=self.fanout)

    @property
    def is_full(self) -> bool:
        return len(self.hashes) == self.fanout


@dataclass(frozen=True, slots=True)
class Edge:
    """The right edge of a tree.

    Attributes:
        size: entries in the tree.
        levels: for each tile level the hashes of its partial tile, empty where the last tile
            is full.
    """

    size: int
    levels: tuple[tuple[bytes, ...], ...]
    fanout: int = FANOUT

    def __post_init__(self) -> None:
        widths = tuple(len(level) for level in self.levels)
        if widths != edge_widths(self.size, fanout=self.fanout):
            raise LogInconsistent(f"the right edge of {self.size} entries has widths {widths}")

    @classmethod
    def empty(cls, *, fanout: int = FANOUT) -> Self:
        return cls(0, (), fanout)

    def root(self) -> bytes:
        rest: tuple[bytes, ...] = ()
        for level in self.levels:
            row = level + rest
            rest = (tree_hash(row),) if row else ()
        return tree_hash(rest)

    def extend(self, leaves: Sequence[bytes]) -> tuple["Edge", tuple[Tile, ...]]:
        """Append leaf hashes; gives the new edge and every tile that is new or has grown."""
        size = self.size + len(leaves)
        made: list[Tile] = []
        levels: list[tuple[bytes, ...]] = []
        fresh = tuple(leaves)
        for level in range(levels_of(size, fanout=self.fanout)):
            old = self.levels[level] if level < len(self.levels) else ()
            first = hashes_at(level, self.size, fanout=self.fanout) // self.fanout
            row, fresh, grew = old + fresh, (), bool(fresh)
            parents: list[bytes] = []
            rest: tuple[bytes, ...] = ()
            for at in range(0, len(row), self.fanout):
                hashes = row[at : at + self.fanout]
                tile = Tile(level, first + at // self.fanout, hashes, self.fanout)
                if grew:
                    made.append(tile)
                if tile.is_full:
                    parents.append(tree_hash(hashes))
                else:
                    rest = hashes
            levels.append(rest)
            fresh = tuple(parents)
        return Edge(size, tuple(levels), self.fanout), tuple(made)


def edge_widths(size: int, *, fanout: int = FANOUT) -> tuple[int, ...]:
    """The width of the partial tile of each level; 0 where there is none."""
    return tuple(
        hashes_at(level, size, fanout=fanout) % fanout
        for level in range(levels_of(size, fanout=fanout))
    )
