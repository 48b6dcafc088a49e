"""Lengths of time and sizes as admins write them: `90s`, `30m`, `1h`, `7d`; `5GiB`."""

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_BYTES = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def seconds(text: str) -> int:
    """Of a text that `schema.DURATION` has let through."""
    return int(text[:-1]) * _SECONDS[text[-1]]


def size_bytes(text: str) -> int:
    """Of a text that `schema.SIZE` has let through."""
    return int(text[:-3]) * _BYTES[text[-3:]]
