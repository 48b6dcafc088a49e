"""The audit index over a million entries: how fast it is built, asked, and kept up.

    make bench-audit
    .venv/bin/python bench/audit_index.py [--entries 1000000] [--folder DIR] [--json FILE]

1. A log of that many entries is written into a folder (kept there when --folder names one).
2. An index is built of it as `secure-cache audit index rebuild` does, with two processes beside the
   one that reads the log.
3. Every filter is asked for frequent, rare and absent values, alone and together, in both
   directions, and so are counts and groupings; each once, in random order.
4. A server is loaded with PUTs of 4 KiB, in turn with the index following the log and without.

About five minutes and five gigabytes of disk. A busy machine shows in every figure.
"""

import argparse
import json
import random
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import uvloop
from load import LOADS, prepare, run
from servers import secure_cache
from synthetic_log import open_log, write_log

from secure_cache.audit.filters import NAMES, Filter
from secure_cache.audit.index import AuditIndex, remove_index
from secure_cache.audit.queries import PageRequest
from secure_cache.audit.row import Row
from secure_cache.audit.segment import GROUPS
from secure_cache.model.clock import rfc3339

Question = tuple[str, Callable[[], object]]
BUILD_GOAL, QUERY_GOAL_MS, PUT_GOAL = 20_000, 100.0, 0.05
_PUT = next(load for load in LOADS if load.name == "PUT 4 KiB")
_FILTERS = tuple(name for name in NAMES if name not in {"since", "until", "min_size", "max_size"})


@dataclass
class Built:
    """How the building went; seconds of the clock, and of all processes together."""

    seconds: float
    cpu_seconds: float
    entries: int
    file_bytes: int

    @property
    def rate(self) -> float:
        return self.entries / self.seconds


def build(log: Path, path: Path) -> Built:
    """From nothing."""
    remove_index(path)
    index = AuditIndex.open(path)
    begun, cpu = time.perf_counter(), _cpu()
    done = uvloop.run(index.catch_up(open_log(log), apart=True))
    seconds = time.perf_counter() - begun
    index.close()
    return Built(seconds, _cpu() - cpu, done.size, path.stat().st_size)


def _cpu() -> float:
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def questions(index: AuditIndex, chance: random.Random) -> list[Question]:
    """What an auditor may ask, each with its kind."""
    size = index.state().size
    rows = [index.entry(chance.randrange(size)) for _ in range(60)]
    asked: list[Question] = []
    for row in rows:
        for name in _FILTERS:
            value = getattr(row, name, None)
            if value is not None:
                asked += _pages(index, f"filter {name}", {name: [value]}, chance)
        asked += _pages(index, "time", _time(row, chance), chance)
        asked += _pages(index, "size", _sizes(row, chance), chance)
        asked += list(_combined(index, row, chance.choice(rows), chance))
        asked += list(_timelines(index, row, chance))
    for group in GROUPS:
        asked += [(f"group {group}", partial(index.count_by, group))] * 5
    return asked


def _combined(index: AuditIndex, row: Row, other: Row, chance: random.Random) -> Iterator[Question]:
    """Conditions that each have many entries, and together few or none."""
    together = [
        {"subject": [row.subject or "x"], **_time(row, chance)},
        {"tier": ["trusted"], "policy_sha256": [row.policy_sha256 or "0" * 64]},
        {"project": [row.project or "web"], "commit": [other.commit or "x"]},
        {"kind": ["pr"], "rule": ["main"]},
        {"tier": ["contributor"], "actor": [other.actor or "x"], **_sizes(row, chance)},
        {"issuer": ["gha"], "event": ["stored"], "namespace": [row.namespace or "web:branch/main"]},
        {"repository": ["acme/web"], **_time(row, chance), **_sizes(other, chance)},
    ]
    for given in together:
        yield from _pages(index, "combined", given, chance)
        group = chance.choice(list(GROUPS))
        yield "combined group", partial(index.count_by, group, Filter.parse(given))


def _timelines(index: AuditIndex, row: Row, chance: random.Random) -> Iterator[Question]:
    """All time, a quarter and a week, by day or hour; with and without a filter."""
    yield "timeline, all", index.timeline
    since = row.at or 0
    for days in (7, 90):
        time = {"since": [rfc3339(since)], "until": [rfc3339(since + days * 86_400)]}
        name = chance.choice(("project", "subject", "rule", "actor"))
        for given in (time, time | {name: [getattr(row, name) or "x"]}):
            yield f"timeline, {days} days", partial(index.timeline, Filter.parse(given))


def _pages(
    index: AuditIndex, kind: str, given: dict[str, list[str]], chance: random.Random
) -> Iterator[Question]:
    wanted = Filter.parse(given)
    page = PageRequest(newest_first=chance.random() < 0.5)
    yield kind, partial(index.query, wanted, page)
    middle = chance.randrange(index.state().size)
    yield kind, partial(index.query, wanted, replace(page, after=middle))
    yield f"{kind}, counted", partial(index.count, wanted)


def _time(row: Row, chance: random.Random) -> dict[str, list[str]]:
    since = row.at or 0
    return {
        "since": [rfc3339(since)],
        "until": [rfc3339(since + chance.choice((3600, 86_400, 90 * 86_400)))],
    }


def _sizes(row: Row, chance: random.Random) -> dict[str, list[str]]:
    low = row.size or 0
    return {"min_size": [str(low)], "max_size": [str(low * chance.choice((1, 2, 50)))]}


