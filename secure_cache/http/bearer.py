"""The one place where a token is taken out of a request."""

import re
from collections.abc import Iterable

from secure_cache.model.errors import InvalidToken, TokenProblem

MAX_TOKEN_BYTES = 8192
_PRINTABLE = re.compile(rb"[!-~]+")


def bearer_token(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The token of the `Authorization: Bearer` header; None when there is no such header.

    An empty token is no token: the Nx client sends `Bearer ` when its variable is empty, which
    is how pull requests from forks arrive.

    Raises:
        InvalidToken: two headers, another scheme, characters outside printable ASCII, or more
            than 8 KiB.
    """
    found = [value for name, value in headers if name == b"authorization"]
    if not found:
        return None
    if len(found) > 1:
        raise InvalidToken("two Authorization headers", TokenProblem.AUTHORIZATION)
    value = found[0]
    if len(value) > MAX_TOKEN_BYTES + len(b"Bearer "):
        raise InvalidToken("the token is longer than 8 KiB")
    scheme, _, token = value.partition(b" ")
    if scheme.lower() != b"bearer":
        raise InvalidToken(problem=TokenProblem.AUTHORIZATION)
    token = token.strip(b" ")
    if not token:
        return None
    if _PRINTABLE.fullmatch(token) is None:
        raise InvalidToken("the token holds characters that no token has")
    return token.decode("ascii")
