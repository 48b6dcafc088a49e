"""Proofs of entries, taken from wherever the log is and verified before they are given out."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from secure_cache.audit.filters import Filter
from secure_cache.audit.forms import inert_json
from secure_cache.audit.queries import PageRequest
from secure_cache.client.abandoned import call_or_abandon
from secure_cache.client.audit import RemoteAudit
from secure_cache.client.http_answer import new_client
from secure_cache.client.proofs import ProvedEntry, judged_entry, prove_logged
from secure_cache.compose.audit_offline import OfflineAudit, offline_audit, offline_index_path
from secure_cache.compose.log_source import LogPlace, LogSource
from secure_cache.compose.mirroring import mirror_audit
from secure_cache.model.clock import Clock
from secure_cache.model.errors import (
    CorruptObject,
    LogInconsistent,
    Misconfigured,
    NotFound,
    Unavailable,
)
from secure_cache.provenance.bundle import sigstore_bundle
from secure_cache.provenance.keys import KeyRing

MAX_SERVED = 500
"""So many entries with one digest are proved, the newest; a build output that never changes has
many."""


@dataclass(frozen=True, slots=True)
class Proved:
    """An entry, and the files that prove it, by name."""

    entry: ProvedEntry
    files: dict[str, bytes]


@dataclass(frozen=True, slots=True)
class Served:
    """An entry for some bytes, proved, and what the place says has become of it."""

    entry: ProvedEntry
    state: str


@dataclass(frozen=True, slots=True)
class ServedAs:
    """All entries for some bytes that a place names.

    Attributes:
        found: the newest, at most MAX_SERVED.
        more: there are older ones.
        whole: the place is an index that was made here, of the whole log: it hides nothing.
    """

    found: list[Served]
    more: bool
    whole: bool


async def prove(source: LogSource, index: int, *, with_bundle: bool = False) -> Proved:
    """The files of `audit prove`.

    An entry that no key in force has signed is proved, too: that it is in the log is what somebody
    may have to show.

    Raises:
        NotFound: the log has no such entry.
        LogInconsistent: what the place gives proves nothing.
        CorruptObject: a bundle was asked for, and the entry is no envelope.
    """
    found, proof, leaf = await _proved(source, await source.ring(), index)
    files = {f"{index}.tlog-proof": proof, f"{index}.leaf": leaf}
    if with_bundle:
        try:
            bundle = sigstore_bundle(leaf)
        except CorruptObject as error:
            raise CorruptObject(f"entry {index} does not fit into a bundle: {error}") from error
        files[f"{index}.sigstore.json"] = inert_json(bundle, indent=2)
    return Proved(found, files)


async def served_as(
    source: LogSource, place: LogPlace, sha256: str, size: int, *, key: str | None, clock: Clock
) -> ServedAs:
    """The entries for some bytes, each proved.

    A server is asked which they are, and believed in nothing that it names: it could hide one.

    Raises:
        LogInconsistent: the place names an entry that says something else.
        Unavailable: its index is not complete now.
    """
    given = {"digest": [sha256], "event": ["stored"]}
    if key is not None:
        given["key"] = [key]
    ring = await source.ring()
    found: dict[int, Served] = {}
    async for index, state in _named(place, given, clock):
        entry = await _named_entry(source, ring, index)
        row = entry.row
        if (row.get("digest"), row.get("size")) != (sha256, size) or row["event"] != "stored":
            raise LogInconsistent(f"entry {index} is for other bytes than the place says")
        if key is not None and row.get("key") != key:
            raise LogInconsistent(f"entry {index} has another key than the place says")
        found[index] = Served(entry, state)
    served = list(found.values())
    return ServedAs(served[:MAX_SERVED], len(served) > MAX_SERVED, whole=place.server is None)


async def _named_entry(source: LogSource, ring: KeyRing, index: int) -> ProvedEntry:
    """An entry that an index names; the log may have grown since we looked at it."""
    try:
        return (await _proved(source, ring, index))[0]
    except NotFound:
        await source.log.published()
    try:
        return (await _proved(source, ring, index))[0]
    except NotFound as error:
        raise LogInconsistent(f"the place names entry {index}, and {error}") from error


async def _proved(source: LogSource, ring: KeyRing, index: int) -> tuple[ProvedEntry, bytes, bytes]:
    proof = bytes(await source.log.proof(index))
    leaf = await source.log.entry(index)
    try:
        found = prove_logged(proof, leaf, source.trust)
    except CorruptObject as error:
        raise LogInconsistent(str(error)) from error
    return judged_entry(found, leaf, ring), proof, leaf


async def _named(
    place: LogPlace, given: dict[str, list[str]], clock: Clock
) -> AsyncIterator[tuple[int, str]]:
    """Index and state of the newest entries that a place names, one more than are shown."""
    if place.server is not None:
        remote = RemoteAudit(place.server, place.token or "", new_client)
        rows = await call_or_abandon(
            lambda: list(remote.entries(given, limit=MAX_SERVED + 1, newest_first=True))
        )
        for row in rows:
            index = _index_in(row)
            details = await call_or_abandon(remote.details, index)
            yield index, _state(details["state"])
        return
    async with offline_of(place, clock) as audit:
        # A mirror's is up to date already, and may lie on a disk that is read-only.
        if place.mirror is None:
            done = await audit.catch_up()
            if not done.ours and done.size < done.published:
                raise Unavailable("another process is indexing this log: ask again soon")
        page = PageRequest(newest_first=True, limit=MAX_SERVED + 1)
        for found in (await audit.auditor.query(Filter.parse(given), page)).rows:
            details = (await audit.auditor.details(found.number)).document()
            yield found.number, _state(details["state"])


def _index_in(row: Any) -> int:
    """Of a row from a server, which may be anything."""
    index = row.get("index") if isinstance(row, dict) else None
    if not isinstance(index, int) or isinstance(index, bool) or index < 0:
        raise LogInconsistent("the server names an entry without an index in the log")
    return index


@asynccontextmanager
async def offline_of(place: LogPlace, clock: Clock) -> AsyncIterator[OfflineAudit]:
    """The index of a place that is not a server. Raises: Misconfigured, DamagedIndex."""
    if place.mirror is not None:
        async with mirror_audit(place.mirror, clock=clock) as audit:
            yield audit
    elif place.settings is not None:
        path = offline_index_path(place.settings, None)
        async with offline_audit(place.settings, path, clock=clock) as audit:
            yield audit
    else:
        raise Misconfigured("only a store or a mirror has an index at hand")


def _state(document: Any) -> str:
    if not isinstance(document, dict):
        return "unknown"
    return f"{document.get('state')} ({document.get('line')}): {document.get('why')}"
