"""This log's witnesses: asked for cosignatures, listened to when they contradict.

Fail-closed: a checkpoint is published only when the policy's quorum has cosigned it; until then
what is appended waits, durably. Fail-open: it is published at once, and cosignatures are added
when they come. In both, `refresh` adds those that came late and renews old ones.

A witness is believed only what is signed. Its cosignatures are verified. Its word that it has
seen more, or something else, is a loud warning; only a checkpoint that our own key signed, and
that our log can not lead on from, stops us (ADR 0022).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import anyio

from secure_cache.core.contradictions import Contradictions
from secure_cache.core.witness_asking import Asking, Place, Submission, TellWitnesses
from secure_cache.core.witness_http import AsksWitnesses, check_witness_url
from secure_cache.model.clock import Clock
from secure_cache.model.errors import Broken, LogInconsistent, Misconfigured, NoQuorum, Unavailable
from secure_cache.storage import layout
from secure_cache.storage.ports import ObjectStore
from secure_cache.tlog.checkpoint import Checkpoint
from secure_cache.tlog.cosignature import cosignature_time
from secure_cache.tlog.note import Note, Signature, Verifier
from secure_cache.tlog.objects import swap
from secure_cache.tlog.ports import ProofFrom, PublishedLog
from secure_cache.tlog.publication import Publications
from secure_cache.tlog.witness_policy import WitnessPolicy
from secure_cache.tlog.witness_wire import add_signatures

_GRACE_SECONDS = 0.1
"""Once there is a quorum, so long is waited for the others."""

_POLL_SECONDS = 1.0
_PATIENCE_SECONDS = 60.0


class Profile(StrEnum):
    FAIL_OPEN = "fail-open"
    FAIL_CLOSED = "fail-closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessOptions:
    """How witnesses are asked.

    Attributes:
        profile: what happens when too few answer.
        timeout_seconds: for all of them together, each time.
        refresh_seconds: an older cosignature is renewed, so that readers see the log is watched.
    """

    profile: Profile = Profile.FAIL_OPEN
    timeout_seconds: float = 2.0
    refresh_seconds: float = 600.0


class Witnesses:
    """Implements `tlog.ports.Witnessed`. One per process.

    Args:
        policy: who they are, and how many are enough.
        ask: carries the requests.
        head: the log's `head` store.
        log: the log as it is published.
        verifier: the log's key.
        contradictions: where proof against us is kept.
        options: how to ask.
        clock: wall time, for the age of cosignatures only.
        tell: told of what happens.

    Raises:
        Misconfigured: the policy is another log's, or can never be met.
    """

    def __init__(
        self,
        *,
        policy: WitnessPolicy,
        ask: AsksWitnesses,
        head: ObjectStore,
        log: PublishedLog,
        verifier: Verifier,
        contradictions: Contradictions,
        options: WitnessOptions,
        clock: Clock,
        tell: TellWitnesses = lambda _event, _facts: None,
    ) -> None:
        self._policy = policy
        self._head = head
        self._log = log
        self._contradictions = contradictions
        self._options = options
        self._clock = clock
        self._tell = tell
        self._ask = Asking(ask=ask, contradictions=contradictions, origin=verifier.name, tell=tell)
        self._publications = Publications(head, [verifier], origin=verifier.name)
        self._places = _places(policy)
        self._verifiers = {
            (w.verifier.name, w.verifier.key_id): w.verifier for w in policy.witnesses
        }
        self._sound = b""
        self._unwitnessed_since: float | None = None
        self._told = False
        _check_policy(policy, verifier, options.profile)

    @property
    def trouble(self) -> str | None:
        """What a person should know: for a while too few have cosigned what is newest."""
        since = self._unwitnessed_since
        if since is None or anyio.current_time() - since < _PATIENCE_SECONDS:
            return None
        return "too few witnesses have cosigned the newest checkpoint"

    async def check(self) -> None:
        """Raises: LogInconsistent: somebody holds proof against this log. StorageUnavailable."""
        await self._contradictions.check()

    async def before_publishing(
        self, checkpoint: Checkpoint, note: bytes, proof_from: ProofFrom
    ) -> bytes:
        """As `Witnessed.before_publishing`."""
        if self._options.profile is Profile.FAIL_OPEN:
            return note
        submission = Submission(checkpoint, note, proof_from)
        signatures = await self._gather(submission, self._places)
        witnessed = self._is_witnessed(signatures)
        self._note_quorum(checkpoint, met=witnessed, tells=True)
        if not witnessed:
            names = ", ".join(sorted(self._names(signatures))) or "none"
            raise NoQuorum(f"{checkpoint.size} entries are cosigned by too few witnesses: {names}")
        return add_signatures(note, signatures)

    async def run(self, *, asks: bool) -> None:
        """Refresh until cancelled. Of several processes on one machine only one need ask."""
        while True:
            await anyio.sleep(_POLL_SECONDS if asks else _PATIENCE_SECONDS / 6)
            try:
                await self.refresh(asks=asks)
            except (Unavailable, Broken, Misconfigured) as error:
                self._tell("witness.not_asked", {"code": error.code, "why": str(error)})

    async def refresh(self, *, asks: bool = True) -> bool:
        """Ask those whose cosignature the published checkpoint lacks, or whose is old, and add
        what they give. True when the published note has changed.

        Args:
            asks: false only looks whether it is witnessed.

        Raises:
            LogInconsistent: a witness has proof against this log, or the log is broken.
            StorageUnavailable: the store did not answer.
        """
        publication = await self._publications.read()
        checkpoint = publication.checkpoint
        if checkpoint.size == 0:
            return False
        note = self._without_wrong(publication.note)
        if asks:
            places = [place for place in self._places if self._wants(place, note)]
            submission = Submission(
                checkpoint, note, lambda old: self._log.consistency_proof(old, checkpoint.size)
            )
            note = add_signatures(note, await self._gather(submission, places))
        met = self._is_witnessed(Note.parse(note).unverified_signatures)
        self._note_quorum(checkpoint, met=met, tells=asks)
        # Whoever published a newer one meanwhile, or other signatures, was first; nothing is
        # lost, they are asked for again.
        return note != publication.note and await swap(
            self._head, layout.CHECKPOINT, note, expected=publication.version
        )

    def _without_wrong(self, note: bytes) -> bytes:
        """The published note without wrong signatures in a witness's name. Whoever can write in
        the store could else spoil the note for every reader who knows that witness."""
        if self._sound == note:
            return note
        parsed = Note.parse(note)
        text = parsed.unverified_text.encode()
        good = tuple(s for s in parsed.unverified_signatures if self._is_sound(text, s))
        note = bytes(Note(parsed.unverified_text, good))
        self._sound = note
        return note

    def _is_sound(self, text: bytes, signature: Signature) -> bool:
        verifier = self._verifiers.get((signature.name, signature.key_id))
        try:
            if verifier is not None:
                verifier.verify(text, signature.value)
        except LogInconsistent:
            return False
        return True

    def _wants(self, place: Place, note: bytes) -> bool:
        """Whether one of its keys' signatures is missing in the note, or old.

        Each process asks at its start, whatever the note says: an old note, fully cosigned, may
        be what somebody put back. What a witness gave a short while ago is new, whatever the time
        on it: one whose clock is wrong is not asked for ever.
        """
        if place.answered_at == float("-inf"):
            return True
        is_new = anyio.current_time() - place.answered_at < self._options.refresh_seconds
        newest = {(s.name, s.key_id): s for s in Note.parse(note).unverified_signatures}
        for witness in place.witnesses:
            found = newest.get((witness.verifier.name, witness.verifier.key_id))
            if found is None or (self._is_old(found) and not is_new):
                return True
        return False

    def _is_old(self, signature: Signature) -> bool:
        try:
            at = cosignature_time(signature.value)
        except LogInconsistent:
            return True
        return self._clock() - at >= self._options.refresh_seconds

    def _is_witnessed(self, signatures: Sequence[Signature]) -> bool:
        return self._policy.is_quorum(self._policy.cosignatures(signatures).keys())

    def _names(self, signatures: Sequence[Signature]) -> set[str]:
        return {name.decode(errors="replace") for name in self._policy.cosignatures(signatures)}

    def _note_quorum(self, checkpoint: Checkpoint, *, met: bool, tells: bool) -> None:
        """`tells`: this process has just asked. Who only looks may look between the publication
        and the cosignatures."""
        if met:
            self._unwitnessed_since = None
            if self._told:
                self._tell("log.witnessed", {"size": checkpoint.size})
            self._told = False
            return
        if self._unwitnessed_since is None:
            self._unwitnessed_since = anyio.current_time()
        if tells and not self._told:
            self._told = True
            self._tell("log.unwitnessed", {"size": checkpoint.size})

    async def _gather(self, submission: Submission, places: Sequence[Place]) -> list[Signature]:
        """Ask them all at once; what they gave in time.

        Raises:
            LogInconsistent: one of them has proof against this log.
            Broken, Misconfigured: this log can not be read.
        """
        found: list[Signature] = []
        broken: list[Broken | Misconfigured] = []
        now = anyio.current_time()

        def is_enough() -> bool:
            return bool(broken) or self._is_witnessed(found)

        async def one(place: Place) -> None:
            try:
                found.extend(await self._ask(place, submission, may_be_cut=is_enough))
            except (Broken, Misconfigured) as error:
                broken.append(error)
            if is_enough():
                soon = anyio.current_time() + _GRACE_SECONDS
                group.cancel_scope.deadline = min(group.cancel_scope.deadline, soon)

        async with anyio.create_task_group() as group:
            group.cancel_scope.deadline = now + self._options.timeout_seconds
            for place in places:
                if place.not_before <= now:
                    group.start_soon(one, place)
        if broken:
            raise broken[0]
        return found


def _places(policy: WitnessPolicy) -> list[Place]:
    """One request for each URL, even where a witness has several keys."""
    places: dict[str, Place] = {}
    for witness in policy.witnesses:
        if witness.url is not None:
            url = check_witness_url(witness.url)
            places.setdefault(url, Place(url, [])).witnesses.append(witness)
    return list(places.values())


def _check_policy(policy: WitnessPolicy, verifier: Verifier, profile: Profile) -> None:
    known = [(log.verifier.name, log.verifier.key_id) for log in policy.logs]
    if known and (verifier.name, verifier.key_id) not in known:
        raise Misconfigured(
            f"the witness policy names logs, and {verifier.name!r} with our key is none of them"
        )
    reachable = {witness.name for witness in policy.witnesses if witness.url is not None}
    if not reachable:
        raise Misconfigured("the witness policy has no witness with a URL: nobody can be asked")
    if profile is Profile.FAIL_CLOSED:
        if policy.is_quorum(()):
            raise Misconfigured(
                "`quorum none` and the profile fail-closed contradict each other: name a quorum"
            )
        if not policy.is_quorum(reachable):
            raise Misconfigured(
                "the witnesses with a URL can never be a quorum: nothing would be published"
            )
