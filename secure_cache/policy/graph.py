"""Who may read whom, as a graph: what a policy can grant at most. Pure.

A node stands for jobs of one kind in one project, and for the namespaces that they own: those
that a rule's `when` speaks of, and those that a read list names. A namespace falls under exactly
one node, the most specific that speaks of it (`NamespaceGraph.node_of`). An edge says that some
job of the first node may read some namespace of the second.

It claims at least what `decide` grants, and may claim more: deny rules, pins, claims, revocations
and what a CI really runs only take away.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from secure_cache.model.identity import ContextKind
from secure_cache.model.names import Namespace
from secure_cache.model.tiers import Tier
from secure_cache.policy.compiled import CompiledProject, Own, Read, Rule, Tables
from secure_cache.policy.lattice import TIERED_KINDS
from secure_cache.policy.places import Place, places_of

MAX_EDGES = 20_000
"""Beyond it the graph is cut: nobody can look at it, and drawing it costs the square."""

ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True)
class Node:
    """Jobs of one kind, and the namespaces that they own.

    Attributes:
        id: such as `web:branch/main`, `web:branch/**`, `web:pull_request/any`,
            `web:role/auditor`, `web:anonymous`.
        project: whose jobs.
        kind: of job: `branch`, `pull_request`, `merge_queue`, `tag`, `role`, `other`, `anonymous`.
        pattern: which of them; `any` for all.
        tier: the highest that a namespace here can have; None where jobs own no namespace.
        rules: those that can match such a job, in their order.
        writers: those of them by which it writes its own namespace.
        audits: one of them reads the whole log.
    """

    id: str
    project: str
    kind: str
    pattern: str
    tier: Tier | None
    rules: tuple[str, ...] = ()
    writers: tuple[str, ...] = ()
    audits: bool = False


@dataclass(frozen=True, slots=True)
class Edge:
    """Jobs of one node may read namespaces of another.

    Attributes:
        reader: a node's id.
        read: a node's id.
        rules: which of them grant it.
        how: as the read lists say it: `self`, `base`, or `name` for a namespace by its name.
        order: the place in the read list, from 0; the lowest where rules differ.
    """

    reader: str
    read: str
    rules: tuple[str, ...]
    how: tuple[str, ...]
    order: int


@dataclass(frozen=True)
class NamespaceGraph:
    """See the module.

    Attributes:
        nodes: by project and id.
        edges: by reader and order.
        cut: there are more edges than are kept: what is not here may be granted all the same.
    """

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    cut: bool
    _places: tuple["Place", ...] = field(repr=False, default=())

    @cached_property
    def _by_project(self) -> Mapping[str, tuple["Place", ...]]:
        found: dict[str, list[Place]] = {}
        for place in sorted(self._places, key=lambda place: place.specific, reverse=True):
            found.setdefault(place.project, []).append(place)
        return {project: tuple(places) for project, places in found.items()}

    def node_of(self, namespace: Namespace) -> str | None:
        """The id of the node that a namespace falls under; None when no rule speaks of it."""
        for place in self._by_project.get(namespace.project, ()):
            if place.holds(namespace):
                return place.id
        return None


def namespace_graph(tables: Tables) -> NamespaceGraph:
    """The graph of a policy, from what it compiles into."""
    drawing = _Drawing(tables)
    for project in tables.projects.values():
        drawing.draw(project)
    drawing.draw_anonymous()
    return drawing.graph()


class _Drawing:
    """A graph that is being drawn."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._places = tuple(places_of(tables))
        self._by_project: dict[str, list[Place]] = {name: [] for name in tables.projects}
        for place in self._places:
            self._by_project[place.project].append(place)
        self._tiers = {place.id: self._tier(place) for place in self._places}
        self._blank = NamespaceGraph((), (), cut=False, _places=self._places)
        self._nodes: list[Node] = []
        self._edges: dict[tuple[str, str], Edge] = {}
        self._cut = False

    def graph(self) -> NamespaceGraph:
        edges = self._edges.values()
        return NamespaceGraph(
            tuple(sorted(self._nodes, key=lambda node: (node.project, node.id))),
            tuple(sorted(edges, key=lambda edge: (edge.reader, edge.order, edge.read))),
            self._cut,
            self._places,
        )

    def draw(self, project: CompiledProject) -> None:
        for place in self._by_project[project.name]:
            rules, tier = _rules_of(place, project), self._tiers[place.id]
            floor = _floor(place, project)
            self._nodes.append(
                Node(
                    id=place.id,
                    project=place.project,
                    kind=str(place.kind),
                    pattern=place.pattern,
                    tier=tier,
                    rules=tuple(rule.name for rule in rules),
                    writers=tuple(
                        rule.name
                        for rule in rules
                        if rule.writes and tier is not None and floor <= rule.tier <= tier
                    ),
                    audits=any(rule.audit for rule in rules),
                )
            )
            for rule in rules:
                for order, read in enumerate(rule.granted):
                    how = read.value if isinstance(read, Own) else "name"
                    for target in self._targets(place, rule, read):
                        self._add(Edge(place.id, target, (rule.name,), (how,), order))

    def draw_anonymous(self) -> None:
        """Who has no token, where the policy lets them read at all."""
        decision = self._tables.anonymous
        if not decision.allowed or decision.project is None:
            return
        rule = decision.rule or ANONYMOUS
        name = f"{decision.project}:{ANONYMOUS}"
        self._nodes.append(Node(name, decision.project, ANONYMOUS, "any", None, (rule,)))
        for order, read in enumerate(decision.read):
            target = self._blank.node_of(read)
            if target is not None:
                self._add(Edge(name, target, (rule,), ("name",), order))

    def _targets(self, place: Place, rule: Rule, read: Read) -> Iterator[str]:
        if isinstance(read, Namespace):
            target = self._blank.node_of(read)
            if target is not None:
                yield target
        elif read is Own.SELF:
            tier = self._tiers[place.id]
            if tier is not None and tier >= rule.tier:
                yield place.id
        else:
            for other in self._by_project[place.project]:
                if self._can_be_base(other, place):
                    yield other.id

    def _can_be_base(self, other: Place, place: Place) -> bool:
        """A base is a trusted branch; that of a queue is the one that the queue is named by."""
        if other.kind is not ContextKind.BRANCH or self._tiers[other.id] is not Tier.TRUSTED:
            return False
        if place.kind is not ContextKind.MERGE_QUEUE:
            return True
        return place.meets(other.as_queue)

    def _tier(self, place: Place) -> Tier | None:
        """The highest tier of a namespace that falls under this place."""
        if not place.owns:
            return None
        project = self._tables.projects[place.project]
        if place.exact is not None:
            return project.tiers.of_namespace(place.exact)
        if place.kind not in TIERED_KINDS:
            return Tier.CONTRIBUTOR
        # What falls under a more specific place is not here.
        tiers = [
            rule.tier
            for rule in project.rules
            if place.meets(rule.when)
            and Place(project.name, rule.when, None).specific <= place.specific
        ]
        return max(tiers, default=Tier.CONTRIBUTOR)

    def _add(self, edge: Edge) -> None:
        known = self._edges.get((edge.reader, edge.read))
        if known is not None:
            self._edges[edge.reader, edge.read] = Edge(
                edge.reader,
                edge.read,
                tuple(dict.fromkeys((*known.rules, *edge.rules))),
                tuple(dict.fromkeys((*known.how, *edge.how))),
                min(known.order, edge.order),
            )
        elif len(self._edges) < MAX_EDGES:
            self._edges[edge.reader, edge.read] = edge
        else:
            self._cut = True


def _floor(place: Place, project: CompiledProject) -> Tier:
    """The lowest tier of a namespace here."""
    if place.exact is not None:
        return project.tiers.of_namespace(place.exact)
    if place.kind not in TIERED_KINDS:
        return Tier.CONTRIBUTOR
    covering = (rule.tier for rule in project.rules if place.is_within(rule.when))
    return max(covering, default=Tier.CONTRIBUTOR)


def _rules_of(place: Place, project: CompiledProject) -> tuple[Rule, ...]:
    """Those that can match a job of this place: all that meet it, up to one that surely does."""
    found = []
    for rule in project.rules:
        if not place.meets(rule.when):
            continue
        found.append(rule)
        sure = not rule.claims and rule.tier is not Tier.TRUSTED
        if sure and place.is_within(rule.when):
            break
    return tuple(found)
