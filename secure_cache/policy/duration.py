"""Lengths of time as admins write them: `90s`, `30m`, `1h`, `7d`."""

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def seconds(text: str) -> int:
    """Of a text that `schema.DURATION` has let through."""
    return int(text[:-1]) * _SECONDS[text[-1]]
