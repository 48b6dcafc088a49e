"""Time comes in as an argument, so that a test can hold it still."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeAlias

Clock: TypeAlias = Callable[[], float]
"""Seconds since 1970-01-01T00:00:00Z, like `time.time`."""

LEEWAY_SECONDS = 30
"""How far the clock of a token's issuer may be off ours, either way."""


def system_clock() -> float:
    return time.time()


def rfc3339(timestamp: float) -> str:
    """Whole seconds, `2026-01-02T03:04:05Z`."""
    return datetime.fromtimestamp(int(timestamp), tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_rfc3339(text: str) -> int:
    """The inverse of `rfc3339`: accepts exactly what it emits.

    Raises:
        ValueError: `text` is anything else.
    """
    moment = int(datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp())
    if rfc3339(moment) != text:
        raise ValueError("not a canonical RFC 3339 time in UTC")
    return moment
