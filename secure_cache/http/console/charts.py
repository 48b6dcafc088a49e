"""What the pages draw: numbers for SVG, computed here so that a template only places them. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from secure_cache.model.clock import rfc3339
from secure_cache.policy.graph import NamespaceGraph

TIERS = ("trusted", "candidate", "contributor")
HEIGHT = 120
WIDTH = 720
_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Part:
    """One piece of a bar: whose, how many, and where in the drawing."""

    tier: str
    count: int
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class Bar:
    """One day: what was stored goes up, what was refused goes down."""

    label: str
    x: float
    width: float
    stored: tuple[Part, ...]
    refused: tuple[Part, ...]

    @property
    def counts(self) -> Mapping[str, int]:
        found = {f"stored {part.tier}": part.count for part in self.stored}
        return found | {f"refused {part.tier}": part.count for part in self.refused}


def bars(
    stored: Iterable[tuple[int, str, int]],
    refused: Iterable[tuple[int, str, int]],
    *,
    since: int,
    until: int,
) -> tuple[Bar, ...]:
    """Bars from `since` to `until` (seconds since 1970), one a day.

    Args:
        stored: start of a day, tier, count.
        refused: the same; a tier that is none of `TIERS` is nobody's.
        since: inside.
        until: inside.
    """
    up, down = _by_day(stored), _by_day(refused)
    days = range(since // _DAY, until // _DAY + 1)
    most = max([1, *(sum(up[day].values()) for day in days)])
    most_down = max([1, *(sum(down[day].values()) for day in days)])
    step = WIDTH / max(len(days), 1)
    found = []
    for place, day in enumerate(days):
        found.append(
            Bar(
                rfc3339(day * _DAY)[:10],
                round(place * step + step * 0.1, 2),
                round(step * 0.8, 2),
                _parts(up[day], (*TIERS,), most, upwards=True),
                _parts(down[day], (*TIERS, "nobody"), most_down, upwards=False),
            )
        )
    return tuple(found)


def _by_day(rows: Iterable[tuple[int, str, int]]) -> defaultdict[int, Counter[str]]:
    found: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for start, tier, count in rows:
        found[start // _DAY][tier if tier in TIERS else "nobody"] += count
    return found


def _parts(
    counts: Mapping[str, int], tiers: tuple[str, ...], most: int, *, upwards: bool
) -> tuple[Part, ...]:
    parts, reached = [], 0.0
    room = HEIGHT if upwards else HEIGHT / 2
    for tier in tiers:
        if counts.get(tier, 0):
            # A single one among thousands must still be seen.
            height = max(counts[tier] / most * room, 1.5)
            y = HEIGHT - reached - height if upwards else HEIGHT + 2 + reached
            parts.append(Part(tier, counts[tier], round(y, 2), round(height, 2)))
            reached += height
    return tuple(parts)


@dataclass(frozen=True, slots=True)
class Box:
    """A node of the graph, on the side of those who read and of what is read."""

    id: str
    tier: str
    y: int


@dataclass(frozen=True, slots=True)
class Curve:
    """That one reads the other."""

    reader: str
    read: str
    tier: str
    path: str


@dataclass(frozen=True, slots=True)
class Drawing:
    """One project's graph, `height` high."""

    project: str
    boxes: tuple[Box, ...]
    curves: tuple[Curve, ...]
    height: int


ROW = 34
LEFT, RIGHT = 250, 470
_MOST_CURVES = 400


def drawings(graph: NamespaceGraph) -> tuple[Drawing, ...]:
    """For each project: readers on the left, what they read on the right, in one order."""
    found = []
    rank = {tier: place for place, tier in enumerate((*TIERS, "none"))}
    for project in dict.fromkeys(node.project for node in graph.nodes):
        nodes = [node for node in graph.nodes if node.project == project]
        nodes.sort(key=lambda node: (rank[str(node.tier or "none")], node.id))
        boxes = {
            node.id: Box(node.id, str(node.tier or "none"), place * ROW + ROW // 2 + 14)
            for place, node in enumerate(nodes)
        }
        curves = []
        for edge in graph.edges:
            reader, read = boxes.get(edge.reader), boxes.get(edge.read)
            if reader is None or read is None:
                continue
            start, end = f"{LEFT} {reader.y}", f"{RIGHT} {read.y}"
            path = f"M{start} C{LEFT + 110} {reader.y} {RIGHT - 110} {read.y} {end}"
            curves.append(Curve(edge.reader, edge.read, read.tier, path))
        height = len(nodes) * ROW + 28
        found.append(Drawing(project, tuple(boxes.values()), tuple(curves[:_MOST_CURVES]), height))
    return tuple(found)
