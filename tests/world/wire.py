"""HTTP by hand, for what a well-behaved client library will not send."""

import contextlib
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """One response as it came over the wire."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """The one header of this name; two of them are a fault."""
        found = [value for key, value in self.headers if key == name.lower()]
        assert len(found) <= 1, f"{name} came {len(found)} times"
        return found[0] if found else None


class Wire:
    """One connection."""

    def __init__(self, port: int, *, timeout: float = 30):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self._buffer = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read(self, *, head: bool = False) -> Answer | None:
        """The next response, or None when the server closed the connection instead.

        Raises:
            AssertionError: the connection ended inside a response, or it has no length.
        """
        while b"\r\n\r\n" not in self._buffer:
            if not self._more():
                assert self._buffer == b"", f"half a response: {self._buffer!r}"
                return None
        top, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = top.decode("latin-1").split("\r\n")
        found = re.fullmatch(r"HTTP/1\.1 (\d{3})(?: .*)?", first)
        assert found is not None, first
        headers = tuple(
            (name.lower(), value.strip())
            for name, _, value in (line.partition(":") for line in lines)
        )
        answer = Answer(int(found[1]), headers, b"")
        if answer.status == 100:
            return self.read(head=head)
        text = answer.header("content-length")
        if text is None:
            assert answer.header("connection") == "close" or answer.status == 304, (
                f"neither a length nor an end: {headers}"
            )
            while self._more():
                pass
            body, self._buffer = self._buffer, b""
            return Answer(answer.status, headers, body)
        length = 0 if head else int(text)
        while len(self._buffer) < length:
            assert self._more(), f"the body ends after {len(self._buffer)} of {length} bytes"
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return Answer(answer.status, headers, body)

    def read_all(self) -> list[Answer]:
        """Every response until the server closes."""
        found = []
        while (answer := self.read()) is not None:
            found.append(answer)
        return found

    def _more(self) -> bool:
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            return False
        self._buffer += data
        return data != b""

    def close(self) -> None:
        self.socket.close()


@contextlib.contextmanager
def connect(port: int, *, timeout: float = 30) -> Iterator[Wire]:
    wire = Wire(port, timeout=timeout)
    try:
        yield wire
    finally:
        wire.close()


def request(
    method: str, path: str, token: str | None = None, *headers: str, body: bytes | None = None
) -> bytes:
    """The bytes of a request, exactly as told."""
    lines = [f"{method} {path} HTTP/1.1", "host: cache.example"]
    if token is not None:
        lines.append(f"authorization: Bearer {token}")
    if body is not None:
        lines.append(f"content-length: {len(body)}")
    lines.extend(headers)
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b"")
