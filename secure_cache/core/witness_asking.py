"""One conversation with one witness: what it is asked, and what of its answer is believed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import anyio

from secure_cache.core.contradictions import Contradictions
from secure_cache.core.witness_http import Answer, AsksWitnesses
from secure_cache.model.errors import LogInconsistent, Malformed, Refused, Unavailable
from secure_cache.tlog.checkpoint import Checkpoint
from secure_cache.tlog.note import Signature
from secure_cache.tlog.ports import ProofFrom
from secure_cache.tlog.witness_policy import PolicyWitness
from secure_cache.tlog.witness_wire import (
    AddCheckpoint,
    checkpoint_path,
    read_cosignatures,
    read_size,
)

TellWitnesses: TypeAlias = Callable[[str, Mapping[str, object]], None]
"""Told of `witness.answered` (each time), `witness.failed`, `witness.recovered`,
`witness.claimed`, `witness.proved`, and by `witnesses` of `log.unwitnessed`, `log.witnessed`."""

_TRIES = 3
_FIRST_BACKOFF_SECONDS = 0.25
_LONGEST_BACKOFF_SECONDS = 15.0


@dataclass(slots=True)
class Place:
    """One witness's URL, with all keys that it has there, and how it fares.

    Attributes:
        url: the submission prefix.
        witnesses: its keys.
        old: the size that it cosigned last, as far as we know.
        failures: in a row.
        not_before: it is not asked again before (of `anyio.current_time`).
        answered_at: when it last gave a cosignature.
        asking: one conversation at a time.
    """

    url: str
    witnesses: list[PolicyWitness]
    old: int = 0
    failures: int = 0
    not_before: float = float("-inf")
    answered_at: float = float("-inf")
    asking: anyio.Lock = field(default_factory=anyio.Lock)

    @property
    def label(self) -> str:
        """For people: the name of its first key in the policy."""
        return self.witnesses[0].label


@dataclass(frozen=True, slots=True)
class Submission:
    """A checkpoint that witnesses shall cosign.

    Attributes:
        checkpoint: what it says.
        note: with the log's signature.
        proof_from: that it extends what a witness saw before.
    """

    checkpoint: Checkpoint
    note: bytes
    proof_from: ProofFrom


class Asking:
    """Asks witnesses for one log.

    Args:
        ask: carries the requests.
        contradictions: judges what a witness shows against us.
        origin: the log's.
        tell: told of what happens.
    """

    def __init__(
        self,
        *,
        ask: AsksWitnesses,
        contradictions: Contradictions,
        origin: str,
        tell: TellWitnesses,
    ) -> None:
        self._carry = ask
        self._contradictions = contradictions
        self._origin = origin
        self._tell = tell

    async def __call__(
        self, place: Place, submission: Submission, *, may_be_cut: Callable[[], bool]
    ) -> tuple[Signature, ...]:
        """The verified cosignatures of one witness; none when it gave none.

        Args:
            place: whom.
            submission: what.
            may_be_cut: whether it is no fault of the witness when this call is cancelled now.

        Raises:
            LogInconsistent: it has proof against this log.
            Broken, Misconfigured: this log's own tiles can not be read.
        """
        async with place.asking:
            if place.old > submission.checkpoint.size:
                # We brought it a newer one meanwhile.
                return ()
            try:
                signatures = await self._submit(place, submission)
            except (Unavailable, Refused) as error:
                self._failed(place, str(error))
                return ()
            except anyio.get_cancelled_exc_class():
                if not may_be_cut():
                    self._failed(place, "no answer in time")
                raise
            self._answered(place)
            return signatures

    async def _submit(self, place: Place, submission: Submission) -> tuple[Signature, ...]:
        """Raises: Unavailable, Malformed (it gave nothing), LogInconsistent (it has proof)."""
        size = submission.checkpoint.size
        for _ in range(_TRIES):
            proof = await submission.proof_from(place.old) if place.old else ()
            request = bytes(AddCheckpoint(place.old, proof, submission.note))
            answer = await self._carry.submit(place.url, request)
            match answer.status:
                case 200:
                    signatures = _verified(place, submission, answer)
                    place.old = size
                    return signatures
                case 409:
                    claimed = _size(answer)
                    if claimed is None:
                        # What the protocol said of two roots for one size, before version 1.
                        return await self._judge(place, "it names a conflict and no size")
                    if claimed == place.old or claimed > size:
                        return await self._judge(place, f"it has cosigned {claimed} entries")
                    place.old = claimed
                case 422:
                    return await self._judge(place, "it says that the tree is another one")
                case status:
                    raise Unavailable(f"it answered {status}")
        raise Unavailable("it names another size each time")

    async def _judge(self, place: Place, claim: str) -> tuple[Signature, ...]:
        """It claims to know better. Ask it for what it holds, and judge that.

        Raises:
            LogInconsistent: it holds proof, which is kept.
            Unavailable: it does not, or nothing can be known now.
        """
        answer = await self._carry.shown(place.url, checkpoint_path(self._origin))
        shown = self._opened(place, claim, answer)
        try:
            await self._contradictions.judge(shown)
        except LogInconsistent as error:
            await self._contradictions.keep(answer.body)
            facts = {"witness": place.label, "size": str(shown.size), "why": str(error)}
            self._tell("witness.proved", facts)
            raise
        # Another replica was faster, or the witness is confused: this log leads on from there.
        place.old = shown.size
        raise Unavailable(f"{claim}, which agrees with this log by now")

    def _opened(self, place: Place, claim: str, answer: Answer) -> Checkpoint:
        if answer.status == 200:
            try:
                return self._contradictions.open(answer.body)
            except (Malformed, LogInconsistent) as error:
                why = str(error)
        else:
            why = f"asked for it, it answers {answer.status}"
        self._tell("witness.claimed", {"witness": place.label, "claim": claim, "why": why})
        raise Unavailable(f"{claim}, and shows nothing that our key signed: {why}")

    def _answered(self, place: Place) -> None:
        if place.failures:
            self._tell("witness.recovered", {"witness": place.label})
        place.failures = 0
        place.answered_at = anyio.current_time()
        self._tell("witness.answered", {"witness": place.label, "ok": True})

    def _failed(self, place: Place, why: str) -> None:
        pause = min(_LONGEST_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2.0**place.failures)
        place.failures = min(place.failures + 1, 30)
        place.not_before = anyio.current_time() + pause
        self._tell("witness.answered", {"witness": place.label, "ok": False})
        if place.failures == 1:
            self._tell("witness.failed", {"witness": place.label, "why": why})


def _size(answer: Answer) -> int | None:
    try:
        return read_size(answer.body)
    except Malformed:
        return None


def _verified(place: Place, submission: Submission, answer: Answer) -> tuple[Signature, ...]:
    """Raises: Malformed: no cosignature by any of its keys, or a wrong one."""
    lines = read_cosignatures(submission.note, answer.body)
    text = str(submission.checkpoint).encode()
    verifiers = {(w.verifier.name, w.verifier.key_id): w.verifier for w in place.witnesses}
    found: dict[tuple[str, bytes], Signature] = {}
    for line in lines:
        key = (line.name, line.key_id)
        if key not in verifiers:
            continue
        try:
            verifiers[key].verify(text, line.value)
        except LogInconsistent as error:
            raise Malformed(f"its cosignature is wrong: {error}") from error
        found[key] = line
    if not found:
        raise Malformed("no cosignature by a key of the policy")
    return tuple(found.values())
