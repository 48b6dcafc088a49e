"""What a change of the policy would do to the entries of a log; and why one entry is served."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anyio.to_thread

from secure_cache.audit.impact import Hit, Impact, Question
from secure_cache.audit.reading import statement_of
from secure_cache.compose.log_source import LogPlace, open_log_source
from secure_cache.compose.policies import load_policy, read_document
from secure_cache.compose.policy_log import open_policy_log
from secure_cache.identity.presets import load_presets
from secure_cache.model.clock import Clock
from secure_cache.model.entry import Entry
from secure_cache.model.errors import CorruptObject, LogInconsistent, Malformed, Misconfigured
from secure_cache.policy.compile import CompiledPolicy
from secure_cache.policy.decision import Hidden
from secure_cache.policy.lines import line_of
from secure_cache.policy.loader import load_yaml
from secure_cache.policy.past import read_past_policy
from secure_cache.provenance.verify import verify_statement

_BATCH = 256


async def impact_of(
    place: LogPlace,
    policy: Path,
    revocation: str | None,
    *,
    clock: Clock,
    tell: Callable[[Hit], None],
    progress: Callable[[int, int], None] | None = None,
) -> Impact:
    """Compare an edited policy with the one that the log says is in force.

    Args:
        place: where the log is.
        policy: the edited file.
        revocation: only what this one of it covers; None: every difference.
        clock: for now.
        tell: each entry that is affected, in the order of the log.
        progress: how many entries of how many were looked at.

    Raises:
        Misconfigured, InvalidPolicy: the file. Malformed: it has no such revocation.
        NotFound, LogInconsistent: the policy in force is not to be had, or not proved.
    """
    now = clock()
    then = load_policy(policy, clock)
    wanted = None
    if revocation is not None:
        known = {item.id: item for item in then.tables.revocations}
        if revocation not in known:
            names = ", ".join(known) or "none"
            raise Malformed(f"{policy} has no revocation {revocation!a}; it has: {names}")
        wanted = known[revocation]
    async with open_policy_log(place, clock=clock) as policies:
        events = policies.proved.events
        if not events:
            raise LogInconsistent("the log names no policy that is in force")
        sha256 = events[-1].sha256
        text = await policies.source.policy_text(sha256)
        today = read_past_policy(text, name=sha256, presets=load_presets(), now=now)
        question = Question(today, then, wanted, now)
        log, result = policies.source.log, Impact()
        size = (await log.published()).size
        batch: list[tuple[int, bytes]] = []

        async def look() -> None:
            for hit in await anyio.to_thread.run_sync(_ask, question, list(batch)):
                result.add(hit)
                tell(hit)
            result.looked_at += len(batch)
            batch.clear()
            if progress is not None:
                progress(result.looked_at, size)

        async for item in log.entries(0, size):
            batch.append(item)
            if len(batch) == _BATCH:
                await look()
        await look()
        return result


def _ask(question: Question, batch: list[tuple[int, bytes]]) -> list[Hit]:
    found = []
    for index, leaf in batch:
        entry = statement_of(leaf)
        hit = question.ask(index, entry) if isinstance(entry, Entry) else None
        if hit is not None:
            found.append(hit)
    return found


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
