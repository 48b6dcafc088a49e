"""One process of several over one tier folder, for test_tier_folder.py: fills, reads, discards.

Usage: tier_worker.py FOLDER MAX_BYTES SEED ROUNDS
"""

import random
import sys
from functools import partial
from pathlib import Path

import anyio

from secure_cache.storage.tier_folder import TierFolder

NAMES = [f"{number:026d}" for number in range(40)]


def content(name: str) -> bytes:
    return random.Random(name).randbytes(20_000 + int(name) * 3000)


async def work(folder: TierFolder, source: random.Random) -> None:
    name = source.choice(NAMES)
    file = await folder.find(name)
    if file is None:
        data = content(name)
        draft = await folder.begin(name, len(data))
        if draft is None:
            return
        for offset in range(0, len(data), 16_384):
            await draft.write(offset, data[offset : offset + 16_384])
        await (draft.discard() if source.random() < 0.1 else draft.publish())
        draft.close()
        return
    # Published whole or not at all, also while others evict.
    assert await file.read(0, 1 << 20) == content(name)
    if source.random() < 0.05:
        await file.discard()
    file.close()


async def main(path: str, max_bytes: str, seed: str, rounds: str) -> None:
    folder = TierFolder(Path(path), max_bytes=int(max_bytes))
    await folder.prepare()
    source = random.Random(int(seed))
    for _ in range(int(rounds)):
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(work, folder, source)
    await folder.close()


if __name__ == "__main__":
    anyio.run(partial(main, *sys.argv[1:]))
