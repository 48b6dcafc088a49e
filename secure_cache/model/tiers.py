"""Integrity tiers (Biba): a reader reads only tiers at or above its own."""

from enum import IntEnum
from typing import Self


class Tier(IntEnum):
    """How far a writer is trusted. The order is the lattice."""

    CONTRIBUTOR = 1
    CANDIDATE = 2
    TRUSTED = 3

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the lower-case name.

        Raises:
            ValueError: not a tier's name.
        """
        for tier in cls:
            if str(tier) == text:
                return tier
        raise ValueError("a tier is contributor, candidate or trusted")

    def __str__(self) -> str:
        return self.name.lower()
