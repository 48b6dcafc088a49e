"""One look of the monitor at a log."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import anyio.to_thread
import msgspec

from secure_cache.audit.watch import Watch
from secure_cache.audit.watch_alert import Alert, Severity
from secure_cache.audit.watch_rules import WatchRules
from secure_cache.audit.watch_signatures import SigningKeys
from secure_cache.client.all_cores import MANY
from secure_cache.client.monitor_state import MonitorState, StateFile
from secure_cache.compose.alerting import Desk, Outlet
from secure_cache.compose.announced import announced_before, announced_since
from secure_cache.compose.examining import examine, in_batches
from secure_cache.compose.log_source import LogPlace, LogSource, open_log_source
from secure_cache.compose.policy_log import indexes_of
from secure_cache.compose.signs_of_life import grown_at, stale, unseen
from secure_cache.model.clock import Clock
from secure_cache.model.errors import (
    CorruptObject,
    HistoryChanged,
    LogInconsistent,
    Malformed,
    NotFound,
    StorageUnavailable,
    Unavailable,
)
from secure_cache.provenance.keys import KeyRing
from secure_cache.tlog.fetched import CHECKPOINT
from secure_cache.tlog.note import Ed25519Verifier

_UNWRITTEN = 50_000


@dataclass(frozen=True, slots=True)
class Looked:
    """What a look has found.

    Attributes:
        judged: so many entries.
        alerts: so many were given out.
        broken: why nothing in the log can be believed; None when it is in order.
        told: whether the webhook, if there is one, took the alert about that.
        pinned: the log's key came from the auditor, or from an earlier look.
        began: index of the first entry to judge, in a first look.
    """

    judged: int
    alerts: int
    broken: str | None = None
    told: bool = True
    pinned: bool = True
    began: int | None = None


async def look(
    place: LogPlace,
    rules: WatchRules,
    file: StateFile,
    outlet: Outlet,
    *,
    begin: int | None,
    clock: Clock,
    progress: Callable[[int, int], None] | None = None,
) -> Looked:
    """Judge what is new.

    1. the log leads on from the checkpoint that was seen last, and its own is remembered
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
        progress: how many entries of how many are behind it.

    Raises:
        Unavailable: the place, or whoever takes the alerts. Malformed: `begin` is not in the log.
    """
    desk = Desk(outlet, file, clock)
    try:
        return await _Look(place, rules, file, desk, clock, progress)(begin)
    except Unavailable:
        await _tell_unseen(rules, file, desk, int(clock()))
        raise
    except HistoryChanged as error:
        alert = await desk.history_changed(error)
    except (LogInconsistent, CorruptObject) as error:
        text = f"{str(error).removesuffix('.')}."
        alert = Alert("log-inconsistent", Severity.ALARM, text)
    told = False
    # A webhook that is down must not make an outage of the loudest alarm that there is.
    with suppress(Unavailable):
        await desk.stand([alert])
        told = True
    return Looked(0, 1, broken=alert.sentence, told=told)


async def _tell_unseen(rules: WatchRules, file: StateFile, desk: Desk, now: int) -> None:
    """An outage that lasts is how a log would be held back, too."""
    with suppress(Unavailable, CorruptObject):
        state = await anyio.to_thread.run_sync(file.read)
        if state is None:
            return
        limit = rules.max_age_seconds
        if found := unseen(alive_at=state.alive_at, max_age=limit, now=now):
            await desk.stand(found)


@dataclass(frozen=True, slots=True)
class _Look:
    place: LogPlace
    rules: WatchRules
    file: StateFile
    desk: Desk
    clock: Clock
    progress: Callable[[int, int], None] | None

    async def __call__(self, begin: int | None) -> Looked:
        before = self.file.read()
        place = _pinned(self.place, before, self.file.path)
        last = None if before is None else before.note.encode()
        async with open_log_source(place, clock=self.clock, last=last) as source:
            size = await self._size(source, last)
            state = await self._seen(source, before, begin, size)
            told = 0
            if state.next < size:
                # While nobody takes the alerts, a log that is put back must be noticed all the
                # same. On a disk that is full they are told first.
                with suppress(StorageUnavailable):
                    await self._write(state)
                watch = await self._watch(source, place, state)
                told = await self._judge(source, watch, state, size)
            else:
                await self._write(state)
            now, limit = int(self.clock()), self.rules.max_age_seconds
            found = await stale(source, alive_at=state.alive_at, max_age=limit, now=now)
            await self.desk.stand(found)
            began = state.next if before is None else None
            return Looked(size - state.next, told + len(found), pinned=source.pinned, began=began)

    async def _size(self, source: LogSource, last: bytes | None) -> int:
        """Of the log, which leads on from what was seen last."""
        try:
            size = (await source.log.published()).size
            if last is not None:
                # Also for stores, whose own reader knows nothing of what was seen here.
                await source.must_follow(last)
        except HistoryChanged:
            raise
        except LogInconsistent as error:
            raise await self._unshown(source, last, error) from error
        return size

    async def _unshown(
        self, source: LogSource, last: bytes | None, error: LogInconsistent
    ) -> LogInconsistent:
        """If the log's key has signed a checkpoint that nobody can show to lead on: damage, or a
        hidden history. The signature is kept either way."""
        try:
            note = await source.fetch(CHECKPOINT)
            source.trust.open_last(note)
        except (LogInconsistent, NotFound, CorruptObject, Unavailable):
            return error
        if last is None or note == last:
            return error
        return LogInconsistent(f"{error}. {await self.desk.keep(last, note, None)}")

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
        # A clock that was wrong must not keep a log alive for years.
        alive_at = min(before.alive_at, now)
        if size > seen or not alive_at:
            alive_at = await grown_at(source, size, looked_at=before.looked_at, now=now)
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
        return Watch(
            self.rules, keys, policies, number, now=int(self.clock()), newest=state.signed_at
        )

    async def _judge(self, source: LogSource, watch: Watch, state: MonitorState, size: int) -> int:
        """Judge entries, batch by batch; how many alerts were delivered."""
        told, ring, apart = 0, watch.keys.ring, size - state.next > MANY
        at = written = state.next
        async for first, leaves in in_batches(source.log.entries(state.next, size)):
            while at < first + len(leaves):
                rest = leaves[at - first :]
                examined = await examine(watch, at, rest, apart=apart)
                alerts, settled = await anyio.to_thread.run_sync(watch.settle, at, rest, examined)
                await self.desk.tell(alerts, state.origin)
                told, at = told + len(alerts), at + settled
                # What raised no alert may be judged again after a crash: fsync takes time.
                if alerts or at - written >= _UNWRITTEN:
                    await self._write(_judged(state, watch, at))
                    written = at
            if self.progress is not None:
                self.progress(at, size)
        if written < at:
            await self._write(_judged(state, watch, at))
        if await self._hides(source, watch.announced, ring, size):
            # A key that is new there is unknown here: all of it is judged again.
            await self._write(state)
            raise LogInconsistent(
                "the log announces other keys than the place gives: if they were changed just now,"
                " look again; else it hides them"
            )
        return told

    async def _hides(
        self, source: LogSource, announced: str | None, ring: KeyRing, size: int
    ) -> bool:
        """Whether the place gives older keys than the log announced last. The auditor's own keys,
        and those of the installation's own folder, need no announcement."""
        if self.place.keys is not None or self.place.settings is not None:
            return False
        if announced in {None, str(ring.digest)}:
            return False
        return not await announced_since(source.log, ring, size)

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
        signed_at=watch.newest,
    )
