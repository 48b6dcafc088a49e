"""Which namespaces there are: those that the policy speaks of, and those that were written."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.to_thread

from secure_cache.audit.auditor import Auditor
from secure_cache.audit.filters import Filter
from secure_cache.model.names import Namespace
from secure_cache.model.tiers import Tier
from secure_cache.policy.compile import CompiledPolicy
from secure_cache.policy.graph import Edge, NamespaceGraph, Node, namespace_graph

MAX_SHOWN = 1000
_ALL = 10**9


@dataclass(frozen=True, slots=True)
class SeenNamespace:
    """A namespace that has entries in the log.

    Attributes:
        namespace: `project:kind/id`.
        node: what it falls under in the policy in force; None: no rule speaks of it any more.
        tiers: how many entries were written to it as what.
    """

    namespace: str
    node: str | None
    tiers: dict[Tier, int]

    @property
    def entries(self) -> int:
        return sum(self.tiers.values())

    def document(self) -> dict[str, Any]:
        return {
            "namespace": self.namespace,
            "node": self.node,
            "entries": self.entries,
            "tiers": {str(tier): count for tier, count in self.tiers.items()},
        }


@dataclass(slots=True)
class NodeCounts:
    """What was written under a node: how many namespaces, and how many entries as what."""

    namespaces: int = 0
    tiers: Counter[Tier] = field(default_factory=Counter)

    def document(self) -> dict[str, Any]:
        tiers = {str(tier): count for tier, count in sorted(self.tiers.items(), reverse=True)}
        return {"namespaces": self.namespaces, "entries": self.tiers.total(), "tiers": tiers}


@dataclass(frozen=True, slots=True)
class NamespacesView:
    """The policy's graph, and what there is of it.

    Attributes:
        policy_sha256: of the policy in force.
        graph: who may read whom, at most.
        seen: those with the most entries.
        distinct: how many there are in all.
        counts: by the id of a node; None for what falls under none.
    """

    policy_sha256: str
    graph: NamespaceGraph
    seen: tuple[SeenNamespace, ...]
    distinct: int
    counts: dict[str | None, NodeCounts]

    def document(self) -> dict[str, Any]:
        nothing = NodeCounts()
        return {
            "policy_sha256": self.policy_sha256,
            "nodes": [
                {**_node(node), **self.counts.get(node.id, nothing).document()}
                for node in self.graph.nodes
            ],
            "edges": [_edge(edge) for edge in self.graph.edges],
            "cut": self.graph.cut,
            "namespaces": [seen.document() for seen in self.seen],
            "distinct": self.distinct,
            "without_node": self.counts.get(None, nothing).document(),
        }


class Namespaces:
    """Answers. Methods raise StorageUnavailable and DamagedIndex."""

    def __init__(self, auditor: Auditor, policy: Callable[[], CompiledPolicy]) -> None:
        self._auditor = auditor
        self._policy = policy
        self._drawn: tuple[str, NamespaceGraph] | None = None

    async def view(self, *, limit: int = 200) -> NamespacesView:
        """The graph of the policy in force with what the index counts; `limit` namespaces."""
        policy = self._policy()
        found: dict[str, dict[Tier, int]] = {}
        for tier in sorted(Tier, reverse=True):
            wanted = Filter.parse({"event": ["stored"], "tier": [str(tier)]})
            counted = await self._auditor.count_by("namespace", wanted, limit=_ALL)
            for namespace, entries in counted.counts:
                if namespace is not None:
                    found.setdefault(namespace, {})[tier] = entries
        return await anyio.to_thread.run_sync(self._view, policy, found, limit)

    def _view(
        self, policy: CompiledPolicy, found: dict[str, dict[Tier, int]], limit: int
    ) -> NamespacesView:
        graph = self._graph(policy)
        counts: dict[str | None, NodeCounts] = {}
        seen: list[SeenNamespace] = []
        for namespace, tiers in found.items():
            node = _node_of(graph, namespace)
            count = counts.setdefault(node, NodeCounts())
            count.namespaces += 1
            count.tiers.update(tiers)
            seen.append(SeenNamespace(namespace, node, tiers))
        seen.sort(key=lambda item: (-item.entries, item.namespace))
        return NamespacesView(policy.sha256, graph, tuple(seen[:limit]), len(seen), counts)

    def _graph(self, policy: CompiledPolicy) -> NamespaceGraph:
        drawn = self._drawn
        if drawn is None or drawn[0] != policy.sha256:
            drawn = self._drawn = (policy.sha256, namespace_graph(policy.tables))
        return drawn[1]


def _node_of(graph: NamespaceGraph, namespace: str) -> str | None:
    try:
        return graph.node_of(Namespace.parse(namespace))
    except ValueError:
        # Its own grammar may have been wider once.
        return None


def _node(node: Node) -> dict[str, Any]:
    return {
        "id": node.id,
        "project": node.project,
        "kind": node.kind,
        "pattern": node.pattern,
        "tier": None if node.tier is None else str(node.tier),
        "rules": list(node.rules),
        "writers": list(node.writers),
        "audits": node.audits,
    }


def _edge(edge: Edge) -> dict[str, Any]:
    return {
        "reader": edge.reader,
        "read": edge.read,
        "rules": list(edge.rules),
        "how": list(edge.how),
        "order": edge.order,
    }
