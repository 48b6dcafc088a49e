"""How long a slow client is waited for: one rule for bodies, connections and downloads."""


class Patience:
    """A client may fall behind a rate by so many seconds and no more.

    Bytes earn waiting time back, but never more than the grace that the client began with: a
    fast start does not buy a long drip, and one byte a second is cut when the grace is over.
    """

    def __init__(self, *, grace_seconds: float, bytes_per_second: float) -> None:
        self._grace = grace_seconds
        self._rate = bytes_per_second
        self._left = grace_seconds

    @property
    def left_seconds(self) -> float:
        """How long the next byte may take."""
        return self._left

    def worth_seconds(self, size: int) -> float:
        """How long a client at exactly the lowest rate takes for `size` bytes."""
        return size / self._rate

    def spend(self, seconds: float) -> None:
        """The client was waited for."""
        self._left = max(0.0, self._left - seconds)

    def earn(self, size: int) -> None:
        """The client moved `size` bytes."""
        self._left = min(self._grace, self._left + self.worth_seconds(size))
