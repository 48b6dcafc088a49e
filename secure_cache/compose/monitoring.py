"""One look of the monitor at a log."""

from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import anyio.to_thread
import msgspec

from secure_cache.audit.reading import statement_of
from secure_cache.audit.watch import Watch
from secure_cache.audit.watch_alert import Alert, Severity
from secure_cache.audit.watch_rules import WatchRules
from secure_cache.audit.watch_signatures import SigningKeys
from secure_cache.client.all_cores import MANY
from secure_cache.client.monitor_state import MonitorState, StateFile
from secure_cache.compose.announced import announced_before
from secure_cache.compose.examining import examine
from secure_cache.compose.log_source import LogPlace, LogSource, open_log_source
from secure_cache.compose.policy_log import indexes_of
from secure_cache.model.clock import Clock, rfc3339
from secure_cache.model.entry import Entry
from secure_cache.model.errors import (
    CorruptObject,
    HistoryChanged,
    LogInconsistent,
    Malformed,
    Unavailable,
)
from secure_cache.provenance.event import Event
from secure_cache.tlog.cosignature import cosignature_time
from secure_cache.tlog.note import Ed25519Verifier

_BATCH = 2048
_LEEWAY_SECONDS = 300
_AGAIN_SECONDS = 3600
_Documents = list[dict[str, Any]]


class Outlet(Protocol):
    """Gives alerts out."""

    def show(self, alerts: _Documents) -> None:
        """To whoever has started the monitor."""
        ...

    def post(self, alerts: _Documents) -> None:
        """To the webhook, if there is one. Raises: Unavailable: it may not have all of them."""
        ...


@dataclass(frozen=True, slots=True)
class Looked:
    """What a look has found.

    Attributes:
        judged: so many entries.
        alerts: so many were given out.
        broken: why nothing in the log can be believed; None when it is in order.
        told: whether the webhook, if there is one, took the alert about that.
        pinned: the log's key came from the auditor, or from an earlier look.
    """

    judged: int
    alerts: int
    broken: str | None = None
    told: bool = True
    pinned: bool = True


async def look(
    place: LogPlace,
    rules: WatchRules,
    file: StateFile,
    outlet: Outlet,
    *,
    begin: int | None,
    clock: Clock,
) -> Looked:
    """Judge what is new.

    1. the log leads on from the checkpoint that was seen last
    2. a batch of entries is judged; its alerts are delivered
    3. the state says that they are: a crash before it delivers them once more, and none is lost

    A log that is not proved is an alert too, and so is a state that is damaged: whoever waits for
    alerts must not take silence for peace.

    Args:
        place: where the log is.
        rules: what is expected.
        file: how far the last look has come.
        outlet: gives alerts out.
        begin: the first entry to judge in a first look; None: what comes from now on.
        clock: for the age of the log.

    Raises:
        Unavailable: the place, or whoever takes the alerts. Malformed: `begin` is not in the log.
    """
    one = _Look(place, rules, file, outlet, clock)
    try:
        return await one(begin)
    except HistoryChanged as error:
        kept = await anyio.to_thread.run_sync(
            file.keep_evidence, error.older, error.newer, error.proof
        )
        text = f"{error}. Both signed checkpoints are in {kept}."
        alert = Alert("history-changed", Severity.ALARM, text)
    except (LogInconsistent, CorruptObject) as error:
        alert = Alert("log-inconsistent", Severity.ALARM, f"{error}.")
    told = False
    # A webhook that is down must not make an outage of the loudest alarm that there is.
    with suppress(Unavailable):
        await one.stand([alert])
        told = True
    return Looked(0, 1, broken=alert.sentence, told=told)


