"""What a witness decides: C2SP tlog-witness, without its storage, keys and clock. Pure.

A witness keeps one checkpoint of each log and cosigns only what provably extends it. It reads no
entries: what they say is for monitors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from secure_cache.model.errors import Denied, LogInconsistent, Malformed, NotFound
from secure_cache.tlog.checkpoint import Checkpoint
from secure_cache.tlog.note import Note, Signature, VerifiedNote, Verifier, open_note
from secure_cache.tlog.proof import verify_consistency
from secure_cache.tlog.witness_wire import AddCheckpoint


@dataclass(frozen=True, slots=True)
class KnownLog:
    """A log that a witness watches, and the keys that sign for it."""

    origin: str
    verifiers: tuple[Verifier, ...]


@dataclass(frozen=True, slots=True)
class Submitted:
    """A checkpoint that its log has signed.

    Attributes:
        checkpoint: what it says.
        signatures: the log's own, verified. Others are dropped: a witness must not keep, and
            hand on, what it can not verify.
    """

    checkpoint: Checkpoint
    signatures: tuple[Signature, ...]

    @property
    def note(self) -> bytes:
        return bytes(Note(str(self.checkpoint), self.signatures))


@dataclass(frozen=True, slots=True)
class OtherSize:
    """The submitter thinks that something else was cosigned last; this was."""

    size: int


def submitted(request: AddCheckpoint, logs: Mapping[str, KnownLog]) -> tuple[KnownLog, Submitted]:
    """Whose checkpoint it is, by the log's own signature.

    Raises:
        Malformed: not a checkpoint, with extension lines, or smaller than the old size.
        NotFound: no such log is known here.
        Denied: no key of that log signed it.
    """
    checkpoint = _parse(Note.parse(request.note).unverified_text)
    log = logs.get(checkpoint.origin)
    if log is None:
        raise NotFound(f"no log {checkpoint.origin!r} is known here")
    try:
        opened: VerifiedNote = open_note(request.note, log.verifiers)
    except LogInconsistent as error:
        raise Denied(f"the checkpoint is not signed by {log.origin!r}") from error
    if request.old > checkpoint.size:
        raise Malformed("the old size is larger than the checkpoint's")
    return log, Submitted(checkpoint, tuple(dict.fromkeys(opened.signatures)))


def _parse(text: str) -> Checkpoint:
    checkpoint = Checkpoint.parse(text)
    if checkpoint.extensions:
        # Nobody can audit them, and an ML-DSA cosignature does not cover them.
        raise Malformed("a checkpoint with extension lines")
    return checkpoint


def judge(
    request: AddCheckpoint, checkpoint: Checkpoint, last: Checkpoint | None
) -> OtherSize | None:
    """Whether this checkpoint may be cosigned: None says yes.

    Args:
        request: with the old size and the proof.
        checkpoint: what the log signed.
        last: what was cosigned last. Nobody may change it between this and the cosignature.

    Raises:
        LogInconsistent: it does not extend what was cosigned.
    """
    size = 0 if last is None else last.size
    if request.old != size:
        return OtherSize(size)
    if last is None or size == 0:
        if request.proof:
            raise LogInconsistent("nothing proves consistency with an empty tree")
        return None
    verify_consistency(
        old_size=size,
        new_size=checkpoint.size,
        old_root=last.root,
        new_root=checkpoint.root,
        proof=request.proof,
    )
    return None


def forked(checkpoint: Checkpoint, last: Checkpoint | None) -> bool:
    """Whether two signed checkpoints contradict each other as they stand."""
    return last is not None and last.size == checkpoint.size and last.root != checkpoint.root


def log_by_origin(logs: Sequence[KnownLog]) -> dict[str, KnownLog]:
    """Raises: Malformed: one origin twice."""
    found = {log.origin: log for log in logs}
    if len(found) != len(logs):
        raise Malformed("a log is named twice")
    return found
