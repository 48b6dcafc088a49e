"""Processes that open a new index at the very same moment, again and again; prints what went
wrong."""

import multiprocessing
import sys
import tempfile
from pathlib import Path

from secure_cache.audit.index import AuditIndex
from secure_cache.model.errors import SecureCacheError


def open_one(path, start, said):
    start.wait()
    try:
        index = AuditIndex.open(Path(path))
        index.count()
        index.close()
    except SecureCacheError as error:
        said.put(f"{type(error).__name__}: {error}")
    else:
        said.put("")


def main() -> None:
    rounds, processes = map(int, sys.argv[1:])
    fork = multiprocessing.get_context("fork")
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            start, said = fork.Barrier(processes), fork.SimpleQueue()
            arguments = (f"{folder}/index.sqlite", start, said)
            group = [fork.Process(target=open_one, args=arguments) for _ in range(processes)]
            for process in group:
                process.start()
            for process in group:
                process.join()
                print(said.get())


if __name__ == "__main__":
    main()
