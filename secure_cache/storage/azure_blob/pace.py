"""How far ahead of a reader it pays to read."""

from typing import Final, NamedTuple

KIB: Final = 1 << 10


class Step(NamedTuple):
    """`ahead` ranges of `size` bytes each are asked for before the reader wants them."""

    size: int
    ahead: int


SMALLEST: Final = Step(256 * KIB, 0)

_STEPS: Final = (
    SMALLEST,
    Step(1024 * KIB, 1),
    Step(4096 * KIB, 1),
    Step(4096 * KIB, 2),
    Step(4096 * KIB, 3),
)
_START: Final = 2
_IDLE_SECONDS: Final = 1.0


class Pace:
    """Grows while the reader waits for the storage, shrinks while bytes wait for the reader.

    So that a client that takes its bytes slowly does not hold memory that others could use.
    """

    def __init__(self) -> None:
        self._at = _START

    @property
    def step(self) -> Step:
        return _STEPS[self._at]

    def reader_waited(self) -> None:
        self._at = min(self._at + 1, len(_STEPS) - 1)

    def bytes_waited(self, seconds: float) -> None:
        if seconds > _IDLE_SECONDS:
            self._at = max(self._at - 1, 0)
