"""Real replicas over one store: 1, 3 and 8 servers of one worker each, over one Azurite.

    make bench-replicas
    .venv/bin/python bench/replicas.py [--storage azurite|filesystem] [--replicas 1,3,8]

Each client has one connection to one replica and one request at a time. First all put artifacts
of 4 KiB under keys of their own, then all get what was put, each from another replica than the one
that took it. At the end everything that was put must be in the log, and fsck must find nothing.

One machine carries the clients, the replicas and Azurite, which is a single Node.js process, so
this says how replicas bear each other and not how fast Azure is. See docs/replicas.md.
"""

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import httpx
from world.azurite import Azurite
from world.server import Server, wait_until
from world.storage import InAFolder, OnAzurite, Storage

BODY = os.urandom(4096)
CLIENTS = 24
WARM_SECONDS = 2.0
PUBLISHED_SECONDS = 60


@dataclass(frozen=True)
class Figures:
    """Of one number of replicas. Latencies in milliseconds."""

    replicas: int
    puts_per_second: float
    put_p50: float
    put_p99: float
    gets_per_second: float
    get_p50: float
    get_p99: float
    refused: int
    commits: int
    lost_swaps: int
    storage_requests_per_put: float
    processor_servers: float
    processor_storage: float


class Client:
    """One kept connection, one request at a time; HTTP/1.1 as far as it is needed here."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._token = token

    @asynccontextmanager
    async def connected(self) -> AsyncIterator["Client"]:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            yield self
        finally:
            self._writer.close()

    async def request(self, method: str, key: str, body: bytes = b"") -> int:
        """The status, once the whole answer is there."""
        length = f"Content-Length: {len(body)}\r\n" if method == "PUT" else ""
        head = (
            f"{method} /v1/cache/{key} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Authorization: Bearer {self._token}\r\n"
            f"Content-Type: application/octet-stream\r\n{length}\r\n"
        )
        self._writer.write(head.encode() + body)
        lines = (await self._reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
        for line in lines:
            if line.startswith(b"content-length:"):
                await self._reader.readexactly(int(line.partition(b":")[2]))
        return int(lines[0].split()[1])


@dataclass
class Load:
    """What the clients did."""

    seconds: float
    times: list[float]
    refused: int

    @property
    def rate(self) -> float:
        return len(self.times) / self.seconds

    def quantile(self, part: float) -> float:
        times = sorted(self.times)
        return 1000 * times[int(len(times) * part)] if times else 0.0


Request = Callable[[int, int, Client], Awaitable[bool]]
"""Number of the client, number of the request; whether it was answered as it should."""


class Keys:
    """What was put, by each client."""

    def __init__(self) -> None:
        self.stored: list[list[str]] = [[] for _ in range(CLIENTS)]

    @property
    def count(self) -> int:
        return sum(len(keys) for keys in self.stored)

    async def put(self, number: int, round_: int, client: Client) -> bool:
        key = f"{number + 1:04d}{round_:012d}"
        if await client.request("PUT", key, BODY) != 200:
            return False
        self.stored[number].append(key)
        return True

    async def get(self, number: int, round_: int, client: Client) -> bool:
        # The next client put it, by way of the next replica.
        keys = self.stored[(number + 1) % CLIENTS]
        return await client.request("GET", keys[round_ % len(keys)]) == 200


async def _load(ports: list[int], token: str, seconds: float, one: Request) -> Load:
    load = Load(seconds, [], 0)
    begin = time.perf_counter() + WARM_SECONDS
    end = begin + seconds

    async def work(number: int) -> None:
        async with Client(ports[number % len(ports)], token).connected() as client:
            round_ = 0
            while (began := time.perf_counter()) < end:
                is_good = await one(number, round_, client)
                round_ += 1
                if began >= begin and is_good:
                    load.times.append(time.perf_counter() - began)
                load.refused += not is_good

    async with asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(work(number))
    return load


@contextmanager
def fleet(directory: Path, storage: Storage, count: int) -> Iterator[list[Server]]:
    first = Server(directory / "0", storage=storage)
    servers = [first, *(Server(directory / str(n), replica_of=first) for n in range(1, count))]
    try:
        for server in servers:
            server.start()
        yield servers
    finally:
        for server in servers:
            server.kill9()


def measure(
    directory: Path, storage: Storage, count: int, seconds: float, storage_pid: Callable[[], int]
) -> Figures:
    with fleet(directory, storage, count) as servers:
        token = servers[0].token()
        size, keys, ports = servers[0].checkpoint()[0], Keys(), [s.port for s in servers]
        before = [_processor([pid for s in servers for pid in s.processes()]), _of(storage_pid)]
        puts = asyncio.run(_load(ports, token, seconds, keys.put))
        requests = _requests(servers)
        gets = asyncio.run(_load(ports, token, seconds, keys.get))
        after = [_processor([pid for s in servers for pid in s.processes()]), _of(storage_pid)]
        metrics = [_metrics(server) for server in servers]
        elapsed = 2 * (seconds + WARM_SECONDS)
        wait_until(
            lambda: servers[-1].checkpoint()[0] >= size + keys.count, "the log", PUBLISHED_SECONDS
        )
        for server in servers:
            server.stop()
        if (done := servers[0].fsck()).returncode != 0:
            raise SystemExit(f"fsck: {done.stdout}{done.stderr}")
    return Figures(
        replicas=count,
        puts_per_second=puts.rate,
        put_p50=puts.quantile(0.5),
        put_p99=puts.quantile(0.99),
        gets_per_second=gets.rate,
        get_p50=gets.quantile(0.5),
        get_p99=gets.quantile(0.99),
        refused=puts.refused + gets.refused,
        commits=int(_sum(metrics, "secure_cache_log_commit_seconds_count")),
        lost_swaps=int(
            _sum(
                metrics,
                "secure_cache_storage_requests_total{",
                'operation="replace"',
                'store="head"',
                'outcome="version-mismatch"',
            )
        ),
        storage_requests_per_put=requests / max(1, keys.count),
        processor_servers=(after[0] - before[0]) / elapsed,
        processor_storage=(after[1] - before[1]) / elapsed,
    )


def _requests(servers: list[Server]) -> float:
    return _sum([_metrics(server) for server in servers], "secure_cache_storage_requests_total{")


def _metrics(server: Server) -> str:
    return httpx.get(f"{server.url}/metrics", trust_env=False).raise_for_status().text


def _sum(metrics: list[str], *parts: str) -> float:
    lines = [line for text in metrics for line in text.splitlines()]
    return sum(float(line.split()[-1]) for line in lines if all(part in line for part in parts))


def _of(pid: Callable[[], int]) -> float:
    return _processor([pid()] if pid() else [])


def _processor(pids: list[int]) -> float:
    """Seconds of processor time that they have used."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def table(rows: list[Figures]) -> str:
    cells = [
        {
            "replicas": str(row.replicas),
            "PUT/s": f"{row.puts_per_second:,.0f}",
            "PUT p50 / p99 ms": f"{row.put_p50:.0f} / {row.put_p99:.0f}",
            "GET/s": f"{row.gets_per_second:,.0f}",
            "GET p50 / p99 ms": f"{row.get_p50:.1f} / {row.get_p99:.1f}",
            "refused": str(row.refused),
            "commits": str(row.commits),
            "lost swaps (head, turn)": str(row.lost_swaps),
            "storage requests for each PUT": f"{row.storage_requests_per_put:.1f}",
            "cores: servers": f"{row.processor_servers:.2f}",
            "cores: storage": f"{row.processor_storage:.2f}",
        }
        for row in rows
    ]
    lines = [" | ".join(cells[0]), "---|" * len(cells[0]), *(" | ".join(c.values()) for c in cells)]
    return "\n".join(f"| {line} |" if "---" not in line else f"|{line}" for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--storage", choices=["azurite", "filesystem"], default="azurite")
    parser.add_argument("--replicas", default="1,3,8")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each of the two loads")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="secure-cache-bench-"))
    azurite = Azurite(scratch / "azurite") if options.storage == "azurite" else None
    rows = []
    try:
        if azurite is not None:
            azurite.start()
        for count in [int(word) for word in options.replicas.split(",")]:
            print(f"  {count} ...", file=sys.stderr)
            storage = InAFolder() if azurite is None else OnAzurite(azurite)
            directory = scratch / f"fleet-{count}"
            directory.mkdir()
            rows.append(
                measure(
                    directory,
                    storage,
                    count,
                    options.seconds,
                    lambda: azurite.process.pid if azurite and azurite.process else 0,
                )
            )
    finally:
        if azurite is not None:
            azurite.kill9()
        shutil.rmtree(scratch, ignore_errors=True)
    print(f"{os.cpu_count()} cores, {CLIENTS} clients, artifacts of 4 KiB, {options.storage}.\n")
    print(table(rows))
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
