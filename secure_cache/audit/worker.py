"""The process behind `hands.in_process`: orders on stdin, one reply to each on stdout.

Arguments: the index's path, the rows of a segment, and the niceness. It ends when stdin does.
"""

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import msgspec

from secure_cache.audit.building import Builder, ReadBatch
from secure_cache.audit.hands import LENGTH_BYTES, Order, Reply
from secure_cache.audit.schema import connect, faults_of
from secure_cache.model.errors import SecureCacheError
from secure_cache.tlog.checkpoint import Checkpoint


class Worker:
    """Obeys orders. Reads leaves, or builds; the one who gives orders has a process for each."""

    def __init__(self, path: Path, *, segment: int) -> None:
        self._path = path
        self._segment = segment
        self._builder: Builder | None = None

    def obey(self, order: Order) -> Reply:
        try:
            with faults_of(self._path):
                if order.do == "read":
                    batch = ReadBatch.of(order.first, order.leaves)
                    return Reply(hashes=batch.hashes, rows=batch.rows)
                it = self._build(order)
        except SecureCacheError as error:
            return Reply(error=error.code, text=str(error))
        return Reply(origin=it.origin, size=it.size, root=it.root)

    def _build(self, order: Order) -> Checkpoint:
        if self._builder is None:
            connection = connect(self._path, writing=True)
            self._builder = Builder(connection, segment=self._segment)
        builder = self._builder
        match order.do:
            case "begin":
                return builder.begin()
            case "prepare":
                return builder.prepare(order.origin, ReadBatch(order.hashes, order.rows))
            case "commit":
                builder.commit()
            case "note":
                builder.keep_note(order.note)
        return builder.state.checkpoint


def main(arguments: list[str]) -> int:
    path, segment, niceness = arguments
    with suppress(OSError):
        # A Ctrl-C at a terminal is for the other process, which ends this one in its own time. Not
        # a session: where Linux groups processes by session, priorities count only within one.
        os.setpgid(0, 0)
    with suppress(OSError):
        # A sandbox may refuse it. Then this takes a core from requests now and then.
        os.nice(int(niceness))
    worker = Worker(Path(path), segment=int(segment))
    orders, replies = sys.stdin.buffer, sys.stdout.buffer
    while length := orders.read(LENGTH_BYTES):
        data = _read(orders, int.from_bytes(length, "big"))
        answer = msgspec.msgpack.encode(worker.obey(msgspec.msgpack.decode(data, type=Order)))
        replies.write(len(answer).to_bytes(LENGTH_BYTES, "big") + answer)
        replies.flush()
    return 0


def _read(orders: BinaryIO, length: int) -> bytes:
    data = orders.read(length)
    if len(data) < length:
        # The one who gave orders died in the middle of one.
        raise SystemExit(1)
    return data


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
