"""Our speed beside nginx with DAV and turborepo-remote-cache, in one run, as ratios to nginx.

    make bench
    .venv/bin/python bench/run.py [--seconds 2] [--rounds 2] [--json FILE] [--strict]

All servers run the whole time and are measured in turn, row by row and round by round, so that
what else the machine does hits all of them alike; of the rounds the median counts. About two
minutes, a few gigabytes of disk, loopback only.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from load import CONNECTIONS, LOADS, Load, prepare, run
from servers import MissingError, Running, nginx, secure_cache, turborepo_remote_cache

Figures = dict[tuple[str, str], float]
BASE = "nginx + DAV"
NEEDED_BYTES = 12 << 30


@contextlib.contextmanager
def _servers(scratch: Path) -> Iterator[list[Running]]:
    started: list[Running] = []
    try:
        started.append(nginx(scratch / "nginx"))
        for workers in (1, 2):
            directory = scratch / f"ours-{workers}"
            started.append(secure_cache(directory, workers))
        started.append(turborepo_remote_cache(scratch / "turborepo"))
        yield started
    finally:
        for server in started:
            server.stop()


def _check_room(scratch: Path) -> None:
    if shutil.disk_usage(scratch).free < NEEDED_BYTES:
        raise MissingError(f"{scratch} needs {NEEDED_BYTES >> 30} GiB of free disk")


def measure(servers: list[Running], scratch: Path, seconds: float, rounds: int) -> Figures:
    """The median of each load on each server."""
    figures: Figures = {}
    unique = 0
    for load in LOADS:
        print(f"  {load.name} ...", file=sys.stderr)
        taken: dict[str, list[float]] = {server.name: [] for server in servers}
        for server in servers:
            prepare(server, load, scratch)
        for _ in range(rounds):
            for server in servers:
                unique += 1
                taken[server.name].append(run(server, load, scratch, seconds, unique))
        for name, values in taken.items():
            figures[load.name, name] = statistics.median(values)
    return figures


def table(figures: Figures, names: list[str]) -> str:
    """A Markdown table: each figure, and its ratio to nginx in the same run."""
    head = ["", *names, "prototype", "goal", "reached"]
    rows = [_row(load, figures, names) for load in LOADS]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in [head, rule, *rows]
    )


def _row(load: Load, figures: Figures, names: list[str]) -> list[str]:
    base = figures[load.name, BASE]
    cells = [
        f"{figures[load.name, name]:,.0f} {load.unit}"
        + ("" if name == BASE else f" ({figures[load.name, name] / base:.3f})")
        for name in names
    ]
    return [
        load.name,
        *cells,
        f"{load.prototype:.3f}",
        f"{load.goal:.3f}",
        "yes" if best(load, figures) >= load.goal else "no",
    ]


def best(load: Load, figures: Figures) -> float:
    """Our better ratio to nginx: one worker or two, as an operator may choose."""
    ours = [
        value
        for (row, name), value in figures.items()
        if row == load.name and name.startswith("secure-cache")
    ]
    return max(ours) / figures[load.name, BASE]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="of one measurement")
    parser.add_argument("--rounds", type=int, default=2, help="of each measurement")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--strict", action="store_true", help="exit 1 if a goal is not reached")
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="secure-cache-bench-"))
    try:
        _check_room(scratch)
        with _servers(scratch) as servers:
            figures = measure(servers, scratch, options.seconds, options.rounds)
            names = [server.name for server in servers]
    except MissingError as missing:
        print(f"bench: {missing}", file=sys.stderr)
        return 2
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(f"{os.cpu_count()} cores, loopback, {CONNECTIONS} connections; in brackets: over nginx.")
    print("Ours with authentication, policy, signing and log; nginx compares a token, no more.")
    print()
    print(table(figures, names))
    if options.json is not None:
        flat = [{"load": load, "server": name, "value": v} for (load, name), v in figures.items()]
        options.json.write_text(json.dumps(flat, indent=2) + "\n")
    reached = all(best(load, figures) >= load.goal for load in LOADS)
    return 1 if options.strict and not reached else 0


if __name__ == "__main__":
    raise SystemExit(main())
