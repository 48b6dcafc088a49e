"""What one commit adds to the tree: computed and checked before anything is written. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from secure_cache.model.errors import LogInconsistent
from secure_cache.tlog.checkpoint import Checkpoint
from secure_cache.tlog.edge import Edge, Tile
from secure_cache.tlog.merkle import tree_hash
from secure_cache.tlog.proof import HashSource, Node, build, consistency_ranges, verify_consistency
from secure_cache.tlog.tiles import (
    ENTRIES,
    decode_bundle,
    encode_bundle,
    encode_hashes,
    hashes_at,
    leaf_hashes,
    tile_name,
)


@dataclass(frozen=True, slots=True)
class Growth:
    """The tree before and after some leaves, and every object that is new.

    Attributes:
        before: right edge before.
        after: right edge after.
        root: of the tree after.
        tail: the partial entry bundle after; empty when the last one is full.
        objects: name and bytes of each new tile and bundle.
        tiles: the new and grown tiles.
    """

    before: Edge
    after: Edge
    root: bytes
    tail: bytes
    objects: tuple[tuple[str, bytes], ...]
    tiles: tuple[Tile, ...]

    def outgrown_tiles(self) -> tuple[Tile, ...]:
        """Tiles that were partial before and are full now: their partial forms are of no more
        use. One that came and was filled in the same commit never had any."""
        return tuple(tile for tile in self.tiles if tile.is_full and self._was_partial(tile))

    def _was_partial(self, tile: Tile) -> bool:
        fanout = self.before.fanout
        hashes = hashes_at(tile.level, self.before.size, fanout=fanout)
        return divmod(hashes, fanout)[0] == tile.index and hashes % fanout > 0


def grow(edge: Edge, tail: bytes, leaves: Sequence[bytes]) -> Growth:
    """Append leaves.

    Args:
        edge: verified right edge.
        tail: the partial entry bundle that belongs to it.
        leaves: at least one.

    Raises:
        LogInconsistent: the tail, or a bundle as encoded, does not hold what the tree says.
    """
    entries = decode_bundle(tail) + tuple(leaves)
    known = edge.levels[0] if edge.levels else ()
    first = edge.size // edge.fanout
    bundles: list[tuple[str, bytes]] = []
    hashes: list[bytes] = []
    for number, at in enumerate(range(0, len(entries), edge.fanout), first):
        part = entries[at : at + edge.fanout]
        bundle = encode_bundle(part)
        if decode_bundle(bundle) != part:
            raise LogInconsistent("an entry bundle does not hold what went into it")
        hashes += leaf_hashes(bundle)
        name = tile_name(ENTRIES, number, len(part), fanout=edge.fanout)
        bundles.append((name, bundle))
    if tuple(hashes[: len(known)]) != known:
        raise LogInconsistent("the last entry bundle does not hold the entries of the tree")
    after, tiles = edge.extend(hashes[len(known) :])
    is_full = after.size % edge.fanout == 0
    objects = [*bundles, *((tile.name, encode_hashes(tile.hashes)) for tile in tiles)]
    return Growth(
        before=edge,
        after=after,
        root=after.root(),
        tail=b"" if is_full else bundles[-1][1],
        objects=tuple(objects),
        tiles=tiles,
    )


def verify_growth(growth: Growth, old: Checkpoint, new: Checkpoint) -> None:
    """Prove from the tiles that `new` extends `old`, as any auditor would.

    Raises:
        LogInconsistent: it does not. Nothing may be signed.
    """
    if (growth.before.size, growth.after.size) != (old.size, new.size):
        raise LogInconsistent("the tree did not grow from the published checkpoint to the head")
    if old.size == 0:
        # Everything extends the empty tree; there is no proof of it.
        return
    proof = build(consistency_ranges(old.size, new.size), _source(growth))
    verify_consistency(
        old_size=old.size,
        new_size=new.size,
        old_root=old.root,
        new_root=new.root,
        proof=proof,
    )


def _source(growth: Growth) -> HashSource:
    """Hashes of the subtrees along the old and the new right edge."""
    edge = growth.before
    shift = edge.fanout.bit_length() - 1
    known = {
        (level, hashes_at(level, edge.size, fanout=edge.fanout) // edge.fanout): hashes
        for level, hashes in enumerate(edge.levels)
    }
    known.update({(tile.level, tile.index): tile.hashes for tile in growth.tiles})

    def source(node: Node) -> bytes:
        tile_level, within = divmod(node[0], shift)
        number, at = divmod(node[1] << within, edge.fanout)
        return tree_hash(known[tile_level, number][at : at + (1 << within)])

    return source
