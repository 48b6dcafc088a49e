"""YAML with one meaning: the strict subset in which policies are written.

PyYAML reads YAML 1.1 and keeps the last of two equal keys, so that `0123` is 83, `1:30` is 90,
`on` is true, and a second `read:` far below silently replaces the first. Here the events of its
parser are composed anew: one UTF-8 document, every key once and text, no anchors, aliases, merge
keys, tags or directives. A plain scalar that any YAML version takes for something other than
text keeps its text and is marked `unclear`, unless all versions agree on an integer, a boolean or
null.

Every node knows its line and column.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn, TypeAlias

import yaml

from secure_cache.model.errors import InvalidPolicy
from secure_cache.policy.finding import Finding, make_finding, show

MAX_BYTES = 256 * 1024
MAX_NODES = 20_000
"""A worked policy of eight rules and three projects has about 200 nodes, and a test file 30 a
case; a thousand would refuse what a real monorepo needs. The byte limit bounds the work."""
MAX_DEPTH = 16

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_FLOAT_12 = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_OCTAL_12 = re.compile(r"0o[0-7]+")
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False}
_BOOLEANS["FALSE"] = False
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_YAML_11_LETTERS = frozenset({"y", "Y", "n", "N"})
_STRING_TAG = "tag:yaml.org,2002:str"
_MENDS = (
    ("'\\t'", "indent with spaces: YAML takes no tabs"),
    ("alphabetic or numeric character", "put a pattern that begins with `*` in quotes"),
    ("<block end>", "begin this line in the same column as its neighbours above"),
    (
        "mapping values are not allowed",
        "quote a text that holds `: `, add a missing colon above, or mend the indentation",
    ),
    ("could not find expected ':'", "add the colon that is missing, here or in the line above"),
    ("expected ',' or", "close the bracket: here, or in a line above"),
    ("unexpected end of stream", "close the quote that was opened above"),
)
"""Of PyYAML's own messages, which speak of its parser: what a person does about them."""
_RESOLVER = yaml.resolver.Resolver()


@dataclass(frozen=True, slots=True)
class ScalarNode:
    """One value.

    Attributes:
        value: the text, integer, boolean or None.
        text: as written, after unquoting.
        unclear: plain, and YAML versions disagree on it, or agree that it is a number or date
            that policies have no use for; `value` is the text then.
        plain: written without quotes.
        at: line and column, from 1.
    """

    value: str | int | bool | None
    text: str
    unclear: bool
    plain: bool
    at: tuple[int, int]


@dataclass(frozen=True, slots=True)
class ListNode:
    items: tuple["Node", ...]
    at: tuple[int, int]


@dataclass(frozen=True, slots=True)
class MapNode:
    """A mapping in its written order; keys are distinct texts."""

    entries: tuple[tuple[ScalarNode, "Node"], ...]
    at: tuple[int, int]

    def find(self, key: str) -> tuple[ScalarNode, "Node"] | None:
        return next((entry for entry in self.entries if entry[0].text == key), None)


Node: TypeAlias = ScalarNode | ListNode | MapNode


def load_yaml(data: bytes, *, name: str) -> Node:
    """Read one document.

    Args:
        data: the file's bytes.
        name: the file's name, for findings.

    Raises:
        InvalidPolicy: not in the strict subset; carries the findings.
    """
    composer = _Composer(_decode(data, name), name)
    node = composer.document()
    if composer.findings:
        raise _invalid(tuple(composer.findings))
    return node


def _decode(data: bytes, name: str) -> str:
    if len(data) > MAX_BYTES:
        _stop(name, (1, 1), f"the file has more than {MAX_BYTES} bytes", "split or shorten it")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        _stop(name, (line, 1), "the file is not UTF-8", "save it as UTF-8")
    for index, character in enumerate(text):
        if character not in "\n\r\t" and not _is_visible(character):
            line = text.count("\n", 0, index) + 1
            column = index - text.rfind("\n", 0, index)
            what = f"an invisible character, {show(character)}"
            _stop(name, (line, column), what, "delete it; inside quotes write it as an escape")
    return text


def _is_visible(character: str) -> bool:
    """False for what shows one thing to a reviewer and another to a parser: byte order marks,
    controls, bidirectional overrides, the line breaks that only YAML 1.1 knows."""
    return " " <= character <= "~" or unicodedata.category(character)[0] not in {"C", "Z"}


