"""The policies of a log, proved: for auditors who believe neither a server nor its index.

Which entries are events about policies may be said by anybody. Each of them is read from the log,
which proves it; and the texts count by the digests in them. Whoever leaves an event out cannot
hide that: the next one names the policy before it. Only the newest can be left out unseen.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import anyio
import anyio.to_thread

from secure_cache.audit.auditor import PolicyInForce
from secure_cache.audit.filters import Filter
from secure_cache.audit.index import AuditIndex
from secure_cache.audit.policy_history import PolicyHistory
from secure_cache.audit.queries import MAX_PAGE, PageRequest
from secure_cache.audit.reading import statement_of
from secure_cache.client.abandoned import call_or_abandon
from secure_cache.client.audit import RemoteAudit
from secure_cache.client.http_answer import new_client
from secure_cache.client.mirror_entries import signed_by
from secure_cache.compose.audit_offline import offline_audit, offline_index_path
from secure_cache.compose.log_source import LogPlace, LogSource, open_log_source
from secure_cache.compose.mirroring import indexed_mirror
from secure_cache.identity.presets import load_presets
from secure_cache.model.clock import Clock
from secure_cache.model.errors import CorruptObject, LogInconsistent, Misconfigured, NotFound
from secure_cache.provenance.event import Event, PolicyTookEffect
from secure_cache.provenance.keys import KeyRing
from secure_cache.provenance.verify import verify_event
from secure_cache.tlog.ports import VerifiedLog

MAX_POLICIES = 100_000
_Asked = dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class ProvedPolicies:
    """Implements `audit.policy_history.KnowsPolicies`.

    Attributes:
        events: in the order of the log, each proved to be in it.
        doubts: what an auditor should know of them, one line each.
    """

    events: tuple[PolicyInForce, ...]
    doubts: tuple[str, ...]

    async def policies(self, sha256: str | None = None) -> list[PolicyInForce]:
        return [event for event in self.events if sha256 in (None, event.sha256)]


@dataclass(frozen=True, slots=True)
class PolicyLog:
    """The history of a place's policies, and what proves it."""

    source: LogSource
    proved: ProvedPolicies
    history: PolicyHistory


class _Texts:
    """Implements `audit.policy_texts.PolicyTexts`."""

    def __init__(self, source: LogSource) -> None:
        self._source = source

    async def text(self, number: int, sha256: str) -> bytes:  # noqa: ARG002 - the port's
        return await self._source.policy_text(sha256)


@asynccontextmanager
async def open_policy_log(place: LogPlace, *, clock: Clock) -> AsyncIterator[PolicyLog]:
    """Read and prove the policies of a place.

    Raises:
        LogInconsistent, CorruptObject: something is not what it is said to be.
        Misconfigured, Denied, Unavailable: the place cannot be used.
    """
    async with AsyncExitStack() as stack:
        source = await stack.enter_async_context(open_log_source(place, clock=clock))
        ring = await source.ring()
        indexes = [index for index, _ in await indexes_of(place, ("policy",), clock=clock)]
        proved = await prove_policies(source.log, ring, indexes)
        history = PolicyHistory(known=proved, texts=_Texts(source), presets=load_presets())
        yield PolicyLog(source, proved, history)


async def prove_policies(log: VerifiedLog, ring: KeyRing, indexes: Sequence[int]) -> ProvedPolicies:
    """Read these entries, which are said to be events about policies.

    Raises:
        LogInconsistent: one is not, or the log does not prove it, or has it not.
    """
    events: list[PolicyInForce] = []
    doubts: list[str] = []
    for index in indexes:
        leaf = await _named(log, index)
        event = statement_of(leaf)
        if not isinstance(event, Event) or not isinstance(event.what, PolicyTookEffect):
            raise LogInconsistent(f"entry {index} is no event about a policy, as was said")
        try:
            verify_event(leaf, ring)
        except CorruptObject as error:
            if not signed_by(leaf, ring.before_revocations()):
                doubts.append(
                    f"entry {index} is in the log, and no key of the ring ever signed it: {error}:"
                    " whoever appended it was not the server, and it counts for nothing here"
                )
                continue
            doubts.append(f"entry {index} is in the log, but its signature is not good: {error}")
        what = event.what
        previous = None if what.previous is None else str(what.previous)
        if previous is not None and previous not in {known.sha256 for known in events}:
            doubts.append(f"entry {index} names a policy before it that was left out: {previous}")
        events.append(PolicyInForce(index, event.at, what.number, str(what.sha256), previous, None))
    return ProvedPolicies(tuple(events), tuple(doubts))


async def _named(log: VerifiedLog, index: int) -> bytes:
    """An entry that an index names; the log may have grown since we looked at it."""
    try:
        return await log.entry(index)
    except NotFound:
        await log.published()
    try:
        return await log.entry(index)
    except NotFound as error:
        raise LogInconsistent(f"the place names entry {index}, and {error}") from error


async def indexes_of(
    place: LogPlace, kinds: Sequence[str], *, clock: Clock
) -> list[tuple[int, str]]:
    """Which entries are events of these kinds, and each one's kind, as the place's index says.

    Raises: as `open_policy_log`.
    """
    asked = {"event": list(kinds)}
    if place.server is not None and place.token is not None:
        remote = RemoteAudit(place.server, place.token, new_client)
        return await call_or_abandon(_of_server, remote, asked)
    if place.mirror is not None:
        async with indexed_mirror(place.mirror, clock, None) as (index, _):
            return await anyio.to_thread.run_sync(_of_index, index, asked)
    if place.settings is None:
        raise Misconfigured("say where to look: --server, --store or --mirror")
    path = offline_index_path(place.settings, None)
    async with offline_audit(place.settings, path, clock=clock) as audit:
        await audit.catch_up()
        return await anyio.to_thread.run_sync(_of_index, audit.index, asked)


def _of_server(remote: RemoteAudit, asked: _Asked) -> list[tuple[int, str]]:
    found = remote.entries(asked, limit=MAX_POLICIES, newest_first=False)
    try:
        return [(int(row["index"]), str(row["event"])) for row in found]
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptObject("the server's list of events is not well formed") from error


def _of_index(index: AuditIndex, asked: _Asked) -> list[tuple[int, str]]:
    wanted, found = Filter.parse(asked), list[tuple[int, str]]()
    page = PageRequest(limit=MAX_PAGE)
    while True:
        answer = index.query(wanted, page)
        found += [(row.number, row.event) for row in answer.rows]
        if not answer.more:
            return found
        page = PageRequest(limit=MAX_PAGE, after=found[-1][0])
