"""One process of the hammer: appends, and prints each entry after it was acknowledged."""

import sys
from pathlib import Path

import anyio
from fakes.logs import open_log

from secure_cache.storage.filesystem import FilesystemStore
from secure_cache.storage.locks import FlockTurn
from secure_cache.tlog.log import LogOptions

CLIENTS = 16


async def append(log, name, client):
    number = 0
    while True:
        entry = f"{name} {client} {number}"
        await log.append(entry.encode())
        sys.stdout.write(entry + "\n")
        sys.stdout.flush()
        number += 1


async def main(folder, name):
    store = FilesystemStore(folder)
    await store.check()
    log = open_log(
        store,
        turn=FlockTurn(folder.parent / "sequencer.lock"),
        options=LogOptions(commit_seconds=0.01, poll_seconds=0.05, rewrite_equal=True),
    )
    await log.check()
    async with log.running(), anyio.create_task_group() as group:
        for client in range(CLIENTS):
            group.start_soon(append, log, name, client)


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), sys.argv[2])