class _Composer:
    """One pass over the parser's events."""

    def __init__(self, text: str, name: str) -> None:
        self.findings: list[Finding] = []
        self._name = name
        self._nodes = 0
        self._events = self._guarded(text)

    def document(self) -> Node:
        next(self._events)
        start = next(self._events)
        if not isinstance(start, yaml.DocumentStartEvent):
            self._stop(start, "the file is empty", "write a policy, or start from policies/")
        if start.version or start.tags:
            self._stop(start, "a % directive", "delete it")
        node = self._node(next(self._events), 1)
        next(self._events)
        rest = next(self._events)
        if not isinstance(rest, yaml.StreamEndEvent):
            self._stop(rest, "a second document", "keep one document in a file")
        return node

    def _guarded(self, text: str) -> Iterator[yaml.Event]:
        # PyYAML passes the errors of chr() and int() on for escapes and directives out of range.
        try:
            yield from yaml.parse(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            at = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            problem = error.problem or "nothing more is known"
            fix = next((fix for part, fix in _MENDS if part in problem), "mend the syntax here")
            _stop(self._name, at, f"not YAML: {show(problem)}", fix)
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            _stop(self._name, (1, 1), f"not YAML: {show(str(error))}", "mend the syntax")

    def _node(self, event: yaml.Event, depth: int) -> Node:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._stop(event, f"more than {MAX_NODES} values", "split or shorten the file")
        if depth > MAX_DEPTH:
            self._stop(event, f"nested deeper than {MAX_DEPTH}", "flatten it")
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            self._stop(event, "an anchor or alias (& or *)", "write the value out, or quote it")
        if getattr(event, "tag", None) is not None:
            self._stop(event, "a tag (!)", "delete it, or quote the value")
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._list(event, depth)
        return self._map(event, depth)

    def _list(self, event: yaml.Event, depth: int) -> ListNode:
        items = []
        while not isinstance(found := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(found, depth + 1))
        return ListNode(tuple(items), _at(event))

    def _map(self, event: yaml.Event, depth: int) -> MapNode:
        entries: list[tuple[ScalarNode, Node]] = []
        seen: dict[str, int] = {}
        while not isinstance(found := next(self._events), yaml.MappingEndEvent):
            key = self._key(found, depth)
            value = self._node(next(self._events), depth + 1)
            if key.text in seen:
                self._find(
                    "E02",
                    key.at,
                    f"the key {show(key.text)} stands here again",
                    f"delete one of them; the other is in line {seen[key.text]}",
                )
                continue
            seen[key.text] = key.at[0]
            entries.append((key, value))
        return MapNode(tuple(entries), _at(event))

    def _key(self, event: yaml.Event, depth: int) -> ScalarNode:
        key = self._node(event, depth + 1)
        if not isinstance(key, ScalarNode):
            self._stop(event, "a key that is a list or a mapping", "write text before the colon")
        if key.plain and key.text == "<<":
            self._stop(event, "a merge key (<<)", "write the keys out")
        if key.unclear or not isinstance(key.value, str):
            self._find("E09", key.at, f"the key {show(key.text)} is not text", "put it in quotes")
        return key

    def _scalar(self, event: yaml.ScalarEvent) -> ScalarNode:
        text: str = event.value
        if any("\ud800" <= character <= "\udfff" for character in text):
            self._stop(event, "half of a surrogate pair", "write the whole character")
        if event.style is not None:
            return ScalarNode(text, text, unclear=False, plain=False, at=_at(event))
        value, unclear = _resolve(text)
        return ScalarNode(value, text, unclear=unclear, plain=True, at=_at(event))

    def _find(self, code: str, at: tuple[int, int], message: str, fix: str) -> None:
        self.findings.append(make_finding(code, message, fix=fix, at=at, path=self._name))

    def _stop(self, event: yaml.Event, message: str, fix: str) -> NoReturn:
        _stop(self._name, _at(event), message, fix)


def _resolve(text: str) -> tuple[str | int | bool | None, bool]:
    """The value of a plain scalar, and whether YAML versions disagree about it."""
    if text in _NULLS:
        return None, False
    if text in _BOOLEANS:
        return _BOOLEANS[text], False
    if _INTEGER.fullmatch(text) is not None and text != "-0":
        return int(text), False
    in_12 = _FLOAT_12.fullmatch(text) or _OCTAL_12.fullmatch(text)
    tag: str = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    return text, bool(in_12) or tag != _STRING_TAG or text in _YAML_11_LETTERS


def _at(event: yaml.Event) -> tuple[int, int]:
    mark = event.start_mark
    return (1, 1) if mark is None else (mark.line + 1, mark.column + 1)


def _invalid(findings: tuple[Finding, ...]) -> InvalidPolicy:
    return InvalidPolicy(str(findings[0]), findings)


def _stop(name: str, at: tuple[int, int], message: str, fix: str) -> NoReturn:
    raise _invalid((make_finding("E16", message, fix=fix, at=at, path=name),))
