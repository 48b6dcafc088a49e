"""Collects findings, each at its place in the file."""

from secure_cache.policy.finding import Finding, make_finding
from secure_cache.policy.loader import ListNode, MapNode, Node, ScalarNode

Step = str | int


class Report:
    """The findings of one file. `path` arguments are keys and indexes from the root down."""

    def __init__(self, root: Node, name: str) -> None:
        self._root = root
        self._name = name
        self._findings: list[Finding] = []

    def add(self, code: str, message: str, fix: str, *path: Step) -> None:
        at = _locate(self._root, path)
        self._findings.append(make_finding(code, message, fix=fix, at=at, path=self._name))

    @property
    def findings(self) -> tuple[Finding, ...]:
        """In the order of the file."""
        return tuple(sorted(self._findings, key=lambda found: (found.line, found.column)))

    def has_errors(self) -> bool:
        return any(finding.code.startswith("E") for finding in self._findings)


def _locate(node: Node, path: tuple[Step, ...]) -> tuple[int, int]:
    """The place of the deepest step that the file has: of a value when it is one scalar, else of
    its key."""
    at = node.at
    for step in path:
        if isinstance(node, MapNode) and isinstance(step, str):
            found = node.find(step)
            if found is None:
                return at
            key, node = found
            at = node.at if isinstance(node, ScalarNode) else key.at
        elif isinstance(node, ListNode) and isinstance(step, int) and step < len(node.items):
            node = node.items[step]
            at = node.at
        else:
            return at
    return at
