"""What a change of the policy would do to the entries of a log; and why one entry is served."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from tempfile import SpooledTemporaryFile
from types import TracebackType

import anyio.to_thread
import msgspec

from secure_cache.audit.impact import Hit, Impact, Question
from secure_cache.audit.needles import Needles
from secure_cache.audit.reading import statement_of
from secure_cache.compose.impact_question import Asked, Change, ask_about
from secure_cache.compose.log_source import LogPlace, open_log_source
from secure_cache.compose.policies import read_document
from secure_cache.compose.policy_log import open_policy_log
from secure_cache.model.clock import Clock
from secure_cache.model.entry import Entry
from secure_cache.model.errors import CorruptObject, LogInconsistent, Malformed, Misconfigured
from secure_cache.policy.compile import CompiledPolicy
from secure_cache.policy.decision import Hidden
from secure_cache.policy.lines import line_of
from secure_cache.policy.loader import load_yaml
from secure_cache.provenance.dsse import Envelope
from secure_cache.provenance.event import (
    EntryQuarantined,
    EntryRemoved,
    Event,
    Happening,
    PolicyTookEffect,
)
from secure_cache.provenance.event_statement import EVENT_PREDICATE
from secure_cache.provenance.keys import KeyRing
from secure_cache.provenance.verify import verify_statement

_BATCH = 256
_IN_MEMORY = 8 << 20
_EVENT = EVENT_PREDICATE.encode()


async def impact_of(
    place: LogPlace,
    change: Change,
    *,
    clock: Clock,
    asked: Callable[[Asked], None],
    tell: Callable[[Hit], None],
    progress: Callable[[int, int], None] | None = None,
) -> Impact:
    """Compare a change with the policy that the log says is in force.

    Args:
        place: where the log is.
        change: what is thought of.
        clock: for now.
        asked: told once, before the log is read.
        tell: each entry that is affected, in the order of the log.
        progress: how many entries of how many were looked at.

    Raises:
        as `ask_about`, and LogInconsistent: the log is not proved.
    """
    async with open_policy_log(place, clock=clock) as policies:
        what = await ask_about(change, policies, clock=clock)
        asked(what)
        log, ring = policies.source.log, await policies.source.ring()
        size = (await log.published()).size
        result, batch = Impact(), list[tuple[int, bytes]]()
        with Judging(what.question, ring) as judging:

            async def look() -> None:
                await anyio.to_thread.run_sync(judging.look, list(batch))
                result.looked_at += len(batch)
                batch.clear()
                if progress is not None:
                    progress(result.looked_at, size)

            async for item in log.entries(0, size):
                batch.append(item)
                if len(batch) == _BATCH:
                    await look()
            await look()
            judging.require_newest_policy(what.policy_event)
            for hit in judging.hits():
                result.add(hit)
                tell(hit)
        return result


class Judging(AbstractContextManager["Judging"]):
    """Entries in the order of the log. What was found waits in a file until its end: only later
    entries say whether an earlier one is still served at all."""

    def __init__(self, question: Question, ring: KeyRing) -> None:
        self._question = question
        self._ring = ring
        self._once = ring.before_revocations()
        revocations = question.revocations
        self._needles = None if revocations is None else Needles.of(revocations)
        self._found = SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - ended by __exit__
        self._gone: set[str] = set()
        self._newest_policy = 0

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._found.close()

    def look(self, batch: Iterable[tuple[int, bytes]]) -> None:
        for index, leaf in batch:
            if not self._is_worth_reading(leaf):
                continue
            statement = statement_of(leaf)
            if isinstance(statement, Entry):
                hit = self._question.ask(index, statement)
                if hit is not None:
                    ours = _is_signed(leaf, self._ring)
                    self._keep(hit if ours else hit.not_served())
            elif isinstance(statement, Event) and _is_signed(leaf, self._once):
                # Whoever can append a leaf must not tell us what became of others.
                self._note(index, statement.what)

    def require_newest_policy(self, index: int) -> None:
        """Which policy is in force was somebody's word; by now the whole log was read.

        Raises:
            LogInconsistent: it was not the newest.
        """
        if self._newest_policy > index:
            raise LogInconsistent(
                f"entry {self._newest_policy} is a policy that is newer than the one of entry"
                f" {index}, which was said to be in force: run this again; if it stays, the index"
                " hides an entry"
            )

    def hits(self) -> Iterator[Hit]:
        self._found.seek(0)
        for line in self._found:
            hit = msgspec.json.decode(line, type=Hit)
            yield hit.not_served() if hit.entry_id in self._gone else hit

    def _note(self, index: int, what: Happening) -> None:
        if isinstance(what, EntryRemoved | EntryQuarantined):
            self._gone.add(what.entry_id)
        elif isinstance(what, PolicyTookEffect):
            self._newest_policy = index

    def _is_worth_reading(self, leaf: bytes) -> bool:
        if self._needles is None:
            return True
        try:
            payload = Envelope.decode(leaf).unverified_payload
        except CorruptObject:
            return False
        return self._needles.may_be_covered(payload) or _EVENT in payload

    def _keep(self, hit: Hit) -> None:
        self._found.write(msgspec.json.encode(hit) + b"\n")


def _is_signed(leaf: bytes, ring: KeyRing) -> bool:
    try:
        verify_statement(leaf, ring)
    except CorruptObject:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Judged:
    """One entry under one policy.

    Attributes:
        entry: what the log says, proved and signed.
        hidden: why the policy does not serve it, or None.
        line: what decides, as the policy's words.
        number: of that line in the file, from 1; None where no line says it.
    """

    entry: Entry
    hidden: Hidden | None
    line: str
    number: int | None


async def judge_entry(
    place: LogPlace, index: int, policy: Path, compiled: CompiledPolicy, *, clock: Clock
) -> Judged:
    """Whether entry `index` would be served under a policy.

    Raises:
        NotFound: the log has no such entry.
        Malformed: it is no stored artifact.
        LogInconsistent: it is not proved, or nobody's signature holds for it.
    """
    async with open_log_source(place, clock=clock) as source:
        leaf = await source.log.entry(index)
        try:
            verify_statement(leaf, await source.ring())
        except CorruptObject as error:
            raise LogInconsistent(f"entry {index} is logged, and not ours: {error}") from error
    entry = statement_of(leaf)
    if not isinstance(entry, Entry):
        raise Malformed(
            f"entry {index} is no stored artifact: `audit show {index}` says what it is"
        )
    hidden = compiled.hides(entry, now=clock())
    line = f"rule {compiled.decide(entry.writer).rule}" if hidden is None else hidden.line
    try:
        number = line_of(load_yaml(read_document(policy), name=str(policy)), line)
    except Misconfigured:
        number = None
    return Judged(entry, hidden, line, number)
