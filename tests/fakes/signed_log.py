"""A log of signed statements, as a server shows it: growing, going back, lying."""

import functools
import hashlib
from collections import Counter

import anyio.lowlevel
from fakes.audit import leaf_of, leaf_of_event, numbered
from fakes.statements import done, ed25519_signer, ring_for

from secure_cache.model.digest import Digest
from secure_cache.model.errors import NotFound
from secure_cache.provenance.event import KeysChanged, PolicyTookEffect
from secure_cache.tlog.checkpoint import Checkpoint, sign_checkpoint
from secure_cache.tlog.commit import grow
from secure_cache.tlog.edge import Edge
from secure_cache.tlog.fetched import Trust
from secure_cache.tlog.note import Ed25519NoteSigner

ORIGIN = "cache.example.com/manifest/2026"
LOG_KEY = Ed25519NoteSigner(ORIGIN, hashlib.sha256(b"signed log").digest())
OTHER_LOG_KEY = Ed25519NoteSigner(ORIGIN, hashlib.sha256(b"another log").digest())
TRUST = Trust((LOG_KEY.verifier,), ORIGIN)
SIGNER = ed25519_signer(1)


class SignedLog:
    """Begins with its keys and a policy. `files` is what it shows; `lies` stand before them.

    Attributes:
        ring: the document that is given for whatever digest.
        policies: texts by digest.
        asked: how often each path was fetched.
    """

    def __init__(self, *, signer=LOG_KEY, entry_signer=SIGNER):
        self.signer = signer
        self.entry_signer = entry_signer
        self.leaves = []
        self.lies = {}
        self.asked = Counter()
        self.policies = {}
        self.ring = b""
        self.announce(ring_for(entry_signer))
        self.add_policy(b"version: 1\n")

    def announce(self, ring, *, by=None):
        self.ring = ring.encode()
        self.leaves.append(leaf_of_event(KeysChanged(ring.digest), signer=by or self.entry_signer))
        self.publish()

    def add_policy(self, text):
        digest = Digest.of(text)
        self.policies[str(digest)] = text
        self.leaves.append(
            leaf_of_event(PolicyTookEffect(digest, 1, None), signer=self.entry_signer)
        )
        self.publish()

    def grow_to(self, size, *, start=0):
        first = len(self.leaves)
        self.leaves += [
            _leaf(start + number, self.entry_signer.keyid) for number in range(first, size)
        ]
        self.publish()
        return self

    def publish(self):
        growth = grow(Edge.empty(), b"", self.leaves)
        self.tree = dict(growth.objects)
        checkpoint = Checkpoint(ORIGIN, len(self.leaves), growth.root)
        self.files = {**self.tree, "checkpoint": done(sign_checkpoint(checkpoint, self.signer))}

    async def fetch(self, path):
        await anyio.lowlevel.checkpoint()
        self.asked[path] += 1
        files = {**self.files, **self.lies}
        if path not in files:
            raise NotFound(path)
        if isinstance(files[path], Exception):
            raise files[path]
        return files[path]

    async def ring_for(self, _sha256):
        return self.ring

    async def policy_text(self, sha256):
        if sha256 not in self.policies:
            raise NotFound(f"the policy {sha256} is not kept")
        return self.policies[sha256]


SIGNERS = {signer.keyid: signer for signer in map(ed25519_signer, range(1, 9))}


@functools.cache
def _leaf(number, keyid):
    return leaf_of(numbered(number), SIGNERS[keyid])
