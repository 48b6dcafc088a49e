"""A large log in a folder, as a server would have written it, made in a minute instead of hours.

Its entries are well-formed statements of ten months of builds, in their envelopes and under a
signed checkpoint. The one thing that is not real is each entry's own signature, unless a key is
given: an index does not verify those, and signing a million takes longer than all the rest.
"""

import asyncio
import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from secure_cache.core.entry_id import new_entry_id
from secure_cache.model.digest import Digest
from secure_cache.model.entry import CHUNK_BYTES, Entry
from secure_cache.model.identity import Identity
from secure_cache.model.names import Namespace, parse_key
from secure_cache.model.tiers import Tier
from secure_cache.provenance.algorithms import key_id
from secure_cache.provenance.dsse import IN_TOTO, Envelope, pae
from secure_cache.provenance.event import Event, PolicyTookEffect
from secure_cache.provenance.event_statement import build_event
from secure_cache.provenance.statement import build_statement
from secure_cache.storage.filesystem import FilesystemStore
from secure_cache.tlog.checkpoint import Checkpoint, sign_checkpoint
from secure_cache.tlog.edge import Edge
from secure_cache.tlog.merkle import leaf_hash
from secure_cache.tlog.note import Ed25519NoteSigner
from secure_cache.tlog.published import LogReader
from secure_cache.tlog.tiles import ENTRIES, FANOUT, encode_bundle, encode_hashes, tile_name

SIGNER = Ed25519NoteSigner("bench.example.com/log", b"\5" * 32)
START = 1_767_225_600  # 2026-01-01
POLICIES = 40
JOBS_AT_ONCE = 8
_KEYID = "5c" * 32

Seal: TypeAlias = Callable[[bytes, random.Random], bytes]
"""From a statement to its envelope."""


@dataclass(frozen=True)
class Job:
    """One CI job: it stores some hundred entries with one token."""

    namespace: Namespace
    tier: Tier
    rule: str
    writer: Identity


