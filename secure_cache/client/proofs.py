"""What a proof of one entry proves, and by which keys. Needs no network."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from secure_cache.audit.forms import row_document
from secure_cache.audit.quick import read_leaf
from secure_cache.model.errors import CorruptObject, LogInconsistent, Malformed
from secure_cache.provenance.keys import KeyRing
from secure_cache.provenance.verify import verify_statement
from secure_cache.tlog.checkpoint import Checkpoint
from secure_cache.tlog.fetched import Trust
from secure_cache.tlog.merkle import leaf_hash
from secure_cache.tlog.note import Note
from secure_cache.tlog.proof import verify_inclusion
from secure_cache.tlog.tlog_proof import TlogProof

_BLOCK_BYTES = 1 << 20
_SHOWN_SIGNERS = 5


@dataclass(frozen=True, slots=True)
class ProvedEntry:
    """An entry that is in the log, and what of it was proved.

    Attributes:
        row: what it says, as an audit query shows it.
        checkpoint: the signed state of the log that it is proved to be in.
        cosigned_by: names of the witnesses that were asked for and have signed.
        keyid: the entry key whose signature verified; None where none did, or none was asked for.
        why_unsigned: why no key of those that were asked for counts as its signer.
    """

    row: dict[str, Any]
    checkpoint: Checkpoint
    cosigned_by: tuple[str, ...] = ()
    keyid: str | None = None
    why_unsigned: str | None = None

    @property
    def signature(self) -> str:
        """What is known of the statement's signature, for people."""
        if self.why_unsigned is not None:
            return f"NOT VALID: {self.why_unsigned}"
        return "not checked" if self.keyid is None else "valid"

    def document(self) -> dict[str, Any]:
        return {
            "ok": self.why_unsigned is None,
            "entry": self.row,
            "log": {
                "origin": self.checkpoint.origin,
                "size": self.checkpoint.size,
                "root": self.checkpoint.root.hex(),
            },
            "cosigned_by": list(self.cosigned_by),
            "signed_by": self.keyid,
            "signature": self.signature,
        }


def prove_logged(proof_file: bytes, leaf: bytes, trust: Trust) -> ProvedEntry:
    """Verify a `.tlog-proof` and its leaf. Does **not** check who signed the leaf.

    1. the file is one proof, in its one spelling
    2. its checkpoint is signed by the log's key, and cosigned as asked for
    3. the leaf is where the proof says, under that checkpoint's root

    Args:
        proof_file: C2SP tlog-proof.
        leaf: the entry's exact bytes.
        trust: the log's key.

    Raises:
        CorruptObject: one of these fails; says which.
    """
    try:
        proof = TlogProof.parse(proof_file)
    except Malformed as error:
        raise CorruptObject(f"the proof is damaged: {error}") from error
    try:
        checkpoint = trust.open(proof.checkpoint)
    except LogInconsistent as error:
        raise CorruptObject(
            f"the proof's checkpoint proves nothing: {error}{_signers(proof.checkpoint, trust)}"
        ) from error
    try:
        verify_inclusion(
            index=proof.index,
            size=checkpoint.size,
            leaf=leaf_hash(leaf),
            proof=proof.hashes,
            root=checkpoint.root,
        )
    except LogInconsistent as error:
        raise CorruptObject(
            f"the leaf is not entry {proof.index} of the log: {error}. Either the leaf or the proof"
            " was changed, or they do not belong together"
        ) from error
    row = row_document(read_leaf(proof.index, leaf))
    return ProvedEntry(row, checkpoint, _cosigners(proof, trust))


def prove_entry(
    proof_file: bytes, leaf: bytes, trust: Trust, ring: KeyRing | None = None
) -> ProvedEntry:
    """Verify a `.tlog-proof`, its leaf, and who signed it: the steps of `prove_logged`.

    4. the leaf is a statement signed by an entry key, where keys are given

    Raises:
        CorruptObject: one of these fails; says which.
    """
    found = prove_logged(proof_file, leaf, trust)
    if ring is None:
        return found
    try:
        return replace(found, keyid=verify_statement(leaf, ring).keyid)
    except CorruptObject as error:
        raise CorruptObject(
            f"entry {found.row['index']} is in the log, and its signature is not valid: {error}"
        ) from error


def judged_entry(found: ProvedEntry, leaf: bytes, ring: KeyRing) -> ProvedEntry:
    """What the entry keys say of a logged entry. That they did not sign it is an answer, too: the
    log of a compromised server is evidence."""
    try:
        return replace(found, keyid=verify_statement(leaf, ring).keyid)
    except CorruptObject as error:
        return replace(found, why_unsigned=str(error))


def _signers(note: bytes, trust: Trust) -> str:
    """Who is said to have signed, where that is another key than the one asked for."""
    try:
        found = Note.parse(note).unverified_signatures
    except Malformed:
        return ""
    known = {(key.name, key.key_id) for key in trust.verifiers}
    if any((item.name, item.key_id) in known for item in found):
        return ""
    others = ", ".join(f"{item.name}+{item.key_id.hex()}" for item in found[:_SHOWN_SIGNERS])
    wanted = ", ".join(f"{name}+{key_id.hex()}" for name, key_id in sorted(known))
    return f"; it names {others} as its signer, and the key asked for is {wanted}"


def _cosigners(proof: TlogProof, trust: Trust) -> tuple[str, ...]:
    if trust.witnesses is None:
        return ()
    found = trust.witnesses.verify(proof.checkpoint, log=trust.verifiers[0]).cosignatures
    return tuple(sorted(name.decode(errors="replace") for name in found))


def hash_stream(stream: BinaryIO) -> tuple[str, int]:
    """SHA-256 in hex, and size in bytes, of all that is left in a stream."""
    digest, size = hashlib.sha256(), 0
    for block in _blocks(stream):
        digest.update(block)
        size += len(block)
    return digest.hexdigest(), size


def _blocks(stream: BinaryIO) -> Iterator[bytes]:
    while block := stream.read(_BLOCK_BYTES):
        yield block
