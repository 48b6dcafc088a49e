"""One look of the monitor at a log."""

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio.to_thread
import msgspec

from secure_cache.audit.reading import statement_of
from secure_cache.audit.watch import Alert, Severity, Watch
from secure_cache.audit.watch_rules import WatchRules
from secure_cache.client.mirror_folder import put
from secure_cache.client.monitor_state import MonitorState, StateFile
from secure_cache.compose.log_source import LogPlace, LogSource, open_log_source
from secure_cache.compose.policy_log import open_policy_log
from secure_cache.model.clock import Clock, rfc3339
from secure_cache.model.entry import Entry
from secure_cache.model.errors import (
    CorruptObject,
    HistoryChanged,
    LogInconsistent,
    Unavailable,
)
from secure_cache.provenance.event import Event
from secure_cache.tlog.cosignature import cosignature_time
from secure_cache.tlog.fetched import CHECKPOINT
from secure_cache.tlog.note import Ed25519Verifier

_BATCH = 256

Deliver = Callable[[list[dict[str, Any]]], None]
"""Gives alerts out. Raises: Unavailable: they may not have arrived."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What a look has found.

    Attributes:
        judged: so many entries.
        alerts: so many were given out.
        broken: the log's history is not what it was: nothing in it can be believed.
        pinned: the log's key came from the auditor, or from an earlier look.
    """

    judged: int
    alerts: int
    broken: bool
    pinned: bool


async def look(
    place: LogPlace,
    rules: WatchRules,
    file: StateFile,
    deliver: Deliver,
    *,
    begin: int | None,
    clock: Clock,
) -> Looked:
    """Judge what is new.

    1. the log leads on from the checkpoint that was seen last
    2. a batch of entries is judged; its alerts are delivered
    3. the state says that they are: a crash before it delivers them once more, and none is lost

    Args:
        place: where the log is.
        rules: what is expected.
        file: how far the last look has come.
        deliver: gives alerts out.
        begin: the first entry to judge in a first look; None: what comes from now on.
        clock: for the age of the log.

    Raises:
        Unavailable: the place, or whoever takes the alerts. LogInconsistent: it is not proved.
    """
    state = file.read()
    if state is not None:
        pinned = tuple(Ed25519Verifier.parse(vkey) for vkey in state.vkeys)
        if place.log_keys and set(place.log_keys) != set(pinned):
            raise LogInconsistent(f"{file.path} is about a log with another key")
        place = replace(place, log_keys=pinned)
    last = None if state is None else state.note.encode()
    async with open_log_source(place, clock=clock, last=last) as source:
        try:
            size = (await source.log.published()).size
            if last is not None:
                # Also for stores, whose own reader knows nothing of what was seen here.
                await source.must_follow(last)
        except HistoryChanged as error:
            kept = _keep(file.path, error)
            text = f"{error}. Both signed checkpoints are in {kept}."
            # A webhook that is down must not make an outage of the loudest alarm that there is.
            with suppress(Unavailable):
                deliver([Alert("history-changed", Severity.ALARM, text).document()])
            return Looked(0, 1, broken=True, pinned=source.pinned)
        if state is None:
            keys = tuple(str(key) for key in source.verifiers)
            first = size if begin is None else begin
            state = MonitorState(v=1, origin=source.origin, vkeys=keys, note="", next=first)
        state = msgspec.structs.replace(state, note=(await source.log.checkpoint_note()).decode())
        known = await _policies(place, clock, state.next)
        if state.next > size and last is not None:
            raise CorruptObject(f"{file.path} says that more was judged than the log has")
        ring = await source.ring()
        watch = Watch(rules, ring, known)
        judged = size - min(state.next, size)
        told = await _judge_new(source.log.entries(state.next, size), watch, state, file, deliver)
        if place.keys is None and watch.announced not in {None, str(ring.digest)}:
            # A key that was revoked there may still count here: all of it is judged again.
            file.write(state)
            raise LogInconsistent(
                "the log announces other keys than the place gives: if they were changed just now,"
                " look again; else it hides them"
            )
        stale = await _stale(source, rules, size, clock())
        if stale is not None:
            deliver([stale.document()])
            told += 1
        return Looked(judged, told, broken=False, pinned=source.pinned)


async def _judge_new(
    entries: AsyncIterator[tuple[int, bytes]],
    watch: Watch,
    state: MonitorState,
    file: StateFile,
    deliver: Deliver,
) -> int:
    """Judge entries, batch by batch; how many alerts were delivered."""
    told, reached = 0, state.next
    batch: list[tuple[int, bytes]] = []

    async def settle() -> int:
        alerts = await anyio.to_thread.run_sync(_judge, watch, list(batch))
        batch.clear()
        if alerts:
            await anyio.to_thread.run_sync(deliver, alerts)
        file.write(msgspec.structs.replace(state, next=reached))
        return len(alerts)

    async for item in entries:
        batch.append(item)
        reached = item[0] + 1
        if len(batch) == _BATCH:
            told += await settle()
    return told + await settle()


def _judge(watch: Watch, batch: list[tuple[int, bytes]]) -> list[dict[str, Any]]:
    return [alert.document() for index, leaf in batch for alert in watch.judge(index, leaf)]


async def _policies(place: LogPlace, clock: Clock, before: int) -> set[str]:
    """Those that took effect before an entry, each proved."""
    async with open_policy_log(place, clock=clock) as policies:
        return {event.sha256 for event in policies.proved.events if event.index < before}


async def _stale(source: LogSource, rules: WatchRules, size: int, now: float) -> Alert | None:
    """A checkpoint itself says no time. Its newest entry does, by the server's clock, and so do
    the cosignatures of witnesses that were asked for: the newest of all these counts."""
    if rules.max_age_seconds is None:
        return None
    newest = 0
    if source.trust.witnesses is not None:
        note = await source.fetch(CHECKPOINT)
        found = source.trust.witnesses.verify(note, log=source.verifiers[0]).cosignatures
        newest = max((cosignature_time(item.value) for item in found.values()), default=0)
    if size:
        statement = statement_of(await source.log.entry(size - 1))
        if isinstance(statement, Entry):
            newest = max(newest, statement.stored_at)
        elif isinstance(statement, Event):
            newest = max(newest, statement.at)
    if now - newest <= rules.max_age_seconds or "stale" in rules.ignored:
        return None
    text = (
        f"The log's newest sign of life is of {rfc3339(newest)}: nobody writes, or it is held back."
    )
    return Alert("stale", Severity.ALARM, text)


def _keep(path: Path, error: HistoryChanged) -> Path:
    folder = path.with_name(f"{path.name}.evidence")
    put(folder / "older.checkpoint", error.older)
    put(folder / "newer.checkpoint", error.newer)
    if error.proof is not None:
        put(folder / "contradiction.json", error.proof)
    return folder
