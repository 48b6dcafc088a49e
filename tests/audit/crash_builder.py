"""A process that builds an index of a folder's log, to be killed; prints each step."""

import sys
from pathlib import Path

import anyio
from fakes.logs import ORIGIN, SIGNER

from secure_cache.audit import building
from secure_cache.audit.index import AuditIndex
from secure_cache.storage.filesystem import FilesystemStore
from secure_cache.tlog.published import LogReader


def main() -> None:
    path, folder, batch, apart = sys.argv[1:]
    building.BATCH_ENTRIES = int(batch)
    store = FilesystemStore(Path(folder))
    log = LogReader(
        tiles=store, head=store, pending=store, verifiers=[SIGNER.verifier], origin=ORIGIN
    )
    index = AuditIndex.open(Path(path), segment=64)

    async def build() -> None:
        await index.catch_up(
            log, progress=lambda done, _: print(done, flush=True), apart=apart == "apart"
        )

    print("begun", flush=True)
    anyio.run(build)
    print("done", flush=True)


if __name__ == "__main__":
    main()
