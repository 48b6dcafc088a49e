"""A world of log replicas over one log's stores, in which anything may go wrong between requests.

Real writers and sequencers run in it; only the stores, the clock and the sleeping are simulated.
A seeded scheduler lets one storage request at a time take effect, in random order, with faults:
crash before or after it, reply lost though applied, reply lost and not applied, applied later,
applied a second time later. The world judges: an immutable object never changes, nothing that is
to be kept is deleted, nothing stands in another store than its own, the checkpoint never shrinks,
no two roots are signed for one size, what is acknowledged is in the log exactly once, and an
untouched honest replica never finds the log inconsistent.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import anyio

from secure_cache.model.errors import (
    AlreadyExists,
    Broken,
    NotFound,
    Refused,
    StorageUnavailable,
    Unavailable,
    VersionMismatch,
)
from secure_cache.storage.ports import ObjectInfo, StoredObject
from secure_cache.tlog.checkpoint import Checkpoint
from secure_cache.tlog.create import create_log
from secure_cache.tlog.fsck import fsck
from secure_cache.tlog.note import Ed25519NoteSigner, Note
from secure_cache.tlog.publication import Publications
from secure_cache.tlog.reader import TreeReader, store_fetch
from secure_cache.tlog.sequencer import Sequencer, SequencerLimits
from secure_cache.tlog.writer import PendingWriter, WriterLimits

ORIGIN = "sim.example.com/log"
FAULTS = ("crash before", "crash after", "lost applied", "lost not applied", "later", "twice")


class Judged(AssertionError):
    """The log broke a promise."""


def unavailable(*, applied=None):
    error = StorageUnavailable("simulated")
    error.applied = applied
    return error


PLACES = ("tiles", "head", "pending")
FOLDER = "folder"


def place_of(name: str) -> str:
    """Where an object belongs, spelled out once more for the judge."""
    if name in ("head", "checkpoint"):
        return "head"
    if name.startswith("commit/") or (name.startswith("tile/") and ".p/" not in name):
        return "tiles"
    return "pending"


class Objects:
    """The objects of one store. Every mutation is judged.

    `place` is one of PLACES, or FOLDER: all of them together, as on a file system, where
    objects may be written once more with the bytes that they have.
    """

    def __init__(self, place: str, now: Callable[[], float]):
        self.place = place
        self.stored: dict[str, StoredObject] = {}
        self.immutable: dict[str, bytes] = {}
        self.now = now
        self.versions = 0
        self.judge_checkpoint = must_grow

    def put(self, name, data):
        if self.place not in (FOLDER, place_of(name)):
            raise Judged(f"misplaced: {name} in {self.place}")
        if name.startswith(("tile/", "commit/")) and self.immutable.setdefault(name, data) != data:
            raise Judged(f"immutable {name} was rewritten: tile differs")
        if name == "checkpoint":
            self.judge_checkpoint(self.stored[name].data if name in self.stored else None, data)
        self.versions += 1
        info = ObjectInfo(name, len(data), f"v{self.versions}", self.now())
        self.stored[name] = StoredObject(info, data)
        return info

    def create(self, name, data):
        if name in self.stored:
            raise AlreadyExists(name)
        return self.put(name, data)

    def replace(self, name, data, expected):
        if name not in self.stored or self.stored[name].info.version != expected:
            raise VersionMismatch(name)
        if self.place in ("tiles", "pending"):
            raise Judged(f"immutable {name} in {self.place} was replaced")
        return self.put(name, data)

    def delete(self, name):
        if place_of(name) != "pending":
            raise Judged(f"{name} was deleted, which nobody may")
        return self.stored.pop(name, None) is not None

    def get(self, name):
        if name not in self.stored:
            raise NotFound(name)
        return self.stored[name]

    def list(self, prefix, start_after):
        return [
            self.stored[name].info
            for name in sorted(self.stored)
            if name.startswith(prefix) and name > start_after
        ]


def must_grow(before: bytes | None, note: bytes) -> None:
    if before is not None and size_of(note) <= size_of(before):
        raise Judged(f"the checkpoint went from {size_of(before)} to {size_of(note)}")


def size_of(note: bytes) -> int:
    return Checkpoint.parse(Note.parse(note).unverified_text).size


class PlainStore:
    """The objects, without faults and without turns."""

    def __init__(self, objects: Objects):
        self.objects = objects

    async def perform(self, effect, *, mutates):
        return effect()

    async def head(self, name):
        return (await self.perform(lambda: self.objects.get(name), mutates=False)).info

    async def get(self, name, *, max_bytes):
        return await self.perform(lambda: self.objects.get(name), mutates=False)

    async def get_if_changed(self, name, *, version, max_bytes):
        stored = await self.perform(lambda: self.objects.get(name), mutates=False)
        return None if stored.info.version == version else stored

    async def list(self, prefix, *, start_after=""):
        found = await self.perform(lambda: self.objects.list(prefix, start_after), mutates=False)
        for info in found:
            yield info

    async def create(self, name, data):
        return await self.perform(lambda: self.objects.create(name, data), mutates=True)

    async def replace(self, name, data, *, expected):
        return await self.perform(lambda: self.objects.replace(name, data, expected), mutates=True)

    async def delete(self, name, *, expected=None):
        return await self.perform(lambda: self.objects.delete(name), mutates=True)


@dataclass(eq=False)
class Replica:
    """One process: it lives until a crash."""

    number: int
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    is_dead: bool = False


@dataclass(eq=False)
class Request:
    replica: Replica
    effect: Callable[[], object] | None
    mutates: bool
    reply: asyncio.Future


class ReplicaStore(PlainStore):
    """A store as one replica sees it: every request waits for its turn."""

    def __init__(self, world: "World", replica: Replica, objects: Objects):
        super().__init__(objects)
        self.world = world
        self.replica = replica

    async def perform(self, effect, *, mutates):
        return await self.world.turn(self.replica, effect, mutates=mutates)


class WatchedSigner(Ed25519NoteSigner):
    """Signs, and judges what is signed: one root for one size, ever."""

    def __init__(self, roots: dict[int, bytes]):
        super().__init__(ORIGIN, bytes(32))
        self.roots = roots

    async def sign(self, text):
        checkpoint = Checkpoint.parse(text.decode())
        if self.roots.setdefault(checkpoint.size, checkpoint.root) != checkpoint.root:
            raise Judged(f"fork: two roots signed for {checkpoint.size} entries")
        return await super().sign(text)


class World:
    """One history, all of it a function of the seed."""

    def __init__(
        self,
        seed: int,
        *,
        sequencer=Sequencer,
        replicas=None,
        fanout=4,
        faults=FAULTS,
        fault_rate=None,
    ):
        self.random = random.Random(seed)
        self.now = 1_700_000_000.0
        self.is_one_folder = self.random.random() < 0.5
        folder = Objects(FOLDER, lambda: self.now)
        self.objects = {
            place: folder if self.is_one_folder else Objects(place, lambda: self.now)
            for place in PLACES
        }
        self.sequencer = sequencer
        self.replicas = self.random.randint(1, 5) if replicas is None else replicas
        self.fanout = fanout
        self.faults = faults
        self.fault_rate = self.random.choice((0.01, 0.04, 0.1))
        if fault_rate is not None:
            self.fault_rate = fault_rate
        self.waiting: list[Request] = []
        self.later: list[Callable[[], object]] = []
        self.roots: dict[int, bytes] = {}
        self.signer = WatchedSigner(self.roots)
        self.offered = 0
        self.acked: set[bytes] = set()
        self.failure: BaseException | None = None
        self.crashes = 0
        self.alive: list[Replica] = []

    async def turn(self, replica, effect, *, mutates):
        if replica.is_dead:
            await anyio.sleep_forever()
        reply = asyncio.get_running_loop().create_future()
        self.waiting.append(Request(replica, effect, mutates, reply))
        return await reply

    async def run(self, requests: int) -> None:
        """Play so many requests, then bring everything to rest and judge it."""
        await create_log(
            **self.plain(),
            signer=self.signer,
            clock=lambda: self.now,
            random_bytes=self.random.randbytes,
        )
        async with anyio.create_task_group() as group:
            for number in range(self.replicas):
                self.start(group, number)
            for _ in range(requests):
                await self.settle()
                if self.failure is not None:
                    break
                self.play(group)
            for replica in list(self.alive):
                self.kill(replica)
            await self.settle()
        if self.failure is not None:
            raise self.failure
        await self.judge()

    def plain(self):
        """The stores without faults, one and the same where they are one folder."""
        if self.is_one_folder:
            return dict.fromkeys(PLACES, PlainStore(self.objects["head"]))
        return {place: PlainStore(objects) for place, objects in self.objects.items()}

    def start(self, group, number):
        replica = Replica(number)
        self.alive.append(replica)
        group.start_soon(self.live, replica)

    def kill(self, replica):
        """SIGKILL: what is on its way may still arrive, now or later, or never."""
        replica.is_dead = True
        if replica in self.alive:
            self.alive.remove(replica)
        for request in [r for r in self.waiting if r.replica is replica]:
            self.waiting.remove(request)
            if request.mutates and "later" in self.faults and self.random.random() < 0.3:
                self.later.append(request.effect)
        replica.scope.cancel()

    async def settle(self):
        """Let every task run until all of them wait for the scheduler."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0)
        while loop._ready:  # noqa: ASYNC110 - no event tells that all are waiting
            await asyncio.sleep(0)

    def play(self, group):
        self.now += self.random.random()
        if self.random.random() < 0.002:
            self.sleep_long()
        if len(self.alive) < self.replicas and (not self.waiting or self.random.random() < 0.1):
            self.start(group, self.random.randrange(1_000_000))
        elif self.later and (not self.waiting or self.random.random() < 0.1):
            self.apply_late(self.later.pop(self.random.randrange(len(self.later))))
        elif self.waiting:
            # Mostly real requests: pauses are many, and nothing goes wrong in them.
            real = [request for request in self.waiting if request.effect is not None]
            request = self.random.choice(
                real if real and self.random.random() < 0.9 else self.waiting
            )
            self.waiting.remove(request)
            self.answer(request)

    def sleep_long(self):
        """Long enough for idle boots to be forgotten; no request takes that long."""
        for effect in self.later:
            self.apply_late(effect)
        self.later.clear()
        self.now += self.random.choice((7 * 3600, 30 * 3600))

    def apply_late(self, effect):
        try:
            effect()
        except (AlreadyExists, VersionMismatch, NotFound):
            pass
        except Judged as error:
            self.failure = error

    def answer(self, request):
        if request.effect is None:
            request.reply.set_result(None)
            return
        fault = self.random.choice(self.faults) if self.random.random() < self.fault_rate else ""
        if not request.mutates and fault in ("later", "twice"):
            fault = ""
        if fault in ("crash after", "lost applied"):
            self.apply_late(request.effect)
        if fault in ("crash before", "crash after"):
            self.crashes += 1
            self.kill(request.replica)
        elif fault in ("lost applied", "lost not applied", "later"):
            request.reply.set_exception(unavailable())
        else:
            self.reply(request)
        if fault in ("later", "twice"):
            self.later.append(request.effect)

    def reply(self, request):
        try:
            request.reply.set_result(request.effect())
        except (AlreadyExists, VersionMismatch, NotFound) as error:
            request.reply.set_exception(error)
        except Judged as error:
            self.failure = error

    async def live(self, replica):
        """A process: a writer, some clients, a sequencer."""
        stores = {
            place: ReplicaStore(self, replica, objects) for place, objects in self.objects.items()
        }

        async def pause(_seconds):
            await self.turn(replica, None, mutates=False)

        writer = PendingWriter(
            stores["pending"],
            clock=lambda: self.now,
            random_bytes=self.random.randbytes,
            pause=pause,
            limits=WriterLimits(
                batch_entries=self.random.choice((1, 3, 8)),
                resolve_seconds=self.random.choice((-1.0, 1e9)),
            ),
        )
        sequencer = self.make_sequencer(stores)
        with replica.scope:
            async with anyio.create_task_group() as group:
                group.start_soon(writer.run)
                self.beside(group, sequencer, pause)
                for client in range(self.random.randint(1, 3)):
                    group.start_soon(self.append, replica, writer, client, pause)
                while True:
                    await self.watched(self.step(sequencer))
                    await pause(0)

    def beside(self, group, sequencer, pause):
        """What else runs in a process."""

    def make_sequencer(self, stores):
        return self.sequencer(**self.arguments_of(stores))

    def arguments_of(self, stores):
        return {
            **stores,
            "signer": self.signer,
            "clock": lambda: self.now,
            "new_nonce": lambda: self.random.randbytes(16).hex(),
            "limits": SequencerLimits(
                batches=self.random.choice((1, 2, 64)), at_once=self.random.choice((1, 2, 16))
            ),
            "rewrite_equal": self.is_one_folder and self.random.random() < 0.5,
            "fanout": self.fanout,
        }

    async def step(self, sequencer):
        try:
            return await sequencer.step()
        except Unavailable:
            return True

    async def append(self, replica, writer, client, pause):
        while True:
            self.offered += 1
            leaf = b"%d of client %d of replica %d" % (self.offered, client, replica.number)
            try:
                await self.watched(writer.append(leaf))
            except Unavailable:
                pass
            else:
                if not replica.is_dead:
                    self.acked.add(leaf)
            while self.random.random() < 0.5:
                await pause(0)

    async def watched(self, work: Awaitable):
        try:
            return await work
        except (Broken, Refused, AssertionError) as error:
            self.failure = self.failure or error
            await anyio.sleep_forever()

    async def judge(self):
        """What is still on its way arrives, an honest replica finishes, an auditor looks."""
        plain = self.plain()
        sequencer = self.make_sequencer(plain)
        while await sequencer.step():
            pass
        for effect in self.later:
            self.apply_late(effect)
        while await sequencer.step():
            pass
        if self.failure is not None:
            raise self.failure
        await check_log(plain, self.signer, acked=self.acked, roots=self.roots, fanout=self.fanout)


async def check_log(stores, signer, *, acked=(), roots=None, fanout=256):
    """Verify the whole log as an auditor who has seen everything that was ever signed.

    `stores` is a dict of the three, or the one that is all of them.
    """
    if not isinstance(stores, dict):
        stores = dict.fromkeys(PLACES, stores)
    publications = Publications(stores["head"], [signer.verifier], origin=signer.name)
    checkpoint = (await publications.read()).checkpoint
    fetch = store_fetch(stores["tiles"], stores["pending"])
    reader = TreeReader(fetch, checkpoint, fanout=fanout)
    entries = [entry async for _, entry in reader.entries()]
    if len(set(entries)) != len(entries):
        raise Judged("duplicate: an entry is in the log twice")
    if not set(acked) <= set(entries):
        raise Judged(f"lost: {len(set(acked) - set(entries))} acknowledged entries")
    for size, root in (roots or {}).items():
        if size > checkpoint.size or await reader.root_at(size) != root:
            raise Judged(f"fork: what was signed at {size} entries is not in the history")
    report = await fsck(**stores, verifiers=[signer.verifier], origin=signer.name, fanout=fanout)
    if report.findings:
        raise Judged("fsck: " + "; ".join(str(finding) for finding in report.findings))
    return entries
