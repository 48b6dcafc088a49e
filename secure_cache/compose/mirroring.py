"""Mirrors: from a log's source to a folder, and from a folder to answers."""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import anyio.to_thread
import msgspec

from secure_cache.audit.auditor import Auditor
from secure_cache.audit.filters import Filter
from secure_cache.audit.index import AuditIndex, remove_index
from secure_cache.audit.policy_history import PolicyHistory
from secure_cache.audit.queries import PageRequest
from secure_cache.audit.row import Row
from secure_cache.client.mirror import Mirrored, Origin, opened_mirror
from secure_cache.client.mirror_check import Checked, check_mirror
from secure_cache.client.mirror_folder import INDEX, PINS, MirrorProblem, new_pins, read_pins
from secure_cache.client.mirror_tree import Progress
from secure_cache.compose.audit_offline import OfflineAudit
from secure_cache.compose.auditing import open_index
from secure_cache.compose.log_source import LogPlace, LogSource, open_log_source
from secure_cache.identity.presets import load_presets
from secure_cache.model.clock import Clock
from secure_cache.model.errors import (
    CorruptObject,
    DamagedIndex,
    InvalidPolicy,
    Misconfigured,
    NotFound,
    Unavailable,
)
from secure_cache.policy.compile import CompiledPolicy
from secure_cache.policy.past import read_past_policy
from secure_cache.provenance.keys import KeyRing
from secure_cache.provenance.verify import verify_event
from secure_cache.tlog.note import Ed25519Verifier

_MANY = 20_000
_REBUILD = "make it anew: `audit mirror` with --repair"


@dataclass(frozen=True, slots=True)
class MirrorRun:
    """How a run ended: what it did, and whether the log's key had been pinned by somebody."""

    mirrored: Mirrored
    pinned: bool


async def run_mirror(
    place: LogPlace,
    folder: Path,
    tell: Callable[[MirrorRun], None],
    *,
    clock: Clock,
    repair: bool,
    progress: Progress | None,
) -> None:
    """Begin a mirror, or go on with it; then bring its index up to date.

    Args:
        place: where the log is.
        folder: of the mirror.
        tell: given what was found, as soon as the mirror is whole. What it was not told to its end
            is told again by the next run.
        clock: for policy and keys of an installation.
        repair: prove all of it again, and fetch what is damaged.
        progress: told how far it is.

    Raises:
        as `Mirror.bring_up_to_date` and `open_log_source`; DamagedIndex: the mirror's index.
    """
    exists = (folder / PINS).exists()
    if exists:
        pins = read_pins(folder)
        ours = tuple(Ed25519Verifier.parse(vkey) for vkey in pins.vkeys)
        if place.log_keys and set(place.log_keys) != set(ours):
            raise Misconfigured(f"{folder} mirrors a log with another key than --log-key says")
        place = replace(place, log_keys=ours)
    async with open_log_source(place, clock=clock) as source:
        if not exists:
            found = tuple(Ed25519Verifier.parse(str(key)) for key in source.verifiers)
            pins = new_pins(found, _name(place))
        origin = Origin(
            fetch=source.fetch,
            trust=source.trust,
            given_ring=source.given_ring,
            policy_text=source.policy_text,
            keys=place.keys,
            remedy=source.remedy,
        )
        begin = msgspec.structs.replace(pins, source=_name(place))
        with opened_mirror(folder, begin) as mirror:
            done = await mirror.bring_up_to_date(origin, anew=repair, progress=progress)
            tell(MirrorRun(done, source.pinned or exists))
            await mirror.told()
            if repair:
                await anyio.to_thread.run_sync(remove_index, folder / INDEX)
            async with indexed_mirror(folder, clock, progress):
                pass


async def check_whole_mirror(
    folder: Path, result: Checked, *, clock: Clock, progress: Progress | None
) -> AsyncIterator[MirrorProblem]:
    """Everything that is wrong in a mirror. Needs no network.

    Raises: Misconfigured, CorruptObject: `mirror.json`.
    """
    pins = read_pins(folder)
    async with open_log_source(LogPlace(mirror=folder), clock=clock) as source:
        found = False
        async with aclosing(
            check_mirror(folder, source.trust, pins, result, progress=progress)
        ) as problems:
            async for problem in problems:
                found = True
                yield problem
        if not found:
            for problem in (await check_mirror_index(folder, source, with_log=True))[0]:
                yield problem


