"""A body of an answer over HTTP, unpacked within bounds.

httpx undoes whatever layers an answer names, each of them whole: a kilobyte in three layers of gzip
fills the memory before anybody can count. Here there is at most one, undone a piece at a time.
"""

import zlib

import httpx

from secure_cache.model.errors import Unavailable

ACCEPTED = "gzip, identity"
"""What to ask for, as `Accept-Encoding`."""

_GZIP_WINDOW = 31
_PIECE = 65_536


class BoundedBody:
    """Collects what `iter_raw` or `aiter_raw` gives.

    Args:
        answer: its headers say how it is packed: as gzip, or not at all.
        where: names it in messages.
        max_bytes: of the body, unpacked.

    Raises:
        Unavailable: it is packed otherwise; and so do all methods, when it is too large or broken.
    """

    def __init__(self, answer: httpx.Response, *, where: str, max_bytes: int) -> None:
        self._where = where
        self._max = max_bytes
        self._data = bytearray()
        self._began = False
        coding = answer.headers.get("content-encoding", "identity").strip().lower()
        if coding not in {"identity", "gzip"}:
            raise Unavailable(f"{where}: compressed in a way that was not asked for")
        self._gzip = zlib.decompressobj(_GZIP_WINDOW) if coding == "gzip" else None

    def add(self, raw: bytes) -> None:
        """The next bytes, as they came."""
        self._began = self._began or bool(raw)
        if self._gzip is None:
            self._take(raw)
            return
        try:
            while raw and not self._gzip.eof:
                self._take(self._gzip.decompress(raw, _PIECE))
                raw = self._gzip.unconsumed_tail
        except zlib.error:
            raise Unavailable(f"{self._where}: wrongly compressed") from None

    def whole(self) -> bytes:
        """The body, after its last bytes."""
        # An answer without a body may yet say how it would have been packed.
        if self._gzip is not None and self._began and not self._gzip.eof:
            raise Unavailable(f"{self._where}: compressed, and cut short")
        return bytes(self._data)

    def _take(self, data: bytes) -> None:
        self._data += data
        if len(self._data) > self._max:
            raise Unavailable(f"{self._where}: more than {self._max} bytes")
