"""The world of log replicas, with witnesses that each of them asks over a network with faults."""

import asyncio
from contextlib import contextmanager

from fakes.log_world import Judged, PlainStore, ReplicaStore, Request, World, size_of
from fakes.witnesses import answer, cosigner_of, policy_of

from secure_cache.core.contradictions import Contradictions
from secure_cache.core.witness import Witness
from secure_cache.core.witness_http import Answer
from secure_cache.core.witnesses import Profile, Witnesses, WitnessOptions
from secure_cache.model.errors import LogInconsistent, Unavailable
from secure_cache.storage.memory import MemoryStore
from secure_cache.tlog.checkpoint import Checkpoint
from secure_cache.tlog.note import Note
from secure_cache.tlog.published import LogReader
from secure_cache.tlog.witness import KnownLog

NAMES = ("w1", "w2", "w3")
NEVER = 1e9


class MemoryBook:
    """A witness's state, without a disk."""

    def __init__(self):
        self.note = None

    def check(self):
        """It is there."""

    @contextmanager
    def locked(self, _origin):
        yield self

    def read(self):
        return self.note

    def write(self, note):
        self.note = note

    def keep_evidence(self, name, data):
        raise Judged(f"a witness keeps evidence of a {name}")

    def shown(self, _digest):
        return self.note


class Reached:
    """Witnesses as one replica reaches them: every request waits for its turn, and may be lost,
    delayed or repeated. A dead witness is reached by nobody."""

    def __init__(self, world, replica):
        self.world = world
        self.replica = replica

    async def submit(self, url, body):
        witness = self.world.witness(url)
        return await self.perform(url, lambda: answer(witness, body))

    async def shown(self, url, _path):
        book = self.world.witness(url)._book
        return await self.perform(
            url, lambda: Answer(200, book.note) if book.note else Answer(404, b"")
        )

    async def perform(self, url, effect):
        if url in self.world.dead:
            raise Unavailable("connection refused")
        if self.replica is None:
            return effect()
        world = self.world
        if self.replica.is_dead:
            await asyncio.sleep(NEVER)
        reply = asyncio.get_running_loop().create_future()
        world.waiting.append(Request(self.replica, effect, True, reply))
        return await reply


class WitnessedWorld(World):
    """Judges beside all that `World` judges: fail-closed publishes nothing without a quorum, one
    size has one text, and no honest witness ever has reason to complain."""

    def __init__(self, seed, *, profile, witnesses=Witnesses, dead=(), **arguments):
        super().__init__(seed, **arguments)
        self.profile = profile
        self.witnesses_class = witnesses
        self.dead = {f"http://{name}" for name in dead}
        self.policy = policy_of(NAMES, "2")
        self.state = MemoryStore()
        self.cosigned = 0
        self.honest = {
            f"http://{name}": Witness(
                logs=[KnownLog(self.signer.name, (self.signer.verifier,))],
                cosigners=[cosigner_of(name)],
                book=MemoryBook(),
                clock=lambda: self.now,
                tell=self.hear,
            )
            for name in NAMES
        }
        for objects in self.objects.values():
            objects.judge_checkpoint = self.judge_checkpoint

    def witness(self, url):
        return self.honest[url]

    def hear(self, event, facts):
        if event == "witness.cosigned":
            self.cosigned += 1
        elif event in ("witness.claimed", "witness.proved", "witness.refused"):
            raise Judged(f"an honest history, and {event}: {facts}")

    def judge_checkpoint(self, before, note):
        if before is not None:
            old, new = Note.parse(before).unverified_text, Note.parse(note).unverified_text
            if old != new and size_of(note) <= size_of(before):
                raise Judged(f"the checkpoint went from {size_of(before)} to {size_of(note)}")
        text = Checkpoint.parse(Note.parse(note).unverified_text)
        if self.profile is Profile.FAIL_CLOSED and text.size:
            try:
                self.policy.verify(note, log=self.signer.verifier)
            except LogInconsistent as error:
                raise Judged(f"published without a quorum: {error}") from error

    def make_sequencer(self, stores):
        some = stores["head"]
        replica = some.replica if isinstance(some, ReplicaStore) else None
        reader = LogReader(
            **stores,
            verifiers=[self.signer.verifier],
            origin=self.signer.name,
            fanout=self.fanout,
        )
        witnesses = self.witnesses_class(
            policy=self.policy,
            ask=Reached(self, replica),
            head=stores["head"],
            log=reader,
            verifier=self.signer.verifier,
            contradictions=Contradictions(
                state=self.state,
                head=stores["head"],
                log=reader,
                verifier=self.signer.verifier,
                origin=self.signer.name,
            ),
            options=WitnessOptions(profile=self.profile, timeout_seconds=NEVER),
            clock=lambda: self.now,
            tell=self.hear,
        )
        sequencer = self.sequencer(**self.arguments_of(stores), witnesses=witnesses)
        sequencer.asks = witnesses
        return sequencer

    def beside(self, group, sequencer, pause):
        async def refresh():
            while True:
                await self.watched(self.refreshed(sequencer.asks))
                await pause(0)

        group.start_soon(refresh)

    async def refreshed(self, witnesses):
        try:
            await witnesses.refresh()
        except Unavailable:
            return

    async def judge(self):
        await super().judge()
        stores = self.plain()
        if self.dead:
            return
        refreshing = self.make_sequencer(stores).asks
        while await refreshing.refresh():
            pass
        published = PlainStore(self.objects["head"])
        note = (await published.get("checkpoint", max_bytes=1 << 20)).data
        if size_of(note):
            assert len(self.policy.verify(note, log=self.signer.verifier).cosignatures) == len(
                NAMES
            )
