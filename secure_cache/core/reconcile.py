"""Is everything that can be read in the log? The promise of accountability, checked from outside.

A server never publishes a record before its leaf is durable. A record whose leaf is in no log was
made by somebody who has the signing key and not the log, or is left over from a log that was put
back to an older state.
"""

from collections.abc import AsyncIterator
from contextlib import suppress

from secure_cache.model.digest import Digest
from secure_cache.model.errors import CorruptObject, NotFound
from secure_cache.provenance.record import MAX_STORED_BYTES, parse_record, split_artifact
from secure_cache.storage import layout
from secure_cache.storage.ports import ObjectReader
from secure_cache.tlog.fsck import Finding
from secure_cache.tlog.pending import MAX_BATCH_BYTES, decode_batch
from secure_cache.tlog.ports import PublishedLog

_UNLOGGED = "its entry is in no log"
_RESTORE = "restore the newest state of the log, or delete the record: it is built again"
_DAMAGED = "delete it: it is never served, and is built again"


async def unlogged_records(
    *, records: ObjectReader, pending: ObjectReader, log: PublishedLog
) -> tuple[Finding, ...]:
    """Every record that is damaged, or whose leaf is neither in the log nor waiting for it.

    The order of reading (records, what waits, the log) makes this right beside a running server:
    a leaf only ever moves on in that direction. Holds one digest of 32 bytes for each record.

    Raises:
        StorageUnavailable, StorageForbidden, LogInconsistent: nothing is known.
    """
    findings: list[Finding] = []
    names: dict[Digest, list[str]] = {}
    async for info in records.list(""):
        with suppress(NotFound):
            stored = await records.get(info.name, max_bytes=MAX_STORED_BYTES)
            try:
                record = parse_record(split_artifact(stored.data)[0])
            except CorruptObject as error:
                findings.append(Finding(f"records/{info.name}", str(error), _DAMAGED))
                continue
            names.setdefault(Digest.of(record.envelope), []).append(info.name)
    async for leaf in _waiting(pending):
        names.pop(Digest.of(leaf), None)
    if names:
        async for _, leaf in log.entries():
            names.pop(Digest.of(leaf), None)
    findings += [
        Finding(f"records/{name}", _UNLOGGED, _RESTORE)
        for unlogged in names.values()
        for name in unlogged
    ]
    return tuple(sorted(findings, key=lambda finding: finding.path))


async def _waiting(pending: ObjectReader) -> AsyncIterator[bytes]:
    async for info in pending.list(layout.PENDING_PREFIX):
        with suppress(NotFound):
            stored = await pending.get(info.name, max_bytes=MAX_BATCH_BYTES)
            for leaf in decode_batch(stored.data):
                yield leaf
