"""A log in memory or in a folder, made by the real code, for tests to read and to tamper with."""

import hashlib
import os

import anyio
import anyio.lowlevel

from secure_cache.storage.memory import AlwaysTurn, MemoryStore
from secure_cache.tlog.log import LogOptions, LogService, create_log
from secure_cache.tlog.note import Ed25519NoteSigner
from secure_cache.tlog.pending import BatchName, encode_batch
from secure_cache.tlog.sequencer import Sequencer
from secure_cache.tlog.writer import WriterLimits

ORIGIN = "cache.example.com/manifest/2026"
SIGNER = Ed25519NoteSigner(ORIGIN, hashlib.sha256(b"tloglab log key").digest())
EAGER = LogOptions(commit_seconds=0.001, poll_seconds=0.01)


def stores_of(store):
    """The log's stores: those given, or the one that is all of them, as on a file system."""
    return store if isinstance(store, dict) else dict.fromkeys(("tiles", "head", "pending"), store)


async def new_log(store=None, *, options=EAGER, turn=None, **arguments):
    """An empty log; `store` serves as all its stores, unless it is a dict of them."""
    store = MemoryStore() if store is None else store
    await create_log(**stores_of(store), signer=SIGNER, clock=lambda: 1e9, random_bytes=os.urandom)
    return open_log(store, options=options, turn=turn, **arguments)


def open_log(store, *, options=EAGER, turn=None, **arguments):
    return LogService(
        **stores_of(store),
        signer=SIGNER,
        turn=turn or AlwaysTurn(),
        options=options,
        **arguments,
    )


async def grown_log(store, sizes, *, entry=lambda i: b"record %d" % i):
    """A log that was published at each of `sizes`."""
    log = await new_log(store, options=LogOptions(writer=WriterLimits(batch_entries=4096)))
    await grow(log, sizes, entry=entry)
    return log


async def grow(log, sizes, *, entry=lambda i: b"record %d" % i):
    async with log.running():
        for size in sizes:
            first = (await log.published()).size
            async with anyio.create_task_group() as group:
                for index in range(first, size):
                    group.start_soon(log.append, entry(index))
                    if index % 512 == 511:
                        await anyio.lowlevel.checkpoint()
            assert await log.flush(60)
            assert (await log.published()).size == size


def sequencer_of(store, **arguments):
    """One replica's sequencer, to be stepped by hand."""
    return Sequencer(
        **stores_of(store),
        signer=arguments.pop("signer", SIGNER),
        clock=arguments.pop("clock", lambda: 1e9),
        new_nonce=lambda: os.urandom(16).hex(),
        **arguments,
    )


BOOT = "0" * 31 + "1"


async def put_batch(store, sequence, leaves, *, boot=BOOT):
    """A durable batch, as a writer leaves it."""
    name = str(BatchName(boot, sequence))
    await store.create(name, encode_batch(leaves))
    return name


async def finish(sequencer):
    while await sequencer.step():
        pass


async def until(condition):
    """Wait for something that no event tells of; the test's own timeout ends it."""
    while not condition():  # noqa: ASYNC110
        await anyio.sleep(0.001)