def ask(index: AuditIndex, chance: random.Random) -> dict[str, list[float]]:
    """Milliseconds of each question, by its kind."""
    asked = questions(index, chance)
    chance.shuffle(asked)
    taken: dict[str, list[float]] = {}
    for kind, question in asked:
        begun = time.perf_counter()
        question()
        taken.setdefault(kind, []).append(1000 * (time.perf_counter() - begun))
    return taken


def percentile(values: list[float], part: float) -> float:
    return sorted(values)[min(int(len(values) * part), len(values) - 1)]


@dataclass
class Followed:
    """PUTs a second without the index and with it, one round after the other; what it costs, the
    median over rounds; and how far behind the index was when the last of them ended."""

    without: float
    with_index: float
    cost: float
    behind: int


def follow_cost(scratch: Path, seconds: float, rounds: int) -> Followed:
    servers = []
    taken: dict[str, list[float]] = {"false": [], "true": []}
    try:
        for on in taken:
            server = secure_cache(scratch / f"server-{on}", 2, {"SECURE_CACHE_AUDIT__ENABLED": on})
            servers.append((on, server))
            prepare(server, _PUT, scratch)
        for round_ in range(rounds):
            # In turns: whoever comes second finds the disk busy with what the first one wrote.
            order = servers if round_ % 2 == 0 else servers[::-1]
            for number, (on, server) in enumerate(order):
                unique = 2 * round_ + number
                taken[on].append(run(server, _PUT, scratch, seconds, unique))
        behind = _behind(scratch / "server-true" / "data")
    finally:
        for _, server in servers:
            server.stop()
    without, with_index = taken["false"], taken["true"]
    kept = statistics.median(b / a for a, b in zip(without, with_index, strict=True))
    return Followed(statistics.median(without), statistics.median(with_index), 1 - kept, behind)


def _behind(data: Path) -> int:
    published = int((data / "log" / "checkpoint").read_text().split("\n")[1])
    index = AuditIndex.open(data / "audit" / "index.sqlite")
    indexed = index.state().size
    index.close()
    return published - indexed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where the log is, or is to be kept")
    parser.add_argument("--seconds", type=float, default=8.0, help="of one measurement of PUT")
    parser.add_argument("--rounds", type=int, default=5, help="of PUT")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--skip-put", action="store_true")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--strict", action="store_true", help="exit 1 if a goal is not reached")
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="secure-cache-audit-", dir="/var/tmp"))
    figures: dict[str, float] = {}
    try:
        log = options.folder or scratch / "log"
        if not (log / "checkpoint").exists():
            print(f"  writing a log of {options.entries:,} entries ...", file=sys.stderr)
            write_log(log, options.entries)
        print("  building ...", file=sys.stderr)
        built = build(log, scratch / "index.sqlite")
        _tell_build(built, figures)
        index = AuditIndex.open(scratch / "index.sqlite")
        print("  asking ...", file=sys.stderr)
        taken = ask(index, random.Random(options.seed))
        index.close()
        _tell_queries(taken, figures)
        if not options.skip_put:
            print("  following under load ...", file=sys.stderr)
            _tell_put(follow_cost(scratch, options.seconds, options.rounds), figures)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    reached = (
        figures["build_entries_per_second"] >= BUILD_GOAL
        and figures["query_p99_ms"] <= QUERY_GOAL_MS
        and figures.get("put_cost", 0.0) < PUT_GOAL
    )
    return 1 if options.strict and not reached else 0


def _tell_build(built: Built, figures: dict[str, float]) -> None:
    each = 1e6 * built.cpu_seconds / built.entries
    print(
        f"build: {built.entries:,} entries in {built.seconds:.1f} s = {built.rate:,.0f}/s"
        f" (goal {BUILD_GOAL:,}); {each:.0f} us of CPU each over all processes,"
        f" {built.cpu_seconds / built.seconds:.2f} cores busy;"
        f" {built.file_bytes / built.entries:.0f} bytes each"
    )
    figures["build_entries_per_second"] = built.rate
    figures["build_cpu_us_per_entry"] = each


def _tell_queries(taken: dict[str, list[float]], figures: dict[str, float]) -> None:
    print(f"{'question':28} {'asked':>6} {'p50 ms':>8} {'p99 ms':>8} {'worst':>8}")
    for kind, values in sorted(taken.items(), key=lambda item: -max(item[1])):
        print(
            f"{kind:28} {len(values):6} {percentile(values, 0.5):8.2f}"
            f" {percentile(values, 0.99):8.2f} {max(values):8.2f}"
        )
    every = [value for values in taken.values() for value in values]
    figures["query_p50_ms"] = percentile(every, 0.5)
    figures["query_p99_ms"] = percentile(every, 0.99)
    figures["query_worst_ms"] = max(every)
    print(
        f"all: {len(every)} questions, p50 {figures['query_p50_ms']:.2f} ms,"
        f" p99 {figures['query_p99_ms']:.2f} ms (goal {QUERY_GOAL_MS:.0f})"
    )


def _tell_put(followed: Followed, figures: dict[str, float]) -> None:
    print(
        f"PUT 4 KiB, 2 workers: {followed.without:,.0f}/s without the index,"
        f" {followed.with_index:,.0f}/s with it: it costs {100 * followed.cost:.1f} %"
        f" (goal below {100 * PUT_GOAL:.0f} %); {followed.behind:,} entries behind at the end"
    )
    figures |= {
        "put_without": followed.without,
        "put_with": followed.with_index,
        "put_cost": followed.cost,
        "behind_entries": followed.behind,
    }


if __name__ == "__main__":
    raise SystemExit(main())
