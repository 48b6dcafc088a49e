"""Sets of places in a segment, and numbers sliced into such sets. Pure.

A set is one int whose bit `n` stands for the segment's row `n`: Python combines and counts such
ints at memory speed. Stored, a set of few is a list of its members. A column of numbers is stored
as one set for each binary digit (a bit-sliced index), which answers "between" exactly, without
looking at a single row.
"""

import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Self

from secure_cache.model.errors import DamagedIndex

MAX_ROWS = 65_536
"""A place has 16 bits."""

_PLACES, _BITS = b"p", b"b"
_SPREAD = tuple(bytes(byte >> bit & 1 for bit in range(8)) for byte in range(256))


def blob(value: object) -> bytes:
    """What SQLite gave for a column of bytes. Raises: DamagedIndex: something else."""
    if not isinstance(value, bytes):
        raise DamagedIndex("a column of bytes holds something else")
    return value


def bytes_for(rows: int) -> int:
    """How many bytes a set of that many rows has."""
    return -(-rows // 8)


def everything(rows: int) -> int:
    return (1 << rows) - 1


def of_places(places: Iterable[int], *, rows: int) -> int:
    """The set with these members."""
    data = bytearray(bytes_for(rows))
    for place in places:
        data[place >> 3] |= 1 << (place & 7)
    return int.from_bytes(data, "little")


def places_of(members: int) -> Iterator[int]:
    """The members in rising order. Made for few: each costs a look at the whole set."""
    while members:
        lowest = members & -members
        yield lowest.bit_length() - 1
        members ^= lowest


def places_down(members: int) -> Iterator[int]:
    """The members in falling order."""
    while members:
        highest = members.bit_length() - 1
        yield highest
        members ^= 1 << highest


def encode_places(places: Sequence[int], *, rows: int) -> bytes:
    """A set for storing; `places` are its members in rising order."""
    if 2 * len(places) < bytes_for(rows):
        return _PLACES + _little(array("H", places)).tobytes()
    return _BITS + of_places(places, rows=rows).to_bytes(bytes_for(rows), "little")


def decode_places(data: bytes, *, rows: int) -> int:
    """The inverse of `encode_places`.

    Raises:
        DamagedIndex: anything else.
    """
    kind, rest = data[:1], data[1:]
    if kind == _BITS and len(rest) == bytes_for(rows):
        members = int.from_bytes(rest, "little")
    elif kind == _PLACES and len(rest) % 2 == 0:
        members = _of_listed(_little(array("H", rest)), rows)
    else:
        raise DamagedIndex("a stored set is not well formed")
    if members.bit_length() > rows:
        raise DamagedIndex("a stored set has members beyond its segment")
    return members


def _of_listed(places: "array[int]", rows: int) -> int:
    if places and max(places) >= rows:
        raise DamagedIndex("a stored set has members beyond its segment")
    return of_places(places, rows=rows)


def spread(members: int, *, rows: int) -> bytes:
    """One byte for each row, 1 for a member: what `itertools.compress` selects by."""
    data = members.to_bytes(bytes_for(rows), "little")
    return b"".join([_SPREAD[byte] for byte in data])


@dataclass(frozen=True, slots=True)
class Slices:
    """A column of whole numbers, some of which may be absent.

    Attributes:
        rows: of the segment.
        low: the smallest number.
        high: the largest.
        present: the rows that have one.
        digits: the rows whose number minus `low` has this binary digit set, least first.
    """

    rows: int
    low: int
    high: int
    present: int
    digits: tuple[int, ...]

    @classmethod
    def of(cls, numbers: Sequence[int | None]) -> Self:
        rows = len(numbers)
        known = [number for number in numbers if number is not None]
        low, high = min(known, default=0), max(known, default=0)
        width = (high - low).bit_length()
        present = _from_digits(["0" if number is None else "1" for number in numbers])
        if not width:
            return cls(rows, low, high, present, ())
        # As one long text, each digit is every `width`-th character of it: no loop over bits.
        shifted = [0 if number is None else number - low for number in numbers]
        text = "".join([format(number, f"0{width}b") for number in shifted])
        digits = (_from_digits(text[width - 1 - digit :: width]) for digit in range(width))
        return cls(rows, low, high, present, tuple(digits))

    def between(self, low: int | None, high: int | None) -> int:
        """The rows whose number is in this range, both ends inside; None is no end."""
        found = self.present
        if low is not None and low > self.low:
            found &= ~self._up_to(low - 1)
        if high is not None and high < self.high:
            found &= self._up_to(high)
        return found

    def _up_to(self, number: int) -> int:
        number -= self.low
        if number < 0:
            return 0
        if number >> len(self.digits):
            return self.present
        less, equal = 0, self.present
        for digit in range(len(self.digits) - 1, -1, -1):
            ones = self.digits[digit]
            if number >> digit & 1:
                less |= equal & ~ones
                equal &= ones
            else:
                equal &= ~ones
        return less | equal

    def encode(self) -> bytes:
        """All but `rows`, `low` and `high`, which are columns of their own."""
        size = bytes_for(self.rows)
        return b"".join(part.to_bytes(size, "little") for part in (self.present, *self.digits))

    @classmethod
    def decode(cls, data: bytes, *, rows: int, low: int, high: int) -> Self:
        """Raises: DamagedIndex."""
        size = bytes_for(rows)
        width = (high - low).bit_length() if high >= low else -1
        if len(data) != (width + 1) * size:
            raise DamagedIndex("a stored column of numbers is not well formed")
        parts = [int.from_bytes(data[at : at + size], "little") for at in range(0, len(data), size)]
        return cls(rows, low, high, parts[0], tuple(parts[1:]))


def select(codes: Sequence[int], members: int) -> Iterator[int]:
    """The codes of the rows that are members."""
    return compress(codes, spread(members, rows=len(codes)))


def encode_codes(codes: Sequence[int]) -> bytes:
    return _little(array("H", codes)).tobytes()


def decode_codes(data: bytes) -> "array[int]":
    """Raises: DamagedIndex."""
    if len(data) % 2:
        raise DamagedIndex("a stored column of codes is not well formed")
    return _little(array("H", data))


def _from_digits(digits: Sequence[str]) -> int:
    """A set from a text of 0 and 1, the first row first."""
    return int("".join(reversed(digits)) or "0", 2)


def _little(numbers: "array[int]") -> "array[int]":
    """Stored little-endian on every machine."""
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