async def check_mirror_index(
    folder: Path, source: LogSource, *, with_log: bool
) -> tuple[list[MirrorProblem], int]:
    """What is wrong in a mirror's index, and how many entries it has; with the log, also each row
    against its entry. That it is behind, or gone, is nothing wrong: whoever asks makes it.

    Raises: LogInconsistent: the mirror's files are damaged.
    """
    path = folder / INDEX
    if not path.exists():
        return [], 0
    try:
        index = await anyio.to_thread.run_sync(_open_index, path)
        try:
            size = (await anyio.to_thread.run_sync(index.state)).size
            findings = await anyio.to_thread.run_sync(index.check)
            if with_log and not findings:
                findings = await index.check_against(source.log)
        finally:
            index.close()
    except DamagedIndex as error:
        return [MirrorProblem(INDEX, str(error).partition(";")[0], _REBUILD)], 0
    return [MirrorProblem(INDEX, str(finding), _REBUILD) for finding in findings], size


@asynccontextmanager
async def mirror_audit(folder: Path, *, clock: Clock) -> AsyncIterator[OfflineAudit]:
    """Answers from a mirror: what is served now it cannot know.

    Its index is brought up to date first: a run that was killed may have left it behind, and who
    asks must not take an index that is not there for a log without entries.

    Raises: as `open_log_source`; DamagedIndex; Unavailable: another process is indexing.
    """
    try:
        async with _asked_mirror(folder, clock) as audit:
            yield audit
    except DamagedIndex as error:
        what = str(error).partition(";")[0]
        raise DamagedIndex(
            f"{what}; the mirror itself is not touched: `secure-cache audit mirror {folder}"
            f" --repair`, or delete {INDEX}, and it is made anew from the mirror"
        ) from error


@asynccontextmanager
async def _asked_mirror(folder: Path, clock: Clock) -> AsyncIterator[OfflineAudit]:
    async with indexed_mirror(folder, clock, None) as (index, source):
        ring = await source.ring()
        policy: list[CompiledPolicy | None] = [None]
        auditor = Auditor(
            index=index,
            log=source.log,
            policy=lambda: policy[0],
            clock=clock,
            ring=lambda: ring,
        )
        history = PolicyHistory(
            known=auditor, texts=_MirroredTexts(source), presets=load_presets(), cases=tuple
        )
        policy[0] = await _newest_policy(index, source, ring)
        yield OfflineAudit(index, source.log, auditor, history)


@dataclass(frozen=True, slots=True)
class _MirroredTexts:
    """Implements `audit.policy_texts.PolicyTexts`."""

    source: LogSource

    async def text(self, number: int, sha256: str) -> bytes:  # noqa: ARG002 - the port's
        return await self.source.policy_text(sha256)


async def _newest_policy(
    index: AuditIndex, source: LogSource, ring: KeyRing
) -> CompiledPolicy | None:
    """The policy that the log says took effect last; None where nobody can tell what it says."""
    row = await _newest_policy_event(index, source, ring.before_revocations())
    if row is None or row.policy_sha256 is None:
        return None
    sha256 = row.policy_sha256
    try:
        text = await source.policy_text(sha256)
        return read_past_policy(text, name=sha256, presets=load_presets(), now=row.at or 0)
    except (NotFound, CorruptObject, InvalidPolicy):
        return None


async def _newest_policy_event(index: AuditIndex, source: LogSource, ring: KeyRing) -> Row | None:
    """The newest that a key of ours signed: whoever can append must not put an older policy in
    force here."""
    wanted, page = Filter.parse({"event": ["policy"]}), PageRequest(newest_first=True)
    while True:
        found = await anyio.to_thread.run_sync(index.query, wanted, page)
        for row in found.rows:
            with suppress(CorruptObject):
                verify_event(await source.log.entry(row.number), ring)
                return row
        if not found.more:
            return None
        page = replace(page, before=found.rows[-1].number)


@asynccontextmanager
async def indexed_mirror(
    folder: Path, clock: Clock, progress: Progress | None
) -> AsyncIterator[tuple[AuditIndex, LogSource]]:
    """The index, with all that the mirror holds, and the log behind it.

    Raises: as `mirror_audit`.
    """
    async with open_log_source(LogPlace(mirror=folder), clock=clock) as source:
        published = await source.log.published()
        index = await anyio.to_thread.run_sync(_open_index, folder / INDEX)
        try:
            state = await anyio.to_thread.run_sync(index.state)
            if state.size != published.size:
                tell = None if progress is None else partial(progress, "indexing")
                many = published.size - state.size > _MANY
                done = await index.catch_up(source.log, progress=tell, apart=many)
                if not done.ours:
                    raise Unavailable(f"{folder}: another process is indexing; ask again soon")
            yield index, source
        finally:
            index.close()


def _open_index(path: Path) -> AuditIndex:
    if path.is_symlink():
        raise DamagedIndex(f"{path} is a link, which leads out of the mirror; remove it")
    return open_index(path)


def _name(place: LogPlace) -> str:
    if place.server is not None:
        return place.server.url
    return "stores" if place.settings is not None else str(place.mirror)
