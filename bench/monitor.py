"""How fast the monitor judges a large log at its first look.

    make bench-monitor
    .venv/bin/python bench/monitor.py [--entries 200000] [--folder DIR] [--json FILE]

A log of that many signed entries is written into a folder, in the form of a mirror (kept there when
--folder names one). Then it is judged from its start by `audit monitor`'s own code: each bundle
proved under the root, each statement parsed, each signature verified, each entry held to rules of
the usual size. Once by all cores, as the command does it; once more the examining alone, by one
core, which says what bounds it.
"""

import argparse
import json
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import anyio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from synthetic_log import SIGNER, leaves, signed_by, write_log

from secure_cache.audit.watch_examine import Examiner
from secure_cache.audit.watch_rules import WatchRules
from secure_cache.audit.watch_signatures import SigningKeys
from secure_cache.client.mirror_folder import PINS, Pins, put
from secure_cache.client.monitor_state import opened_state
from secure_cache.compose.log_source import LogPlace
from secure_cache.compose.monitoring import Looked, look
from secure_cache.model.clock import system_clock
from secure_cache.provenance.algorithms import Algorithm, public_pem
from secure_cache.provenance.keys import KeyRing, PublicKey

KEY = Ed25519PrivateKey.from_private_bytes(b"\7" * 32)
RING = KeyRing((PublicKey(Algorithm.ED25519, public_pem(KEY.public_key()), 0),))
GOAL = 10_000
_ONE_CORE = 20_000
RULES = b"""
version: 1
expect:
  - name: main
    issuer: gha
    namespace: ["web:branch/main", "api:branch/main", "mobile:branch/main", "docs:branch/main"]
    tier: trusted
    claims:
      repository_owner_id: "65"
      workflow_ref: "*/.github/workflows/ci.yml@refs/heads/main"
    max_size: 5GiB
  - name: releases
    issuer: gha
    namespace: "*:branch/release-*"
    claims: { ref_protected: "true" }
  - { name: pull requests, issuer: gha, namespace: "*:pr/*", tier: contributor, max_size: 5GiB }
  - name: branches
    issuer: gha
    namespace: "*:branch/feature-*"
    tier: contributor
    claims: { repository: "acme/*" }
    hours: { mon-sun: "00:00-24:00" }
ignore: [policy-changed]
"""


class Counting:
    """Takes alerts, and looks at none."""

    def __init__(self) -> None:
        self.alerts = 0

    def show(self, alerts: list[dict[str, Any]]) -> None:
        self.alerts += len(alerts)

    def post(self, alerts: list[dict[str, Any]]) -> None:
        pass


def make(folder: Path, count: int) -> None:
    """A mirror of a log that the key has signed."""
    write_log(folder, count, signed_by(KEY))
    pins = Pins(v=1, origin=SIGNER.name, vkeys=(str(SIGNER.verifier),), source="bench")
    put(folder / PINS, pins.encode())


def judge(folder: Path, state: Path) -> tuple[Looked, float, float]:
    """What a first look found; seconds of the clock, and of all processes together."""
    place = LogPlace(mirror=folder, keys=RING)
    rules = WatchRules.parse(RULES, name="rules.yaml")

    async def first_look() -> Looked:
        with opened_state(state) as file:
            return await look(place, rules, file, Counting(), begin=0, clock=system_clock)

    begun, cpu = time.perf_counter(), _cpu()
    found = anyio.run(first_look)
    return found, time.perf_counter() - begun, _cpu() - cpu


def examine(count: int) -> float:
    """Entries a second of CPU that one process examines."""
    made = list(leaves(count, seal=signed_by(KEY)))
    examiner = Examiner(
        WatchRules.parse(RULES, name="rules.yaml"), SigningKeys(RING), int(time.time())
    )
    begun = time.process_time()
    found = examiner.examine(0, made)
    seconds = time.process_time() - begun
    if found.alerts:
        raise SystemExit(f"an entry was not expected: {found.alerts[0].sentence}")
    return len(made) / seconds


def _cpu() -> float:
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--entries", type=int, default=200_000)
    parser.add_argument("--folder", type=Path, help="where the log is, or is to be kept")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--strict", action="store_true", help="exit 1 if the goal is not reached")
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="secure-cache-monitor-", dir="/var/tmp"))
    try:
        folder = options.folder or scratch / "log"
        if not (folder / PINS).exists():
            print(f"  writing and signing {options.entries:,} entries ...", file=sys.stderr)
            make(folder, options.entries)
        print("  judging ...", file=sys.stderr)
        found, seconds, cpu = judge(folder, scratch / "state.json")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if found.alerts or found.broken is not None:
        raise SystemExit(f"{found.alerts} alerts in a log that is in order: {found.broken}")
    figures = {
        "entries": found.judged,
        "entries_per_second": round(found.judged / seconds),
        "cpu_us_per_entry": round(1e6 * cpu / found.judged, 1),
        "cores_busy": round(cpu / seconds, 2),
        "examined_per_second_of_one_core": round(examine(_ONE_CORE)),
        "goal_entries_per_second": GOAL,
    }
    print(json.dumps(figures, indent=1))
    if options.json is not None:
        options.json.write_text(json.dumps(figures) + "\n")
    return 1 if options.strict and figures["entries_per_second"] < GOAL else 0


if __name__ == "__main__":
    raise SystemExit(main())
