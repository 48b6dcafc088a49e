"""Two texts, line by line. Pure, and bounded whatever the texts are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import StrEnum

MAX_LINES = 5000
"""Of a difference that is given out; the rest is cut."""

_CONTEXT = 3
_MAX_WORK = 4_000_000
"""Lines times lines. Above it only the beginning and end that both share are looked for: finding
what moved costs more than the square."""


_NO_END = " (no line feed at the end)"


class LineKind(StrEnum):
    SAME = "same"
    REMOVED = "removed"
    ADDED = "added"


@dataclass(frozen=True, slots=True)
class Line:
    """One line, with its number in each text, from 1; None where it is not in that text."""

    kind: LineKind
    old: int | None
    new: int | None
    text: str


@dataclass(frozen=True, slots=True)
class Hunk:
    """Lines that changed, with some around them."""

    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class TextDiff:
    """The difference.

    Attributes:
        hunks: empty when the texts are the same.
        cut: there is more, and it is not shown.
    """

    hunks: tuple[Hunk, ...]
    cut: bool


def text_diff(old: bytes, new: bytes) -> TextDiff:
    """Compare two texts. What is not UTF-8 is shown as such and compared so."""
    before, after = _lines(old), _lines(new)
    hunks: list[Hunk] = []
    room = MAX_LINES
    for group in _groups(before, after):
        lines = tuple(line for step in group for line in _step(step, before, after))
        if len(lines) > room:
            return TextDiff((*hunks, Hunk(lines[:room])) if room else tuple(hunks), cut=True)
        hunks.append(Hunk(lines))
        room -= len(lines)
    return TextDiff(tuple(hunks), cut=False)


_Step = tuple[int, int, int, int]
"""From and to in the old text, from and to in the new one; both the same lines, or not."""


def _lines(data: bytes) -> list[str]:
    """Split at line feeds only, as editors count; other marks stay in their line."""
    *lines, last = data.decode("utf-8", "replace").split("\n")
    return [*lines, last + _NO_END] if last else lines


def _groups(before: Sequence[str], after: Sequence[str]) -> Iterator[list[_Step]]:
    """Runs of steps with `_CONTEXT` lines around them."""
    group: list[_Step] = []
    steps = list(_steps(before, after))
    for number, (a, b, c, d) in enumerate(steps):
        if not _is_same(before, after, (a, b, c, d)):
            group.append((a, b, c, d))
            continue
        # A short stretch that did not change joins what is around it.
        if group and number + 1 < len(steps) and b - a <= 2 * _CONTEXT:
            group.append((a, b, c, d))
            continue
        if group:
            group.append((a, min(b, a + _CONTEXT), c, min(d, c + _CONTEXT)))
            yield group
        group = []
        if number + 1 < len(steps):
            start = max(a, b - _CONTEXT)
            group.append((start, b, d - (b - start), d))
    if any(not _is_same(before, after, step) for step in group):
        yield group


def _steps(before: Sequence[str], after: Sequence[str]) -> Iterator[_Step]:
    head = 0
    while head < min(len(before), len(after)) and before[head] == after[head]:
        head += 1
    tail = 0
    while tail < min(len(before), len(after)) - head and before[-1 - tail] == after[-1 - tail]:
        tail += 1
    old, new = before[head : len(before) - tail], after[head : len(after) - tail]
    if head:
        yield 0, head, 0, head
    if len(old) * len(new) > _MAX_WORK:
        yield head, head + len(old), head, head + len(new)
    else:
        for _, a, b, c, d in SequenceMatcher(None, old, new).get_opcodes():
            yield head + a, head + b, head + c, head + d
    if tail:
        yield len(before) - tail, len(before), len(after) - tail, len(after)


def _is_same(before: Sequence[str], after: Sequence[str], step: _Step) -> bool:
    a, b, c, d = step
    return b - a == d - c and before[a:b] == after[c:d]


def _step(step: _Step, before: Sequence[str], after: Sequence[str]) -> Iterator[Line]:
    a, b, c, d = step
    if _is_same(before, after, step):
        for offset, text in enumerate(before[a:b]):
            yield Line(LineKind.SAME, a + offset + 1, c + offset + 1, text)
        return
    for number, text in enumerate(before[a:b], a + 1):
        yield Line(LineKind.REMOVED, number, None, text)
    for number, text in enumerate(after[c:d], c + 1):
        yield Line(LineKind.ADDED, None, number, text)
