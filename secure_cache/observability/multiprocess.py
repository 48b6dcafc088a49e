"""Where several workers keep their numbers together: a private folder that lives with the server.

This module does not import prometheus_client: that reads the environment once, on import, and
decides for ever. The parent calls `shared_numbers` and gives the environment to its workers.
"""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


@contextmanager
def shared_numbers() -> Iterator[Mapping[str, str]]:
    """The environment that makes workers share their numbers; the folder goes at the end."""
    with tempfile.TemporaryDirectory(prefix="secure-cache-metrics-") as folder:
        yield {VARIABLE: folder}


def forget_worker(environment: Mapping[str, str], pid: int) -> None:
    """Drop the gauges of a worker that ended: its open requests ended with it.

    Its counters stay, because a total must never fall.
    """
    for path in Path(environment[VARIABLE]).glob(f"gauge_live*_{int(pid)}.db"):
        path.unlink(missing_ok=True)