@dataclass(frozen=True, slots=True)
class _Look:
    place: LogPlace
    rules: WatchRules
    file: StateFile
    outlet: Outlet
    clock: Clock

    async def __call__(self, begin: int | None) -> Looked:
        before = self.file.read()
        place = _pinned(self.place, before, self.file.path)
        last = None if before is None else before.note.encode()
        async with open_log_source(place, clock=self.clock, last=last) as source:
            size = (await source.log.published()).size
            if last is not None:
                # Also for stores, whose own reader knows nothing of what was seen here.
                await source.must_follow(last)
            state = await self._seen(source, before, begin, size)
            told = 0
            if state.next < size:
                watch = await self._watch(source, place, state)
                told = await self._judge(source, watch, state, size)
            else:
                await self._write(state)
            told += await self._stale(source, state.alive_at)
            return Looked(size - state.next, told, pinned=source.pinned)

    async def _seen(
        self, source: LogSource, before: MonitorState | None, begin: int | None, size: int
    ) -> MonitorState:
        """The state with what this look has seen of the log as a whole."""
        now = int(self.clock())
        if before is None:
            if begin is not None and begin > size:
                raise Malformed(f"--from {begin}: the log has {size} entries")
            seen, keys = 0, tuple(str(key) for key in source.verifiers)
            first = size if begin is None else begin
            before = MonitorState(v=1, origin=source.origin, vkeys=keys, note="", next=first)
        else:
            seen = source.trust.open_last(before.note.encode()).size
        if before.next > size:
            raise CorruptObject(f"{self.file.path} says that more was judged than the log has")
        alive_at = before.alive_at
        if size > seen or not alive_at:
            # It has grown since the last look. What the entry claims counts in between only: a
            # date in the future would hide for years that nothing comes any more.
            claimed = await _claimed(source, size)
            if claimed > now + _LEEWAY_SECONDS:
                claimed = 0
            alive_at = min(now, max(claimed, before.looked_at))
        note = (await source.log.checkpoint_note()).decode()
        return msgspec.structs.replace(before, note=note, looked_at=now, alive_at=alive_at)

    async def _watch(self, source: LogSource, place: LogPlace, state: MonitorState) -> Watch:
        keys = SigningKeys(await source.ring(), state.revoked)
        policies, number = state.policies, state.policy_number
        if state.next == 0:
            policies, number = (), 0
        if policies is None or keys.unplaced:
            events = await indexes_of(place, ("policy", "keys"), clock=self.clock)
            before = await announced_before(source.log, keys, events, state.next)
            keys = before.keys
            if policies is None:
                policies, number = before.policies, before.number
        return Watch(self.rules, keys, policies, number)

    async def _judge(self, source: LogSource, watch: Watch, state: MonitorState, size: int) -> int:
        """Judge entries, batch by batch; how many alerts were delivered."""
        told, ring, apart = 0, watch.keys.ring, size - state.next > MANY
        async for first, leaves in _batches(source.log.entries(state.next, size)):
            at = first
            while at < first + len(leaves):
                rest = leaves[at - first :]
                examined = await examine(watch, at, rest, apart=apart)
                alerts, settled = await anyio.to_thread.run_sync(watch.settle, at, rest, examined)
                if alerts:
                    await self._deliver(alerts, state.origin)
                told, at = told + len(alerts), at + settled
                await self._write(_judged(state, watch, at))
        if self.place.keys is None and watch.announced not in {None, str(ring.digest)}:
            # A key that is new there is unknown here: all of it is judged again.
            await self._write(state)
            raise LogInconsistent(
                "the log announces other keys than the place gives: if they were changed just now,"
                " look again; else it hides them"
            )
        return told

    async def _stale(self, source: LogSource, alive_at: int) -> int:
        """Tell that the log shows no sign of life; how many alerts.

        A checkpoint itself says no time. What counts is when it was seen to grow, by the clock
        here, and what witnesses that were asked for have cosigned."""
        now, newest = int(self.clock()), alive_at
        if source.trust.witnesses is not None:
            note = await source.log.checkpoint_note()
            found = source.trust.witnesses.verify(note, log=source.verifiers[0]).cosignatures
            times = (cosignature_time(item.value) for item in found.values())
            newest = max(newest, *(time for time in times if time <= now + _LEEWAY_SECONDS), 0)
        limit = self.rules.max_age_seconds
        alerts = []
        if limit is not None and now - newest > limit:
            since = f"of {rfc3339(newest)}" if newest else "of nobody knows when"
            text = f"The log's newest sign of life is {since}: nobody writes, or it is held back."
            alerts.append(Alert("stale", Severity.ALARM, text))
        await self.stand(alerts)
        return len(alerts)

    async def stand(self, alerts: list[Alert]) -> None:
        """Tell what is wrong with the log as a whole: each look shows it, and the webhook gets it
        when it begins and once an hour. Without a state that can be read it gets it each time.

        Raises: Unavailable.
        """
        state, now = None, int(self.clock())
        with suppress(CorruptObject):
            state = self.file.read()
        was = {} if state is None else state.standing
        documents = [alert.document("" if state is None else state.origin) for alert in alerts]
        await anyio.to_thread.run_sync(self.outlet.show, documents)
        due = [item for item in documents if now - was.get(item["id"], 0) >= _AGAIN_SECONDS]
        if due:
            await anyio.to_thread.run_sync(self.outlet.post, due)
        told = {item["id"]: was.get(item["id"], 0) for item in documents}
        told |= {item["id"]: now for item in due}
        if state is not None and told != was:
            await self._write(msgspec.structs.replace(state, standing=told))

    async def _deliver(self, alerts: list[Alert], origin: str) -> None:
        documents = [alert.document(origin) for alert in alerts]
        await anyio.to_thread.run_sync(self.outlet.show, documents)
        await anyio.to_thread.run_sync(self.outlet.post, documents)

    async def _write(self, state: MonitorState) -> None:
        await anyio.to_thread.run_sync(self.file.write, state)


def _pinned(place: LogPlace, state: MonitorState | None, path: Path) -> LogPlace:
    """The place, held to the log's key as it was at the first look."""
    if state is None:
        return place
    pinned = tuple(Ed25519Verifier.parse(vkey) for vkey in state.vkeys)
    if place.log_keys and set(place.log_keys) != set(pinned):
        raise LogInconsistent(f"{path} is about a log with another key")
    return replace(place, log_keys=pinned)


def _judged(state: MonitorState, watch: Watch, reached: int) -> MonitorState:
    return msgspec.structs.replace(
        state,
        next=reached,
        policies=watch.policies,
        policy_number=watch.number,
        revoked=dict(watch.keys.revoked_at),
    )


async def _batches(
    entries: AsyncIterator[tuple[int, bytes]],
) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Entries some at a time, with the index of the first."""
    first, leaves = 0, list[bytes]()
    async for index, leaf in entries:
        if not leaves:
            first = index
        leaves.append(leaf)
        if len(leaves) == _BATCH:
            yield first, leaves
            leaves = []
    if leaves:
        yield first, leaves


async def _claimed(source: LogSource, size: int) -> int:
    """The time of the newest entry, as it says; 0 where it says none."""
    if not size:
        return 0
    match statement_of(await source.log.entry(size - 1)):
        case Entry(stored_at=at) | Event(at=at):
            return at
        case _:
            return 0
