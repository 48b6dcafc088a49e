"""How `when:` compares names: whole text, or whole path segments. There is no regex.

`*` stands for one segment of `[A-Za-z0-9._@+-]+`, a last `**` for one or more segments of
anything. Everything else is compared character by character, case and all. A `*` beside other
characters is refused: `release*` would also match `release-evil`.
"""

import re
from dataclasses import dataclass
from typing import Self

_SEGMENT = re.compile(r"[A-Za-z0-9._@+-]+")
_REGEX_LIKE = frozenset("^$|()[]{}?\\~: ")


@dataclass(frozen=True, slots=True)
class Pattern:
    """A parsed pattern.

    Attributes:
        text: as written.
        segments: its fixed segments; `*` stands for any one.
        literal: it has no wildcard, and `text` is all it matches.
        open_ended: it ends with `**`.
        prefix: the text before the first wildcard, which every match begins with.
    """

    text: str
    segments: tuple[str, ...]
    literal: bool
    open_ended: bool
    prefix: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a pattern.

        Raises:
            ValueError: a partial glob, a `**` that is not last, an empty segment, or a character
                that only makes sense in a regex.
        """
        found = _REGEX_LIKE.intersection(text)
        if found:
            raise ValueError(f"{min(found)!r} has no meaning here: patterns are not regexes")
        segments = text.split("/")
        open_ended = segments[-1] == "**"
        fixed = tuple(segments[:-1] if open_ended else segments)
        for segment in fixed:
            if not segment:
                raise ValueError("an empty path segment")
            if segment == "**":
                raise ValueError("`**` may only come last")
            if "*" in segment and segment != "*":
                raise ValueError("`*` stands for one whole path segment, never for a part of one")
        if not open_ended and not text.isprintable():
            raise ValueError("a pattern is printable text")
        prefix = text.partition("*")[0]
        return cls(text, fixed, literal="*" not in text, open_ended=open_ended, prefix=prefix)

    def matches(self, name: str) -> bool:
        """True when `name` as a whole is what this pattern stands for."""
        if self.literal:
            return name == self.text
        if not name.startswith(self.prefix):
            return False
        parts = name.split("/")
        if self.open_ended:
            if len(parts) <= len(self.segments) or not name:
                return False
            parts = parts[: len(self.segments)]
        elif len(parts) != len(self.segments):
            return False
        return all(map(_segment_matches, self.segments, parts))

    def covers(self, other: "Pattern") -> bool:
        """True when every name that `other` matches is matched by this pattern too."""
        if self.literal:
            return other.literal and other.text == self.text
        if other.literal:
            return self.matches(other.text)
        if self.open_ended:
            # `a/**` asks for a segment after `a`; `a/**` and `a/b` have one, `a` has not.
            reach = len(other.segments) + other.open_ended
            if reach <= len(self.segments):
                return False
        elif other.open_ended or len(other.segments) != len(self.segments):
            return False
        return all(map(_segment_covers, self.segments, other.segments))


def _segment_matches(segment: str, part: str) -> bool:
    return _SEGMENT.fullmatch(part) is not None if segment == "*" else part == segment


def _segment_covers(segment: str, other: str) -> bool:
    return other == segment or (segment == "*" and _SEGMENT.fullmatch(other) is not None)
