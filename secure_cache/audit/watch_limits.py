"""Limits of a writer who is expected: how much it stores at once, and when. Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from secure_cache.model.errors import Malformed

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY = rf"^(?:{'|'.join(DAYS)})(?:-(?:{'|'.join(DAYS)}))?$"
_TIME = "([01][0-9]|2[0-3]):([0-5][0-9])"
_WINDOW = re.compile(f"{_TIME}-(?:{_TIME}|24:00)")
_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_DAY_SECONDS = 86_400
_THURSDAY = 3
"""1970-01-01."""


def size_in_bytes(text: str) -> int:
    """Of a text that `schema.SIZE` has let through, such as `500MiB`."""
    return int(text[:-3]) * _UNITS[text[-3:]]


@dataclass(frozen=True, slots=True)
class Hours:
    """Windows of UTC, by the day of the week.

    Attributes:
        windows: for each day from Monday on the minutes of the day, from (inside) and to (outside).
    """

    windows: tuple[tuple[tuple[int, int], ...], ...]

    @classmethod
    def parse(cls, given: Mapping[str, Iterable[str]]) -> Self:
        """Read days such as `mon` or `mon-fri`, each with windows such as `06:00-20:00`.

        Raises:
            Malformed: a window is none, or ends before it begins.
        """
        days: list[list[tuple[int, int]]] = [[] for _ in DAYS]
        for name, texts in given.items():
            first, _, last = name.partition("-")
            begin, count = DAYS.index(first), 1
            if last:
                # `fri-mon` goes over the end of the week.
                count = (DAYS.index(last) - begin) % len(DAYS) + 1
            for text in texts:
                window = _window(name, text)
                for number in range(begin, begin + count):
                    days[number % len(DAYS)].append(window)
        return cls(tuple(tuple(windows) for windows in days))

    def allows(self, at: int) -> bool:
        """Whether a moment, in seconds since 1970, is inside. A day without a window has none."""
        day, second = divmod(at, _DAY_SECONDS)
        minute = second // 60
        windows = self.windows[(day + _THURSDAY) % len(DAYS)]
        return any(begin <= minute < end for begin, end in windows)


def _window(day: str, text: str) -> tuple[int, int]:
    found = _WINDOW.fullmatch(text)
    if found is None:
        raise Malformed(f"hours: {day}: {text!a} is no window of UTC such as 06:00-20:00")
    hour, minute, end_hour, end_minute = map(int, found.groups(default="0"))
    begin, end = 60 * hour + minute, 60 * end_hour + end_minute
    if text.endswith("24:00"):
        end = _DAY_SECONDS // 60
    if begin >= end:
        raise Malformed(
            f"hours: {day}: {text} ends before it begins; one over midnight is written as two"
        )
    return begin, end
