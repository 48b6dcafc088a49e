"""Figures of the filesystem store on this machine's disk: `python bench/storage.py [FOLDER]`.

Run it where the data will live; a tmpfs flatters fsync. Compare figures of one run only.
"""

import asyncio
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from functools import partial
from pathlib import Path

import uvloop

from secure_cache.model.errors import NotFound
from secure_cache.storage.filesystem import FilesystemStore

KIB = 1024
MIB = 1024 * KIB
BODY = os.urandom(MIB)
PIECES = [BODY[start : start + 64 * KIB] for start in range(0, MIB, 64 * KIB)]


async def rate(
    label: str, total: int, parallel: int, one: Callable[[int], Awaitable[object]]
) -> float:
    """Run `one` for each number below `total`, `parallel` at a time, and print how fast."""
    numbers = iter(range(total))

    async def work() -> None:
        for number in numbers:
            await one(number)

    begun = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(parallel):
            tasks.create_task(work())
    seconds = time.perf_counter() - begun
    print(f"{label:44} x{parallel:<3} {total / seconds:10,.0f}/s {seconds / total * 1e6:10.1f} us")
    return total / seconds


def report(label: str, megabytes: float, begun: float) -> None:
    print(f"{label:44}      {megabytes / (time.perf_counter() - begun):10,.0f} MB/s")


async def look_up(store: FilesystemStore) -> None:
    names = [f"demo/branch/{'a' * 64}/{hashlib.sha256(b'%d' % n).hexdigest()}" for n in range(256)]
    infos = [await store.create(name, BODY[: 4 * KIB]) for name in names]

    async def miss(number: int) -> None:
        try:
            await store.head(names[number % 256] + "x")
        except NotFound:
            return

    await rate("miss", 50_000, 1, miss)
    await rate("head", 50_000, 1, lambda n: store.head(names[n % 256]))
    await rate("get 4 KiB", 50_000, 1, lambda n: store.get(names[n % 256], max_bytes=MIB))
    await rate(
        "get_if_changed, unchanged",
        50_000,
        1,
        lambda n: store.get_if_changed(
            names[n % 256], version=infos[n % 256].version, max_bytes=MIB
        ),
    )


async def write(store: FilesystemStore) -> None:
    async def upload(size: int, lead: str, number: int) -> None:
        async with store.begin_upload(f"{lead}/{number}") as incoming:
            for start in range(0, size, 64 * KIB):
                await incoming.write(PIECES[start // (64 * KIB) % 16][: size - start])
            await incoming.commit(size=size)

    small = BODY[: 4 * KIB]
    await rate("create 4 KiB", 1000, 1, lambda n: store.create(f"one/{n}", small))
    await rate("create 4 KiB", 6000, 16, lambda n: store.create(f"many/{n}", small))
    await rate("upload 4 KiB", 6000, 16, partial(upload, 4 * KIB, "small"))
    await rate("upload 1 MiB", 300, 16, partial(upload, MIB, "mid"))
    info = await store.create("head", small)

    async def replace(_number: int) -> None:
        nonlocal info
        info = await store.replace("head", small, expected=info.version)

    await rate("replace 4 KiB", 1000, 1, replace)
    begun = time.perf_counter()
    for number in range(3):
        await upload(100 * MIB, "large", number)
    report("upload 100 MiB, one stream", 300 * MIB / 1e6, begun)


async def read(store: FilesystemStore) -> None:
    async def whole(name: str, _number: int) -> None:
        async with store.open(name) as reading, aclosing(reading.chunks()) as chunks:
            async for _chunk in chunks:
                pass

    for label, name, size, total in (
        ("read 4 KiB", "many/1", 4 * KIB, 20_000),
        ("read 1 MiB", "mid/1", MIB, 2000),
        ("read 100 MiB", "large/1", 100 * MIB, 20),
    ):
        for parallel in (1, 16):
            speed = await rate(label, total, parallel, partial(whole, name))
            print(f"{'':44}      {speed * size / 1e6:10,.0f} MB/s")


async def main(folder: Path) -> None:
    store = FilesystemStore(folder)
    await store.check()
    for part in (look_up, write, read):
        await part(store)
    await store.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if sys.argv[1:] else "/var/tmp") as scratch:
        uvloop.run(main(Path(scratch)))
