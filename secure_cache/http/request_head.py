"""What the head of a request must be like before any application sees it: RFC 9112, read
strictly.

llhttp, the parser below, already refuses control characters, obs-fold, bare LF, a space before
the colon, a repeated or signed Content-Length, and Content-Length beside Transfer-Encoding
(measured, httptools 0.9.0; the attack tests hold it to that). It accepts what is refused here:
each of these lets two readers of one request disagree about where it ends or who sent it. The
checks that llhttp makes too stay all the same, so that no release of it can take them away.

The texts of the errors are constants and go to the client: nothing of the request is in them.
"""

import re
from collections.abc import Sequence

from secure_cache.model.errors import Malformed

Headers = Sequence[tuple[bytes, bytes]]

SINGLE = frozenset({b"authorization", b"content-length", b"host", b"transfer-encoding"})
"""Headers of which a proxy may see the first and we the last."""

_HOST = re.compile(
    rb"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9.])?|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?"
)
_LENGTH = re.compile(rb"[0-9]{1,18}")
_CONTROLS = bytes([*range(0x09), *range(0x0A, 0x20), 0x7F])
_ABSOLUTE = re.compile(rb"https?://([A-Za-z0-9.:_\[\]-]+)(?:/[^#]*)", re.IGNORECASE)


def check_head(*, version: str, method: str, target: bytes, headers: Headers) -> None:
    """Check a whole head; names are lower-case.

    Raises:
        Malformed: with one constant line for the client.
    """
    if version not in {"1.0", "1.1"}:
        raise Malformed("this server speaks HTTP/1.1")
    if method == "CONNECT":
        raise Malformed("this server is not a proxy")
    _check_target(target)
    seen: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in SINGLE:
            if name in seen:
                raise Malformed(f"more than one {name.decode()} header")
            seen[name] = value
    text = b"".join([value for _, value in headers])
    # Six times as fast as a search: a token is long, and this is done for every request.
    if len(text.translate(None, _CONTROLS)) != len(text):
        raise Malformed("a control character in a header")
    _check_host(seen.get(b"host"), version)
    _check_framing(seen.get(b"content-length"), seen.get(b"transfer-encoding"), version)


def _check_target(target: bytes) -> None:
    if b"#" in target:
        raise Malformed("a fragment in the request target")
    if not target.startswith(b"/") and _ABSOLUTE.fullmatch(target) is None:
        raise Malformed("the request target is not a path")


def _check_host(host: bytes | None, version: str) -> None:
    if host is None:
        if version == "1.1":
            raise Malformed("the host header is missing")
    elif _HOST.fullmatch(host) is None:
        raise Malformed("the host header is not a host name")


def _check_framing(length: bytes | None, encoding: bytes | None, version: str) -> None:
    if length is not None and encoding is not None:
        raise Malformed("both content-length and transfer-encoding")
    if length is not None and _LENGTH.fullmatch(length) is None:
        raise Malformed("content-length is not one plain number")
    if encoding is not None and (encoding.lower() != b"chunked" or version == "1.0"):
        raise Malformed("transfer-encoding is not exactly chunked")


def has_body(headers: Headers) -> bool:
    """Whether a checked head announces a body."""
    for name, value in headers:
        if name == b"transfer-encoding" or (name == b"content-length" and int(value) > 0):
            return True
    return False