def _job(number: int, at: int, chance: random.Random) -> Job:
    project = chance.choices(("web", "api", "mobile", "docs"), (60, 25, 10, 5))[0]
    repository_id = str(7000 + len(project))
    actor = min(int(chance.paretovariate(0.8)), 400)
    kind = chance.choices(("main", "pr", "branch"), (25, 65, 10))[0]
    ref = {"main": "refs/heads/main", "pr": f"refs/pull/{number // 5}/merge"}.get(
        kind, f"refs/heads/feature-{number // 9}"
    )
    namespace = {
        "main": Namespace(project, "branch", "main"),
        "pr": Namespace(project, "pr", str(number // 5 + 1)),
    }.get(kind, Namespace(project, "branch", f"feature-{number // 9}"))
    claims = {
        "actor": f"dev{actor}",
        "actor_id": str(100_000 + actor),
        "event_name": "pull_request" if kind == "pr" else "push",
        "ref": ref,
        "ref_protected": "true" if kind == "main" else "false",
        "ref_type": "branch",
        "repository": f"acme/{project}",
        "repository_id": repository_id,
        "repository_owner": "acme",
        "repository_owner_id": "65",
        "run_attempt": "1",
        "run_id": str(9_000_000_000 + number),
        "run_number": str(number),
        "runner_environment": "github-hosted",
        "sha": hashlib.sha1(b"%d" % (number // 2), usedforsecurity=False).hexdigest(),
        "workflow": "ci",
        "workflow_ref": f"acme/{project}/.github/workflows/ci.yml@{ref}",
    }
    writer = Identity(
        issuer="gha",
        iss="https://token.actions.githubusercontent.com",
        subject=f"repo:acme/{project}:ref:{ref}"
        if kind != "pr"
        else f"repo:acme/{project}:pull_request",
        claims=tuple(sorted(claims.items())),
        token_id=hashlib.sha256(b"token %d" % number).hexdigest(),
        family=None,
        issued_at=at - 20,
        expires_at=at + 280,
    )
    tier = Tier.TRUSTED if kind == "main" else Tier.CONTRIBUTOR
    return Job(namespace, tier, {"main": "main", "pr": "pull-request"}.get(kind, "branch"), writer)


def unsigned(payload: bytes, chance: random.Random) -> bytes:
    """An envelope whose signature nobody made."""
    return Envelope(payload, _KEYID, chance.randbytes(64)).encode()


def signed_by(key: Ed25519PrivateKey) -> Seal:
    """Envelopes that this key signed."""
    keyid = key_id(key.public_key())

    def seal(payload: bytes, _chance: random.Random) -> bytes:
        return Envelope(payload, keyid, key.sign(pae(IN_TOTO, payload))).encode()

    return seal


def leaves(count: int, seed: int = 1, seal: Seal = unsigned) -> Iterator[bytes]:
    """The entries of the log; now and then an event."""
    chance = random.Random(seed)
    jobs = [_job(number, START, chance) for number in range(JOBS_AT_ONCE)]
    made = JOBS_AT_ONCE
    policy = hashlib.sha256(b"policy 0").hexdigest()
    for index in range(count):
        at = START + index * 26  # a million in ten months
        if index % max(count // POLICIES, 1) == 0:
            number = index // max(count // POLICIES, 1)
            policy = hashlib.sha256(b"policy %d" % number).hexdigest()
            yield seal(_policy_event(number, at), random.Random(number))
            continue
        if chance.random() < 0.005:
            jobs[chance.randrange(JOBS_AT_ONCE)] = _job(made, at, chance)
            made += 1
        yield seal(build_statement(_entry(index, at, chance.choice(jobs), policy, chance)), chance)


def _entry(index: int, at: int, job: Job, policy: str, chance: random.Random) -> Entry:
    size = int(chance.lognormvariate(9.5, 2.2))
    return Entry(
        entry_id=new_entry_id(at, chance.randbytes),
        namespace=job.namespace,
        key=parse_key(str(chance.getrandbits(64))),
        tier=job.tier,
        digest=Digest(chance.randbytes(32)),
        size=size,
        chunk_list_digest=Digest(chance.randbytes(32)) if size > CHUNK_BYTES else None,
        stored_at=at + index % 3,
        writer=job.writer,
        rule=job.rule,
        policy_sha256=policy,
        epoch=0,
        server="secure-cache/0.1.0",
    )


def _policy_event(number: int, at: int) -> bytes:
    digests = [Digest.of(b"policy %d" % n) for n in (number - 1, number)]
    what = PolicyTookEffect(digests[1], number + 1, digests[0] if number else None)
    return build_event(Event(what, at, "secure-cache/0.1.0"))


class Writer:
    """Writes a log into a folder, bundle by bundle; `publish` signs what is there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.edge = Edge.empty()
        self._open: list[bytes] = []

    def add(self, entries: list[bytes]) -> None:
        self._open += entries
        hashes = [leaf_hash(entry) for entry in entries]
        first = self.edge.size // FANOUT
        self.edge, tiles = self.edge.extend(hashes)
        for tile in tiles:
            self._write(tile.name, encode_hashes(tile.hashes))
        while self._open:
            part = self._open[:FANOUT]
            self._write(tile_name(ENTRIES, first, len(part)), encode_bundle(part))
            if len(part) < FANOUT:
                return
            del self._open[:FANOUT]
            first += 1

    def publish(self) -> None:
        checkpoint = Checkpoint(SIGNER.name, self.edge.size, self.edge.root())
        self._write("checkpoint", asyncio.run(sign_checkpoint(checkpoint, SIGNER)))

    def _write(self, name: str, data: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def write_log(folder: Path, count: int, seal: Seal = unsigned) -> None:
    """A log of `count` entries."""
    writer, batch = Writer(folder), []
    for leaf in leaves(count, seal=seal):
        batch.append(leaf)
        if len(batch) == 64 * FANOUT:
            writer.add(batch)
            batch = []
    writer.add(batch)
    writer.publish()


def open_log(folder: Path) -> LogReader:
    """As an offline command opens it."""
    store = FilesystemStore(folder)
    return LogReader(
        tiles=store, head=store, pending=store, verifiers=[SIGNER.verifier], origin=SIGNER.name
    )
