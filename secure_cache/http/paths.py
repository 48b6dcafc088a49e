"""Which cache key a request means, read from the raw path and from nothing else.

All ASGI servers hand a handler the decoded path, in which `%2e%2e`, `%00`, `//` and a trailing
slash can make one key look like another. The raw path must be the one canonical spelling.
"""

from secure_cache.model.errors import Malformed
from secure_cache.model.names import Key, parse_key

CACHE_PREFIX = "/v1/cache/"


def cache_key(raw_path: bytes, *, nx_only: bool = False) -> Key:
    """The key of `/v1/cache/{key}`.

    One doubled slash before `v1` is accepted, because the Nx client joins its server setting
    and the path as they are, and many people end the setting with a slash.

    Raises:
        Malformed: any other spelling.
    """
    try:
        path = raw_path.decode("ascii")
    except UnicodeDecodeError as error:
        raise Malformed("the path is not ASCII") from error
    if path.startswith("//v1/"):
        path = path[1:]
    if not path.startswith(CACHE_PREFIX):
        raise Malformed("the path is not /v1/cache/{hash} in its plain spelling")
    try:
        return parse_key(path[len(CACHE_PREFIX) :], nx_only=nx_only)
    except ValueError as error:
        raise Malformed(str(error)) from error
