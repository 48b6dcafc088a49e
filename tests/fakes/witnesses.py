"""Witnesses without a network: the real witness over a real folder, and ways to misbehave."""

import hashlib

import anyio

from secure_cache.core.witness import Witness
from secure_cache.core.witness_book import WitnessBook
from secure_cache.core.witness_http import Answer
from secure_cache.model.errors import Denied, LogInconsistent, Malformed, NotFound, Unavailable
from secure_cache.tlog.cosignature import Ed25519Cosigner
from secure_cache.tlog.witness import KnownLog, OtherSize
from secure_cache.tlog.witness_policy import WitnessPolicy
from secure_cache.tlog.witness_wire import AddCheckpoint, write_cosignatures, write_size

NOW = 1_700_000_000.0


def cosigner_of(name):
    return Ed25519Cosigner(f"{name}.example.com", hashlib.sha256(name.encode()).digest())


def make_witness(folder, signer, name="w1", *, clock=lambda: NOW, tell=None):
    folder.mkdir(parents=True, exist_ok=True)
    return Witness(
        logs=[KnownLog(signer.name, (signer.verifier,))],
        cosigners=[cosigner_of(name)],
        book=WitnessBook(folder),
        clock=clock,
        tell=tell or (lambda _event, _facts: None),
    )


def policy_of(names, quorum="any", *, log=None):
    """`quorum` of the witnesses called `names`, each at a URL of its name."""
    lines = [f"log {log}\n"] if log else []
    lines += [f"witness {n} {cosigner_of(n).verifier} http://{n}\n" for n in names]
    lines += [f"group all-of-them {quorum} {' '.join(names)}\nquorum all-of-them\n"]
    return WitnessPolicy.parse("".join(lines).encode())


def answer(witness, body):
    """What the witness's HTTP answers, without HTTP."""
    try:
        result = witness.add_checkpoint(AddCheckpoint.parse(body))
    except NotFound:
        return Answer(404, b"")
    except Denied:
        return Answer(403, b"")
    except Malformed:
        return Answer(400, b"")
    except LogInconsistent:
        return Answer(422, b"")
    if isinstance(result, OtherSize):
        return Answer(409, write_size(result.size))
    return Answer(200, write_cosignatures(result))


class Network:
    """`AsksWitnesses` over witnesses in this process.

    Attributes:
        witnesses: by name.
        dead: refuse every connection.
        silent: take a request and never answer.
        lies: answer with this, whatever is asked; a function of the honest answer may be given.
        asked: (name, what) of every request.
    """

    def __init__(self, witnesses):
        self.witnesses = dict(witnesses)
        self.dead = set()
        self.silent = set()
        self.lies = {}
        self.asked = []

    async def submit(self, url, body):
        name = url.removeprefix("http://")
        await self._reach(name, "submit")
        honest = answer(self.witnesses[name], body)
        lie = self.lies.get(name)
        return honest if lie is None else lie(honest) if callable(lie) else lie

    async def shown(self, url, path):
        name = url.removeprefix("http://")
        await self._reach(name, "shown")
        lie = self.lies.get(f"{name} shown")
        if lie is not None:
            return lie
        note = self.witnesses[name]._book.shown(path.removesuffix("/checkpoint"))
        return Answer(404, b"") if note is None else Answer(200, note)

    async def _reach(self, name, what):
        self.asked.append((name, what))
        if name in self.dead:
            raise Unavailable("connection refused")
        if name in self.silent:
            await anyio.sleep_forever()
        await anyio.lowlevel.checkpoint()
