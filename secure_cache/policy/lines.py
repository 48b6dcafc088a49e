"""Where in a policy file the line stands that a decision names."""

from secure_cache.policy.loader import ListNode, MapNode, Node, ScalarNode

_KINDS = {"revocation ": ("revocations", "id"), "rule ": ("rulesets", "name")}
_EPOCH = "epoch of "


def line_of(document: Node, decisive: str) -> int | None:
    """The number of the line, from 1.

    Args:
        document: the policy, from `load_yaml`.
        decisive: as `Hidden.line` or `Presence.line` has it, such as `revocation incident-7`.

    Returns:
        None for what no line says, such as `default deny`, and where rules of one name stand in
        several rulesets.
    """
    if not isinstance(document, MapNode):
        return None
    if decisive.startswith(_EPOCH):
        found = _child(document, "epochs")
        entry = found.find(decisive.removeprefix(_EPOCH)) if isinstance(found, MapNode) else None
        return None if entry is None else entry[0].at[0]
    for prefix, (section, key) in _KINDS.items():
        if decisive.startswith(prefix):
            lines = _named(_child(document, section), key, decisive.removeprefix(prefix))
            return lines[0] if len(lines) == 1 else None
    return None


def _named(section: Node | None, key: str, name: str) -> list[int]:
    """The lines where items of lists in `section` are called `name`."""
    if isinstance(section, MapNode):
        return [line for _, node in section.entries for line in _named(node, key, name)]
    if not isinstance(section, ListNode):
        return []
    lines = []
    for item in section.items:
        found = _child(item, key)
        if isinstance(found, ScalarNode) and found.text == name:
            lines.append(found.at[0])
    return lines


def _child(node: Node, key: str) -> Node | None:
    found = node.find(key) if isinstance(node, MapNode) else None
    return None if found is None else found[1]
