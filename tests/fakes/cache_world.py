"""The use-cases over stores that may fail, with real keys, a real log and a real policy."""

import os
from contextlib import AsyncExitStack, asynccontextmanager

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fakes.clock import HeldClock
from fakes.faults import FaultyStore

from secure_cache.core.access import Caller
from secure_cache.core.blocks import BlockLists
from secure_cache.core.catalog import Catalog
from secure_cache.core.get import Get
from secure_cache.core.journal import Journal
from secure_cache.core.put import Body, Put
from secure_cache.core.straight import Straight
from secure_cache.core.telemetry import Silent
from secure_cache.identity.presets import load_presets
from secure_cache.model.identity import Identity
from secure_cache.model.names import Namespace, parse_key
from secure_cache.policy.parse import parse_policy
from secure_cache.provenance.algorithms import Algorithm
from secure_cache.provenance.keys import PublicKey, ring_of
from secure_cache.provenance.signers import Ed25519Signer
from secure_cache.storage.memory import AlwaysTurn, MemoryStore
from secure_cache.tlog.create import create_log
from secure_cache.tlog.log import LogService
from secure_cache.tlog.note import Ed25519NoteSigner

AUDIENCE = "https://cache.acme.example"

POLICY = """\
version: 1
audience: https://cache.acme.example
issuers:
  self: { preset: self }
rulesets:
  standard:
    - { name: main, when: { branch: main }, tier: trusted, write: self, read: [self] }
    - { name: pull-request, when: { pull_request: any }, tier: contributor, write: self,
        read: [branch/main, base, self] }
    - { name: feature, when: { branch: "**" }, tier: contributor, write: self,
        read: [branch/main, self] }
    - { name: developer, when: { role: developer }, tier: contributor, read: [branch/main] }
projects:
  demo: { issuers: [self], ruleset: standard }
"""


class World:
    """One process over six stores. `log_again` makes a second one over the same stores."""

    def __init__(self, stores=None, key=None):
        names = ("artifacts", "records", "tiles", "head", "pending", "state")
        self.stores = stores or {name: FaultyStore(MemoryStore()) for name in names}
        self.clock = HeldClock()
        self.key = key or Ed25519PrivateKey.generate()
        self.signer = Ed25519Signer(self.key)
        self.ring = ring_of(
            [PublicKey(Algorithm.ED25519, self.signer.public_pem, int(self.clock()) - 60)]
        )
        self.note_signer = Ed25519NoteSigner("cache.acme.example/log", b"\7" * 32)
        self.tier = None
        self.edit(POLICY)
        self._assemble()

    def _assemble(self):
        stores = self.stores
        self.log = LogService(
            tiles=stores["tiles"],
            head=stores["head"],
            pending=stores["pending"],
            signer=self.note_signer,
            turn=AlwaysTurn(),
            clock=self.clock,
        )
        self._assemble_over_the_same_log()

    def _assemble_over_the_same_log(self):
        stores = self.stores
        self.journal = Journal(
            log=self.log,
            state=stores["state"],
            signer=lambda: self.signer,
            clock=self.clock,
            server="secure-cache/test",
        )

        async def reload_ring():
            return self.ring

        self.catalog = Catalog(
            records=stores["records"],
            state=stores["state"],
            ring=lambda: self.ring,
            reload_ring=reload_ring,
            clock=self.clock,
            telemetry=Silent(),
        )
        self.lists = BlockLists(1 << 20)
        straight = Straight(stores["artifacts"], self.lists)
        self.get = Get(
            catalog=self.catalog,
            sources=[straight] if self.tier is None else [self.tier, straight],
            journal=self.journal,
            policy=lambda: self.policy,
        )
        self.put = Put(
            catalog=self.catalog,
            artifacts=stores["artifacts"],
            log=self.log,
            journal=self.journal,
            signer=lambda: self.signer,
            policy=lambda: self.policy,
            clock=self.clock,
            random_bytes=os.urandom,
            server="secure-cache/test",
        )

    def edit(self, text):
        """Put another policy in force."""
        self.policy = parse_policy(
            text.encode(), name="policy.yaml", presets=load_presets(), now=self.clock()
        )

    def caller(self, *, family="family", **claims):
        """Somebody with a token of this server, as verified."""
        identity = Identity(
            issuer="self",
            iss=AUDIENCE,
            subject="test",
            claims=tuple(sorted({"prj": "demo", **claims}.items())),
            token_id="0" * 64,
            family=family,
            issued_at=int(self.clock()),
            expires_at=int(self.clock()) + 3600,
        )
        return Caller(identity, self.policy.decide(identity), self.policy)

    async def store(self, caller, key, data, *, blocks=None):
        """A PUT, as the HTTP floor does it."""
        name = parse_key(key)
        await self.put.check(caller, name)

        async def body():
            for start in range(0, len(data), 65536):
                yield data[start : start + 65536]

        return await self.put(caller, name, Body(len(data), blocks or body()))

    async def fetch(self, caller, key):
        """A GET's bytes."""
        async with AsyncExitStack() as stack:
            artifact = await self.get(caller, parse_key(key), stack)
            if artifact.blocks is None:
                return artifact.data
            return b"".join([block async for block in artifact.blocks])

    def namespace(self, text):
        return Namespace.parse(text)


@asynccontextmanager
async def cache_world():
    """A world with a new log that is running."""
    world = World()
    await create_log(
        tiles=world.stores["tiles"],
        head=world.stores["head"],
        pending=world.stores["pending"],
        signer=world.note_signer,
        clock=world.clock,
        random_bytes=os.urandom,
    )
    async with world.log.running():
        yield world
