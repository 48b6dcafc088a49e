"""From strictly loaded nodes to the documents of `schema`, with a place for every error.

The walk is driven by msgspec's own description of the structs. It collects what is wrong instead
of stopping at the first error, so that one `policy lint` shows all of it.
"""

import difflib
import re
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from secure_cache.model.errors import InvalidPolicy
from secure_cache.policy.finding import Finding, make_finding, show
from secure_cache.policy.loader import ListNode, MapNode, Node, ScalarNode

_T = TypeVar("_T", bound=msgspec.Struct)
_BAD: Any = object()


def convert(node: Node, document: type[_T], *, name: str, printable: bool = True) -> _T:
    """Read a document.

    Args:
        node: from `load_yaml`.
        document: the struct to make.
        name: the file's name, for findings.
        printable: refuse text with control characters, as an escape in quotes may hold.

    Raises:
        InvalidPolicy: carries every finding.
    """
    walk = _Walk(name, printable=printable)
    value = walk.read(node, inspect.type_info(document), {})
    if walk.findings:
        raise InvalidPolicy(str(walk.findings[0]), tuple(walk.findings))
    assert isinstance(value, document)  # noqa: S101 - for the type checker; findings say otherwise
    return value


class _Walk:
    def __init__(self, name: str, *, printable: bool) -> None:
        self.findings: list[Finding] = []
        self._name = name
        self._printable = printable
        self._readers: dict[type[inspect.Type], Callable[[Node, Any, dict[str, Any]], Any]] = {
            inspect.StructType: self._struct,
            inspect.DictType: self._dict,
            inspect.VarTupleType: self._tuple,
            inspect.StrType: self._str,
            inspect.IntType: self._int,
            inspect.BoolType: self._bool,
            inspect.LiteralType: self._literal,
            inspect.UnionType: self._union,
            inspect.NoneType: self._none,
            inspect.AnyType: self._any,
        }

    def read(self, node: Node, kind: inspect.Type, extra: dict[str, Any]) -> Any:
        if isinstance(kind, inspect.Metadata):
            return self.read(node, kind.type, extra | (kind.extra or {}))
        return self._readers[type(kind)](node, kind, extra)

    def _struct(self, node: Node, kind: inspect.StructType, extra: dict[str, Any]) -> Any:
        if not isinstance(node, MapNode):
            return self._wrong(node, "a mapping", extra)
        fields = {item.encode_name: item for item in kind.fields}
        values: dict[str, Any] = {}
        for key, value in node.entries:
            if key.text in fields:
                found = fields[key.text]
                values[found.name] = self.read(value, found.type, {})
            else:
                self._unknown(key, tuple(fields))
        for item in kind.fields:
            if item.required and node.find(item.encode_name) is None:
                self._missing(node, item)
                values[item.name] = _BAD
        if any(value is _BAD for value in values.values()):
            return _BAD
        return kind.cls(**values)

    def _unknown(self, key: ScalarNode, known: tuple[str, ...]) -> None:
        near = difflib.get_close_matches(key.text[:64], known, n=1)
        fix = f"did you mean {near[0]}?" if near else f"the keys here are {', '.join(known)}"
        self._find("E01", key, f"unknown key {show(key.text)}", fix)

    def _missing(self, node: Node, item: inspect.Field) -> None:
        extra = item.type.extra if isinstance(item.type, inspect.Metadata) else None
        code = (extra or {}).get("code", "E14")
        self._find(code, node, f"the key {item.encode_name} is missing", "add it")

    def _dict(self, node: Node, kind: inspect.DictType, extra: dict[str, Any]) -> Any:
        if not isinstance(node, MapNode):
            return self._wrong(node, "a mapping", extra)
        if len(node.entries) < (kind.min_length or 0):
            return self._wrong(node, "a mapping with at least one key", extra)
        pairs = [
            (self.read(key, kind.key_type, {}), self.read(value, kind.value_type, {}))
            for key, value in node.entries
        ]
        if any(key is _BAD or value is _BAD for key, value in pairs):
            return _BAD
        return dict(pairs)

    def _tuple(self, node: Node, kind: inspect.VarTupleType, extra: dict[str, Any]) -> Any:
        if not isinstance(node, ListNode):
            return self._wrong(node, "a list", extra)
        if len(node.items) < (kind.min_length or 0):
            return self._wrong(node, "a list with at least one item", extra)
        items = tuple(self.read(item, kind.item_type, {}) for item in node.items)
        return _BAD if any(item is _BAD for item in items) else items

    def _str(self, node: Node, kind: inspect.StrType, extra: dict[str, Any]) -> Any:
        if not isinstance(node, ScalarNode) or node.value is None:
            return self._wrong(node, "text", extra)
        text = node.text
        fits = kind.pattern is None or re.fullmatch(kind.pattern, text) is not None
        unquoted = node.unclear or not isinstance(node.value, str)
        if unquoted and not (extra.get("plain") and fits):
            what = f"{show(text)} is a number, date or boolean to some YAML readers"
            return self._find("E09", node, what, f'write "{show(text)[1:-1]}", in quotes')
        if self._printable and not (text.isprintable() or text == ""):
            return self._wrong(node, "text without control characters", extra)
        if len(text) < (kind.min_length or 0) or len(text) > (kind.max_length or len(text)):
            return self._wrong(node, f"text of 1 to {kind.max_length} characters", extra)
        if not fits:
            form = f"text of the form {kind.pattern}"
            return self._wrong(node, extra.get("form", form), extra)
        return text

    def _int(self, node: Node, kind: inspect.IntType, extra: dict[str, Any]) -> Any:
        if not isinstance(node, ScalarNode) or type(node.value) is not int:
            return self._wrong(node, "a whole number, without quotes", extra)
        low, high = kind.ge, kind.le
        if (low is not None and node.value < low) or (high is not None and node.value > high):
            return self._wrong(node, f"a number from {low} to {high}", extra)
        return node.value

    def _bool(self, node: Node, _kind: inspect.BoolType, extra: dict[str, Any]) -> Any:
        if not isinstance(node, ScalarNode) or not isinstance(node.value, bool):
            return self._wrong(node, "true or false", extra)
        return node.value

    def _none(self, _node: Node, _kind: inspect.NoneType, _extra: dict[str, Any]) -> None:
        """Reached through `_union` alone, for a null."""

    def _literal(self, node: Node, kind: inspect.LiteralType, extra: dict[str, Any]) -> Any:
        if isinstance(node, ScalarNode) and not node.unclear:
            for value in kind.values:
                if type(value) is type(node.value) and value == node.value:
                    return value
        wanted = ", ".join(str(value) for value in kind.values)
        return self._wrong(node, wanted if len(kind.values) == 1 else f"one of {wanted}", extra)

    def _union(self, node: Node, kind: inspect.UnionType, extra: dict[str, Any]) -> Any:
        """The members of our unions differ in shape, so the node's shape chooses."""
        for member in kind.types:
            if _shape_fits(node, _bare(member)):
                return self.read(node, member, extra)
        wanted = " or ".join(_noun(_bare(member)) for member in kind.types)
        return self._wrong(node, wanted, extra)

    def _any(self, node: Node, kind: inspect.AnyType, extra: dict[str, Any]) -> Any:
        """A claim of a test case, as a token would hold it."""
        if isinstance(node, ListNode):
            items = tuple(self._any(item, kind, extra) for item in node.items)
            return _BAD if any(item is _BAD for item in items) else items
        if isinstance(node, MapNode):
            return self._wrong(node, "a value or a list of values", extra)
        if node.unclear:
            what = f"{show(node.text)} is a number, date or boolean to some YAML readers"
            return self._find("E09", node, what, f'write "{show(node.text)[1:-1]}", in quotes')
        return node.value

    def _wrong(self, node: Node, wanted: str, extra: dict[str, Any]) -> Any:
        found = {MapNode: "a mapping", ListNode: "a list"}.get(type(node))
        if isinstance(node, ScalarNode):
            found = "nothing" if node.value is None else show(node.text)
        code = extra.get("code", "E15")
        return self._find(code, node, f"found {found}, expected {wanted}", f"write {wanted}")

    def _find(self, code: str, node: Node, message: str, fix: str) -> Any:
        self.findings.append(make_finding(code, message, fix=fix, at=node.at, path=self._name))
        return _BAD


def _bare(kind: inspect.Type) -> inspect.Type:
    return _bare(kind.type) if isinstance(kind, inspect.Metadata) else kind


def _shape_fits(node: Node, member: inspect.Type) -> bool:
    if isinstance(node, MapNode):
        return isinstance(member, inspect.StructType | inspect.DictType)
    if isinstance(node, ListNode):
        return isinstance(member, inspect.VarTupleType)
    if node.value is None:
        return isinstance(member, inspect.NoneType)
    return isinstance(member, inspect.StrType | inspect.LiteralType)


def _noun(member: inspect.Type) -> str:
    if isinstance(member, inspect.StructType | inspect.DictType):
        return "a mapping"
    if isinstance(member, inspect.VarTupleType):
        return "a list"
    if isinstance(member, inspect.LiteralType):
        return " or ".join(map(str, member.values))
    return "null" if isinstance(member, inspect.NoneType) else "text"
