"""How the log scales: the real code of many replicas over a simulated storage account.

    make simulate
    .venv/bin/python bench/simulate.py [--replicas 1,3,8,50] [--latency 5,20,100] [--rate 1000]

What runs is real: `LogService` with its writer, sequencer and turn, over in-memory stores whose
requests take time (`slow_store.py`), on a clock that jumps (`virtual_time.py`). At the end of
each run the log is checked as an auditor would: fsck, and every acknowledged entry exactly once.

The model's assumptions:

- entries of 2 KiB arrive at random (Poisson), each at a random replica, whatever happens: nobody
  slows down when the log does. Only the log's part of an upload is simulated;
- a request takes what `slow_store.Account` says, whatever its size and whatever else goes on.
  The network between a replica and the storage has no limit;
- processors are infinitely fast: what is computed takes no time. One core computes about 20 000
  entries a second in the sequencer, so this flatters up to some thousand entries a second;
- a request takes effect at a random moment within its time, and storage is strongly consistent;
- with `--limit`, requests of the whole account above so many a second get 503, and are repeated
  with jitter as the Azure adapter does, four times;
- with `--deaths`, so many replicas are killed at random moments, in the middle of whatever they do,
  and another with empty hands starts five seconds later.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup
from slow_store import Account, SlowStore
from virtual_time import VirtualLoop

import secure_cache.tlog.sequencer
from secure_cache.compose.bounds import LOG_OF_MANY
from secure_cache.model.errors import Unavailable
from secure_cache.storage import layout
from secure_cache.storage.memory import AlwaysTurn, MemoryStore
from secure_cache.storage.ports import Turn
from secure_cache.tlog.create import create_log
from secure_cache.tlog.fsck import fsck
from secure_cache.tlog.head import Head
from secure_cache.tlog.log import LogOptions, LogService
from secure_cache.tlog.note import Ed25519NoteSigner
from secure_cache.tlog.published import LogReader
from secure_cache.tlog.turn import StoreTurn

ORIGIN = "simulation.example.com/log"
LEAF_BYTES = 2048
DRAIN_SECONDS = 300
EPOCH = 1_700_000_000.0


class WrongLogError(AssertionError):
    """The log of a simulated run is not what it promised to be."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One run.

    Attributes:
        replicas: how many.
        latency: median seconds of a storage request.
        rate: entries a second.
        seconds: how long entries arrive.
        turn: `store`; `none`: everybody sequences; `stuck`: a broken one, which lets some
            believe that the turn is theirs for ever and some that it is lost at once.
        limit: requests a second of the account; 0: none.
        deaths: how many replicas are killed.
        commit_seconds: `log.commit_interval_seconds`.
        at_once: storage requests that a sequencer has under way, in place of ours.
        gap: how far a replica may space its batches, in place of ours.
        seed: of all that is random.
    """

    replicas: int
    latency: float
    rate: float
    seconds: float
    turn: str
    limit: int = 0
    deaths: int = 0
    commit_seconds: float = 1.0
    at_once: int | None = None
    gap: float | None = None
    seed: int = 1

    def options(self) -> LogOptions:
        """What a server on Azure has."""
        ours = LOG_OF_MANY
        at_once = ours.sequencer.at_once if self.at_once is None else self.at_once
        return replace(
            ours,
            commit_seconds=self.commit_seconds,
            max_gap_seconds=ours.max_gap_seconds if self.gap is None else self.gap,
            sequencer=replace(ours.sequencer, at_once=at_once),
        )


@dataclass
class Result:
    """What came of it. Times in seconds, rates per second of the time in which entries arrived."""

    entries: float = 0
    append_p50: float = 0
    append_p99: float = 0
    include_p50: float = 0
    include_p99: float = 0
    commits: float = 0
    lost_swaps: float = 0
    requests_per_entry: float = 0
    account_peak: int = 0
    hottest: str = ""
    hottest_peak: int = 0
    backlog: int = 0
    keeps_up: bool = False
    refused: int = 0
    throttled: int = 0
    operations: dict[str, int] = field(default_factory=dict)


@dataclass(eq=False)
class Replica:
    log: LogService | None = None
    is_dead: bool = False
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)


class StuckTurn:
    """A hint that is wrong as often as right."""

    async def try_take(self) -> bool:
        return int(anyio.current_time()) % 2 == 0

    async def keep(self) -> bool:
        return int(anyio.current_time()) % 3 == 0

    async def give_back(self) -> None:
        """Never mind."""


class Simulation:
    """All replicas of one scene."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.random = random.Random(scene.seed)
        self.account = Account(
            latency=scene.latency,
            limit=scene.limit,
            random=random.Random(scene.seed + 1),
            on_replaced=self.replaced,
        )
        self.memory = {
            "tiles": MemoryStore(immutable=True, clock=self.clock),
            "head": MemoryStore(clock=self.clock),
            "pending": MemoryStore(clock=self.clock),
        }
        self.signer = Ed25519NoteSigner(ORIGIN, bytes(32))
        self.alive: list[Replica] = []
        self.appended: list[float] = []
        self.acked: list[bytes] = []
        self.refused = 0
        self.began: dict[str, list[float]] = {}
        self.committed: list[tuple[float, Head]] = []
        self.published: dict[str, float] = {}
        self.unpublished: list[tuple[int, list[str]]] = []

    def clock(self) -> float:
        return EPOCH + anyio.current_time()

    async def run(self) -> Result:
        scene = self.scene
        await create_log(
            **self.memory, signer=self.signer, clock=self.clock, random_bytes=self.random.randbytes
        )
        async with anyio.create_task_group() as group:
            for _ in range(scene.replicas):
                group.start_soon(self.live)
            group.start_soon(self.kill_some, group)
            await anyio.lowlevel.checkpoint()
            start = anyio.current_time()
            await self.arrive(group)
            elapsed = anyio.current_time() - start
            result = self.measure(elapsed)
            await self.drain()
            self.times(result)
            group.cancel_scope.cancel()
        await self.judge()
        return result

    async def live(self) -> None:
        """One process, until it is killed."""
        replica = Replica()
        self.alive.append(replica)
        stores = {
            name: SlowStore(self.account, memory, lambda: replica.is_dead)
            for name, memory in self.memory.items()
        }
        log = LogService(
            **stores,
            signer=self.signer,
            turn=self.turn(stores["head"]),
            options=self.scene.options(),
            clock=self.clock,
            random_bytes=self.random.randbytes,
        )
        with replica.scope:
            try:
                async with log.running():
                    replica.log = log
                    await anyio.sleep_forever()
            except* Unavailable:
                if not replica.is_dead:
                    raise

    def turn(self, head: SlowStore) -> Turn:
        match self.scene.turn:
            case "store":
                return StoreTurn(head, random_bytes=self.random.randbytes)
            case "none":
                return AlwaysTurn()
            case "stuck":
                return StuckTurn()
        raise ValueError(self.scene.turn)

    async def kill_some(self, group: TaskGroup) -> None:
        for _ in range(self.scene.deaths):
            await anyio.sleep(self.random.expovariate(self.scene.deaths / self.scene.seconds))
            replica = self.random.choice(self.alive)
            self.alive.remove(replica)
            replica.is_dead = True
            replica.scope.cancel()
            await anyio.sleep(5)
            group.start_soon(self.live)

    async def arrive(self, group: TaskGroup) -> None:
        end, number = anyio.current_time() + self.scene.seconds, 0
        while anyio.current_time() < end:
            await anyio.sleep(self.random.expovariate(self.scene.rate))
            ready = [replica for replica in self.alive if replica.log is not None]
            if ready:
                number += 1
                group.start_soon(self.append, self.random.choice(ready), number)

    async def append(self, replica: Replica, number: int) -> None:
        assert replica.log is not None
        leaf = b"%020d" % number + bytes(LEAF_BYTES - 20)
        began = anyio.current_time()
        try:
            logged = await replica.log.append(leaf)
        except Unavailable:
            self.refused += 1
            return
        self.appended.append(anyio.current_time() - began)
        self.acked.append(leaf)
        self.began.setdefault(logged.batch, []).append(began)

    def replaced(self, name: str, data: bytes) -> None:
        """Told of each swap that took effect."""
        now = anyio.current_time()
        if name == layout.HEAD:
            head = Head.decode(data, origin=ORIGIN)
            self.committed.append((now, head))
            self.unpublished.append((head.size, [batch.name for batch in head.batches]))
        elif name == layout.CHECKPOINT:
            size = int(data.split(b"\n")[1])
            for _, names in (done := [item for item in self.unpublished if item[0] <= size]):
                self.published.update(dict.fromkeys(names, now))
            self.unpublished = self.unpublished[len(done) :]

    def measure(self, elapsed: float) -> Result:
        """While entries arrive."""
        account = self.account
        size = self.committed[-1][1].size if self.committed else 0
        busiest = account.busiest(anyio.current_time())
        peak = busiest.pop("account", 0)
        hottest = max(busiest, key=lambda name: busiest[name])
        backlog = len(self.acked) - size
        return Result(
            entries=size / elapsed,
            commits=len(self.committed) / elapsed,
            lost_swaps=account.conflicts[layout.HEAD] / elapsed,
            requests_per_entry=sum(account.requests.values()) / max(1, len(self.acked)),
            account_peak=peak,
            hottest=hottest,
            hottest_peak=busiest[hottest],
            backlog=backlog,
            refused=self.refused,
            throttled=account.throttled,
            operations=dict(account.requests),
        )

    async def drain(self) -> None:
        """Until every acknowledged entry is published."""
        with anyio.fail_after(DRAIN_SECONDS):
            while not self.began.keys() <= self.published.keys():  # noqa: ASYNC110 - no event tells
                await anyio.sleep(0.1)

    def times(self, result: Result) -> None:
        times = [
            (began, self.published[batch] - began)
            for batch, begans in self.began.items()
            for began in begans
        ]
        waits = [wait for _, wait in times]
        middle, late = (
            [wait for began, wait in times if part <= began / self.scene.seconds < part + 0.25]
            for part in (0.25, 0.75)
        )
        # What keeps up makes nobody wait longer the longer it runs.
        result.keeps_up = _quantiles(late)[0] < 1.2 * _quantiles(middle)[0] + 0.5
        result.append_p50, result.append_p99 = _quantiles(self.appended)
        result.include_p50, result.include_p99 = _quantiles(waits)

    async def judge(self) -> None:
        """Nothing forked, lost or repeated: asked of what is stored, with every proof verified."""
        verifiers = [self.signer.verifier]
        report = await fsck(**self.memory, verifiers=verifiers, origin=ORIGIN)
        if report.findings:
            raise WrongLogError("; ".join(str(finding) for finding in report.findings))
        reader = LogReader(**self.memory, verifiers=verifiers, origin=ORIGIN)
        entries = [entry async for _, entry in reader.entries()]
        if len(set(entries)) != len(entries):
            raise WrongLogError("an entry is in the log twice")
        if not set(self.acked) <= set(entries):
            raise WrongLogError("an acknowledged entry is not in the log")


