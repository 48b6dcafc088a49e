"""What is remembered within a budget of bytes; what was not used for longest goes first."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")


class Budget(Generic[_K, _V]):
    """A mapping that forgets. What costs more than the whole budget is never kept."""

    def __init__(self, max_bytes: int, *, max_count: int | None = None) -> None:
        self._max = max_bytes
        self._max_count = max_count
        self._taken = 0
        self._kept: OrderedDict[_K, tuple[_V, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def taken_bytes(self) -> int:
        return self._taken

    def get(self, key: _K) -> _V | None:
        """What is kept, which counts as a use."""
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return found[0]

    def keep(self, key: _K, value: _V, *, cost_bytes: int) -> None:
        self.forget(key)
        if cost_bytes > self._max:
            return
        self._kept[key] = value, cost_bytes
        self._taken += cost_bytes
        while self._taken > self._max or (
            self._max_count is not None and len(self._kept) > self._max_count
        ):
            self.forget(next(iter(self._kept)))

    def forget(self, key: _K) -> None:
        found = self._kept.pop(key, None)
        if found is not None:
            self._taken -= found[1]
