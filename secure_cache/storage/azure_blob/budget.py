"""How much memory all transfers of one process may hold together."""

from typing import Final

from secure_cache.model.errors import Overloaded

_HARD: Final = 2


class ByteBudget:
    """Counts bytes. Nobody waits for more: whoever gets none does with less.

    What a transfer cannot do without is taken even above the limit, up to twice of it; beyond
    that new bytes are refused, and a download that has begun tries again for a while.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._used = 0

    @property
    def used(self) -> int:
        return self._used

    def try_take(self, count: int) -> bool:
        """Take `count` bytes if they are within the limit."""
        if self._used + count > self.limit:
            return False
        self._used += count
        return True

    def take_needed(self, count: int) -> None:
        """Take what there is no doing without.

        Raises: Overloaded.
        """
        if self._used + count > _HARD * self.limit:
            raise Overloaded("too many transfers to and from the storage at once")
        self._used += count

    def give_back(self, count: int) -> None:
        self._used -= count
