"""Logs of real statements, and what a filter means, said a second time and naively."""

import random
from dataclasses import replace

import anyio
from fakes.logs import new_log
from fakes.statements import ENTRY, ed25519_signer, signed
from hypothesis import strategies as st

from secure_cache.model.digest import Digest
from secure_cache.model.names import Namespace, parse_key
from secure_cache.model.tiers import Tier
from secure_cache.provenance.event import (
    EntryQuarantined,
    EntryRemoved,
    Event,
    KeysChanged,
    LogOpened,
    PolicyTookEffect,
)
from secure_cache.provenance.event_statement import build_event
from secure_cache.provenance.statement import build_statement
from secure_cache.storage.memory import MemoryStore
from secure_cache.tlog.checkpoint import Checkpoint
from secure_cache.tlog.commit import grow
from secure_cache.tlog.edge import Edge
from secure_cache.tlog.merkle import leaf_hash
from secure_cache.tlog.reader import TreeReader
from secure_cache.tlog.tiles import FANOUT

ORIGIN = "cache.example.com/manifest/2026"
SIGNER = ed25519_signer()
DAY = 86_400
T0 = 1_767_225_600  # 2026-01-01


class ListedLog:
    """A log of given leaves: real tiles and proofs of them, and no signature. It may be told to
    lie, in one entry or about how many there are."""

    def __init__(self, leaves, *, origin=ORIGIN, fanout=FANOUT):
        self.origin = origin
        self.leaves = list(leaves)
        self.lies = {}
        self.reads = 0

    @property
    def checkpoint(self):
        edge, _ = Edge.empty().extend([leaf_hash(leaf) for leaf in self.leaves])
        return Checkpoint(self.origin, edge.size, edge.root())

    async def published(self):
        return self.checkpoint

    async def checkpoint_note(self):
        return str(self.checkpoint).encode() + b"\n(signed)\n"

    async def entries(self, start=0, end=None):
        for index, leaf in enumerate(self.leaves[start:end], start):
            self.reads += 1
            await anyio.lowlevel.checkpoint()
            yield index, self.lies.get(index, leaf)

    async def entry(self, index):
        return self.leaves[index]

    async def consistency_proof(self, old, new):
        objects, tail = {}, b""
        edge = Edge.empty()
        growth = grow(edge, tail, self.leaves[:new])
        objects = dict(growth.objects)

        async def fetch(path):
            return objects[path]

        checkpoint = Checkpoint(self.origin, new, growth.root)
        return await TreeReader(fetch, checkpoint).consistency_proof(old, new)


def leaf_of(entry, signer=SIGNER):
    return signed(build_statement(entry), signer)


def leaf_of_event(what, at=T0, signer=SIGNER):
    return signed(build_event(Event(what, at, "secure-cache/0.1.0")), signer)


def numbered(number, **changes):
    """An entry of its own: id, key, digest and time are made from the number."""
    values = {
        "entry_id": f"{number:026d}"[:26],
        "key": parse_key(str(number)),
        "digest": Digest.of(b"%d" % number),
        "stored_at": T0 + number,
        **changes,
    }
    return replace(ENTRY, **values)


def writer(**claims):
    """An identity with these claims beside the usual ones; `subject`, `issuer`, `family` apart."""
    apart = {
        name: claims.pop(name) for name in ("issuer", "iss", "subject", "family") if name in claims
    }
    return replace(
        ENTRY.writer, claims=tuple(sorted({**ENTRY.writer.claim_map, **claims}.items())), **apart
    )


POLICY = PolicyTookEffect(Digest.of(b"policy"), 1, None)
OPENED = LogOpened(ORIGIN, "cache.example.com/manifest/2026+1edde122+AYptTY")
KEYS = KeysChanged(Digest.of(b"ring"), added=("ab" * 32,))
QUARANTINED = EntryQuarantined.of(ENTRY, reason="a bit was flipped")
REMOVED = EntryRemoved.of(ENTRY, line="superseded", replaced_by="01KDYBV6D8000000000000000Y")
EVENTS = (OPENED, POLICY, KEYS, QUARANTINED, REMOVED)
JUNK = (b"junk", b"{}", b'{"payload":"e30=","payloadType":"x","signatures":[]}')


def make_leaf(choice):
    """A leaf from a few small numbers, so that values meet each other often."""
    number, kind, where, who, when, size = choice
    if kind == 0:
        return JUNK[number % len(JUNK)]
    if kind == 1:
        return leaf_of_event(EVENTS[number % len(EVENTS)], T0 + when * DAY // 4)
    namespace = (
        Namespace("demo", "branch", "main"),
        Namespace("demo", "pr", "7"),
        Namespace("other", "pr", "7"),
    )[where]
    who = writer(
        subject=f"sub{who}",
        issuer=("gha", "gitlab")[who % 2],
        actor=f"dev{who}",
        actor_id=f"{who}",
        repository=f"acme/{where}",
        repository_id=f"{where}",
        run_id=f"{who * 10 + when}",
        sha=f"{when:040x}",
    )
    return leaf_of(
        numbered(
            number,
            namespace=namespace,
            tier=Tier(1 + where % 3),
            writer=who,
            stored_at=T0 + when * DAY // 4,
            size=size,
            rule=f"rule{where}",
            policy_sha256=f"{when % 3:064x}",
        )
    )


leaf_choices = st.tuples(
    st.integers(0, 40),
    st.integers(0, 7),
    st.integers(0, 2),
    st.integers(0, 3),
    st.integers(0, 9),
    st.sampled_from([0, 1, 7, 8, 4096, 4 * 1024 * 1024]),
)


def random_leaves(count, seed=1):
    chance = random.Random(seed)
    return [
        make_leaf(
            (
                number,
                chance.choice((0, 1, 2, 3, 4, 5, 6, 7)),
                chance.randrange(3),
                chance.randrange(4),
                chance.randrange(10),
                chance.choice((0, 1, 4096)),
            )
        )
        for number in range(count)
    ]


async def real_log(leaves, store=None):
    """A real log in memory, with these leaves published in it."""
    log = await new_log(MemoryStore() if store is None else store)
    await add_to(log, leaves)
    return log


async def add_to(log, leaves):
    async with log.running():
        for leaf in leaves:
            await log.append(leaf)
        assert await log.flush(60)
