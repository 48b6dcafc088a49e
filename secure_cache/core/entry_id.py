"""Entry ids: ULIDs, 48 bits of milliseconds and 80 random bits in Crockford's base 32."""

from collections.abc import Callable

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def new_entry_id(now: float, random_bytes: Callable[[int], bytes]) -> str:
    """A fresh id; sorts by time, and cannot be guessed or met twice."""
    number = (int(now * 1000) & (1 << 48) - 1) << 80 | int.from_bytes(random_bytes(10), "big")
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))
