"""Whether the log is well, who watches it, and how far the index is behind: one view. Pure.

What is said of witnesses is verified here: a cosignature counts when it is one of the witness's
key over the very checkpoint, and its time is the witness's word.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from secure_cache.model.clock import rfc3339
from secure_cache.model.errors import LogInconsistent, Malformed
from secure_cache.tlog.checkpoint import Checkpoint
from secure_cache.tlog.cosignature import cosignature_time
from secure_cache.tlog.note import Note, Signature
from secure_cache.tlog.witness_policy import PolicyWitness, WitnessPolicy

_LATEST = 253_402_300_799  # 9999-12-31


@dataclass(frozen=True, slots=True)
class WitnessSeen:
    """One witness of the policy.

    Attributes:
        name: in the witness policy.
        key: the name in its vkey.
        vkey: its verifier key, for whoever verifies by himself.
        cosigned_at: when it cosigned the newest checkpoint, seconds since 1970 by its own clock;
            None when it has not.
        fault: its signature is there and wrong.
    """

    name: str
    key: str
    cosigned_at: int | None
    fault: bool = False
    vkey: str = ""

    def document(self) -> dict[str, Any]:
        at = self.cosigned_at
        return {
            "name": self.name,
            "key": self.key,
            "vkey": self.vkey,
            "cosigned_at": None if at is None else rfc3339(min(at, _LATEST)),
            "fault": self.fault,
        }


@dataclass(frozen=True, slots=True)
class WitnessesSeen:
    """All of them.

    Attributes:
        profile: `fail-open` or `fail-closed`.
        quorum: enough of them have cosigned the newest checkpoint.
        witnesses: in the policy's order.
        trouble: too few have, for a while.
    """

    profile: str
    quorum: bool
    witnesses: tuple[WitnessSeen, ...]
    trouble: str | None = None

    def document(self) -> dict[str, Any]:
        return {
            "profile": self.profile,
            "quorum": self.quorum,
            "witnesses": [witness.document() for witness in self.witnesses],
            "trouble": self.trouble,
        }


@dataclass(frozen=True, slots=True)
class LogSeen:
    """The log.

    Attributes:
        checkpoint: the newest that is published; None when it cannot be read.
        note: the same, signed.
        vkeys: the log's verifier keys, one a line.
        fault: why nothing is appended any more, or why it cannot be read.
    """

    checkpoint: Checkpoint | None
    note: bytes
    vkeys: str
    fault: str | None

    def document(self) -> dict[str, Any]:
        checkpoint = self.checkpoint
        return {
            "origin": None if checkpoint is None else checkpoint.origin,
            "size": None if checkpoint is None else checkpoint.size,
            "root": None if checkpoint is None else checkpoint.root.hex(),
            "checkpoint": self.note.decode("utf-8", "replace"),
            "vkeys": self.vkeys.splitlines(),
            "fault": self.fault,
        }


@dataclass(frozen=True, slots=True)
class IndexSeen:
    """The audit index.

    Attributes:
        on: there is one.
        indexed: entries in it; None when it cannot be used.
        behind: entries of the published log that it does not hold yet.
        fault: what keeps it from going on.
    """

    on: bool
    indexed: int | None
    behind: int | None
    fault: str | None

    def document(self) -> dict[str, Any]:
        return {
            "on": self.on,
            "indexed": self.indexed,
            "behind": self.behind,
            "fault": self.fault,
        }


@dataclass(frozen=True, slots=True)
class StorageSeen:
    """The stores.

    Attributes:
        kind: `filesystem`, `azure` or `memory`.
        posture: `ok`, or that more is granted than is asked; None where nothing can be tried.
        weaknesses: one line for each thing that is granted and not needed.
        tiles_locked: full tiles cannot be replaced or deleted; None where nobody can tell.
    """

    kind: str
    posture: str | None
    weaknesses: tuple[str, ...]
    tiles_locked: bool | None

    def document(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "posture": self.posture,
            "weaknesses": list(self.weaknesses),
            "tiles_locked": self.tiles_locked,
        }


@dataclass(frozen=True, slots=True)
class Health:
    """What an auditor should know of the process that answers.

    Attributes:
        at: when, seconds since 1970.
        server: its version.
        log: the log.
        index: the audit index of this machine.
        witnesses: None without a witness policy.
        storage: the stores.
        troubles: what an operator should look at, by part; None where all is well.
    """

    at: int
    server: str
    log: LogSeen
    index: IndexSeen
    witnesses: WitnessesSeen | None
    storage: StorageSeen
    troubles: Mapping[str, str | None]

    def document(self) -> dict[str, Any]:
        return {
            "time": rfc3339(self.at),
            "server": self.server,
            "log": self.log.document(),
            "index": self.index.document(),
            "witnesses": None if self.witnesses is None else self.witnesses.document(),
            "storage": self.storage.document(),
            "troubles": dict(self.troubles),
        }


def see_witnesses(
    note: bytes, policy: WitnessPolicy, *, profile: str, trouble: str | None
) -> WitnessesSeen:
    """Who of the policy has cosigned this checkpoint, each signature verified."""
    try:
        parsed = Note.parse(note)
    except Malformed:
        signatures: dict[tuple[str, bytes], Signature] = {}
        text = b""
    else:
        signatures = {(item.name, item.key_id): item for item in parsed.unverified_signatures}
        text = parsed.unverified_text.encode()
    seen = tuple(_see(witness, signatures, text) for witness in policy.witnesses)
    good = {
        witness.name
        for witness, found in zip(policy.witnesses, seen, strict=True)
        if found.cosigned_at is not None
    }
    return WitnessesSeen(profile, policy.is_quorum(good), seen, trouble)


def _see(
    witness: PolicyWitness, signatures: Mapping[tuple[str, bytes], Signature], text: bytes
) -> WitnessSeen:
    verifier = witness.verifier
    signature = signatures.get((verifier.name, verifier.key_id))
    if signature is None:
        return WitnessSeen(witness.label, verifier.name, None, vkey=str(verifier))
    try:
        verifier.verify(text, signature.value)
        return WitnessSeen(
            witness.label, verifier.name, cosignature_time(signature.value), vkey=str(verifier)
        )
    except LogInconsistent:
        return WitnessSeen(witness.label, verifier.name, None, fault=True, vkey=str(verifier))