def _quantiles(values: list[float]) -> tuple[float, float]:
    if not values:
        return 0.0, 0.0
    values = sorted(values)
    return values[len(values) // 2], values[len(values) * 99 // 100]


async def _at_once(function: Callable[..., object], *arguments: object) -> object:
    """In place of a thread, whose end virtual time would not wait for."""
    return function(*arguments)


def simulate(scene: Scene) -> Result:
    """Run one scene. The same scene gives the same result."""
    secure_cache.tlog.sequencer.run_sync = _at_once  # type: ignore[assignment]
    return anyio.run(Simulation(scene).run, backend_options={"loop_factory": VirtualLoop})


def cells(scene: Scene, result: Result) -> dict[str, str]:
    """A row of the table."""
    return {
        "replicas": str(scene.replicas),
        "ms": f"{scene.latency * 1000:.0f}",
        "turn": scene.turn,
        "entries/s": f"{result.entries:,.0f}",
        "append p50 / p99 s": f"{result.append_p50:.2f} / {result.append_p99:.2f}",
        "published p50 / p99 s": f"{result.include_p50:.1f} / {result.include_p99:.1f}",
        "keeps up": "yes" if result.keeps_up else "NO",
        "commits/s": f"{result.commits:.2f}",
        "lost swaps/s": f"{result.lost_swaps:.1f}",
        "requests/entry": f"{result.requests_per_entry:.2f}",
        "account peak/s": f"{result.account_peak:,}",
        "hottest peak/s": f"{result.hottest} {result.hottest_peak}",
        "refused": f"{result.refused:,}",
    }


def numbers(text: str) -> list[float]:
    return [float(word) for word in text.split(",")]


def scenes(options: argparse.Namespace) -> Iterator[Scene]:
    for turn in options.turn.split(","):
        for replicas in options.replicas:
            for latency in options.latency:
                yield Scene(
                    replicas=int(replicas),
                    latency=latency / 1000,
                    rate=options.rate,
                    seconds=options.seconds,
                    turn=turn,
                    limit=options.limit,
                    deaths=options.deaths,
                    commit_seconds=options.commit_seconds,
                    at_once=options.at_once,
                    gap=options.gap,
                    seed=options.seed,
                )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--replicas", type=numbers, default=[1, 3, 8, 50])
    parser.add_argument("--latency", type=numbers, default=[5, 20, 100], help="ms")
    parser.add_argument("--rate", type=float, default=1000, help="entries a second, of all")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument(
        "--turn", default="store", help="store, none, stuck, or several: store,none"
    )
    parser.add_argument("--limit", type=int, default=0, help="requests/s of the account")
    parser.add_argument("--deaths", type=int, default=0)
    parser.add_argument("--commit-seconds", type=float, default=1.0)
    parser.add_argument("--at-once", type=int, help="in place of ours")
    parser.add_argument("--gap", type=float, help="in place of ours")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one object a line")
    options = parser.parse_args()
    for number, scene in enumerate(scenes(options)):
        began = time.perf_counter()
        result = simulate(scene)
        if options.json:
            print(json.dumps(asdict(scene) | asdict(result)), flush=True)
            continue
        row = cells(scene, result)
        if number == 0:
            print(f"| {' | '.join(row)} |\n|{'---|' * len(row)}")
        print(f"| {' | '.join(row.values())} |", flush=True)
        print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
