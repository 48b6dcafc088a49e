"""Proofs of entries, taken from wherever the log is and verified before they are given out."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio.to_thread

from secure_cache.audit.filters import Filter
from secure_cache.audit.forms import inert_json, row_document
from secure_cache.audit.queries import PageRequest
from secure_cache.client.audit import RemoteAudit
from secure_cache.client.http_answer import new_client
from secure_cache.client.proofs import ProvedEntry, prove_entry
from secure_cache.compose.audit_offline import OfflineAudit, offline_audit, offline_index_path
from secure_cache.compose.log_source import LogPlace, LogSource
from secure_cache.compose.mirroring import mirror_audit
from secure_cache.model.clock import Clock
from secure_cache.model.errors import CorruptObject, LogInconsistent, Misconfigured
from secure_cache.provenance.bundle import sigstore_bundle

MAX_SERVED = 1000
"""So many entries with one digest are proved; a build output that never changes has many."""


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


async def prove(source: LogSource, index: int, *, with_bundle: bool = False) -> Proved:
    """The files of `audit prove`.

    Raises:
        NotFound: the log has no such entry.
        LogInconsistent: what the place gives proves nothing.
    """
    found, proof, leaf = await _proved(source, index)
    files = {f"{index}.tlog-proof": proof, f"{index}.leaf": leaf}
    if with_bundle:
        files[f"{index}.sigstore.json"] = inert_json(sigstore_bundle(leaf), indent=2)
    return Proved(found, files)


async def served_as(
    source: LogSource, place: LogPlace, sha256: str, size: int, *, key: str | None, clock: Clock
) -> list[Served]:
    """The entries for some bytes, each proved.

    The place is asked which they are, and believed in nothing that it names: it could hide one.

    Raises:
        LogInconsistent: the place names an entry that says something else.
    """
    given = {"digest": [sha256], "event": ["stored"]}
    if key is not None:
        given["key"] = [key]
    found: list[Served] = []
    async for row, state in _rows(place, given, clock):
        index = int(row["index"])
        entry, _, _ = await _proved(source, index)
        if entry.row.get("digest") != sha256 or entry.row.get("size") != size:
            raise LogInconsistent(f"entry {index} is for other bytes than the place says")
        found.append(Served(entry, state))
    return found


async def _proved(source: LogSource, index: int) -> tuple[ProvedEntry, bytes, bytes]:
    proof = bytes(await source.log.proof(index))
    leaf = await source.log.entry(index)
    try:
        return prove_entry(proof, leaf, source.trust, await source.ring()), proof, leaf
    except CorruptObject as error:
        raise LogInconsistent(str(error)) from error


async def _rows(
    place: LogPlace, given: dict[str, list[str]], clock: Clock
) -> AsyncIterator[tuple[dict[str, Any], str]]:
    if place.server is not None:
        remote = RemoteAudit(place.server, place.token or "", new_client)
        rows = await anyio.to_thread.run_sync(
            lambda: list(remote.entries(given, limit=MAX_SERVED, newest_first=True))
        )
        for row in rows:
            details = await anyio.to_thread.run_sync(remote.details, int(row["index"]))
            yield row, _state(details.get("state"))
        return
    async with offline_of(place, clock) as audit:
        await audit.catch_up()
        page = PageRequest(newest_first=True, limit=MAX_SERVED)
        for found in (await audit.auditor.query(Filter.parse(given), page)).rows:
            details = (await audit.auditor.details(found.number)).document()
            yield json.loads(inert_json(row_document(found))), _state(details["state"])


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
