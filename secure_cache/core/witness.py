"""A witness: cosigns what extends what it cosigned before, and keeps what contradicts it."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from secure_cache.core.witness_book import Page, WitnessBook
from secure_cache.model.clock import Clock
from secure_cache.model.errors import CorruptObject, LogInconsistent, Malformed, NotFound
from secure_cache.tlog.checkpoint import Checkpoint
from secure_cache.tlog.contradiction import Contradiction
from secure_cache.tlog.cosignature import Cosigner, cosignature_time
from secure_cache.tlog.note import Note, Signature, open_note
from secure_cache.tlog.witness import (
    KnownLog,
    OtherSize,
    Submitted,
    forked,
    judge,
    log_by_origin,
    submitted,
)
from secure_cache.tlog.witness_wire import AddCheckpoint

TellWitness: TypeAlias = Callable[[str, Mapping[str, object]], None]
"""Told of `witness.cosigned`, `witness.refused` and `witness.contradicted`."""


class Witness:
    """One witness, over one book. Synchronous: for a thread.

    Args:
        logs: the logs that it watches.
        cosigners: its keys; the first one's name is its own.
        book: what it cosigned before.
        clock: wall time.
        tell: told of what happens.
    """

    def __init__(
        self,
        *,
        logs: Sequence[KnownLog],
        cosigners: Sequence[Cosigner],
        book: WitnessBook,
        clock: Clock,
        tell: TellWitness = lambda _event, _facts: None,
    ) -> None:
        if not cosigners:
            raise Malformed("a witness has a key")
        self._logs = log_by_origin(logs)
        self._cosigners = tuple(cosigners)
        self._book = book
        self._clock = clock
        self._tell = tell

    def check(self) -> None:
        """That the state of every log can be read and is ours.

        Raises: Misconfigured, CorruptObject, LogInconsistent, StorageUnavailable.
        """
        self._book.check()
        for log in self._logs.values():
            with self._book.locked(log.origin) as page:
                self._last(page, log)

    def add_checkpoint(self, request: AddCheckpoint) -> tuple[Signature, ...] | OtherSize:
        """Cosign it, if it extends what was cosigned before.

        1. take the log's lock, read and verify what was cosigned last
        2. judge
        3. cosign, and keep the cosigned checkpoint durably   crash: cosigned, told to nobody
        4. only then give the cosignatures out

        Raises:
            Malformed, NotFound, Denied: as `tlog.witness.submitted`.
            LogInconsistent: it does not extend what was cosigned.
            CorruptObject: our own state is damaged; nothing is cosigned.
            StorageUnavailable: the state could not be read, locked or kept.
        """
        log, found = submitted(request, self._logs)
        with self._book.locked(log.origin) as page:
            last, time = self._last(page, log)
            if forked(found.checkpoint, last):
                self._keep_fork(page, log, found)
            try:
                other = judge(request, found.checkpoint, last)
            except LogInconsistent:
                self._tell_refused(log, found.checkpoint, last)
                raise
            if other is not None:
                return other
            signatures = self._cosign(found.checkpoint, time)
            page.write(bytes(Note(str(found.checkpoint), found.signatures + signatures)))
        self._tell("witness.cosigned", {"origin": log.origin, "size": found.checkpoint.size})
        return signatures

    def last(self, origin: str) -> tuple[bytes, Checkpoint] | None:
        """The note that was cosigned last, verified, and what it says; None when there is none.

        Raises: NotFound (no such log here), CorruptObject, LogInconsistent, StorageUnavailable.
        """
        log = self._logs.get(origin)
        if log is None:
            raise NotFound(f"no log {origin!r} is known here")
        with self._book.locked(origin) as page:
            checkpoint, _ = self._last(page, log)
            note = page.read()
        return None if checkpoint is None or note is None else (note, checkpoint)

    def keep(self, origin: str, name: str, data: bytes) -> str | None:
        """Keep evidence; gives the path. Raises: StorageUnavailable."""
        with self._book.locked(origin) as page:
            path = page.keep_evidence(name, data)
        return None if path is None else str(path)

    def _cosign(self, checkpoint: Checkpoint, not_before: int) -> tuple[Signature, ...]:
        # "As of this time nothing larger was seen": so its times never go back.
        time = max(int(self._clock()), not_before)
        return tuple(cosigner.cosign(checkpoint, time) for cosigner in self._cosigners)

    def _last(self, page: Page, log: KnownLog) -> tuple[Checkpoint | None, int]:
        """What was cosigned last, and when. Both signatures on it are checked: whoever changed
        the file could else make this witness cosign another history."""
        note = page.read()
        if note is None:
            return None, 0
        ours = self._cosigners[0].verifier
        try:
            open_note(note, log.verifiers)
            cosigned = open_note(note, [ours])
            checkpoint = Checkpoint.parse(cosigned.text)
        except (Malformed, LogInconsistent) as error:
            raise CorruptObject(
                f"what was cosigned last of {log.origin!r} is damaged: {error}"
            ) from error
        if checkpoint.origin != log.origin:
            raise CorruptObject(f"the state of {log.origin!r} is that of another log")
        return checkpoint, cosignature_time(cosigned.signatures[0].value)

    def _keep_fork(self, page: Page, log: KnownLog, found: Submitted) -> None:
        """Two roots for one size, both signed by the log: proof for everybody."""
        note = page.read() or b""
        path = page.keep_evidence("fork", Contradiction(note, found.note).encode())
        facts = {"origin": log.origin, "size": found.checkpoint.size, "evidence": str(path)}
        self._tell("witness.contradicted", facts)

    def _tell_refused(self, log: KnownLog, checkpoint: Checkpoint, last: Checkpoint | None) -> None:
        facts = {
            "origin": log.origin,
            "size": checkpoint.size,
            "cosigned": 0 if last is None else last.size,
        }
        self._tell("witness.refused", facts)
