"""The entry keys of a log, from wherever they come, held to what the log announced."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import anyio

from secure_cache.model.digest import Digest
from secure_cache.model.errors import CorruptObject, LogInconsistent, Malformed, NotFound
from secure_cache.model.strict_json import load_strict_object
from secure_cache.provenance.dsse import Envelope
from secure_cache.provenance.event import KeysChanged
from secure_cache.provenance.event_statement import parse_event
from secure_cache.provenance.keys import MAX_RING_BYTES, KeyRing, PublicKey, ring_of
from secure_cache.provenance.verify import verify_event
from secure_cache.tlog.ports import VerifiedLog

_WAITS = (0.5, 1.0, 2.0, 4.0)
_ROW_NAMES = {"id": "keyid", "not_before": "notBefore", "not_after": "notAfter"}


@dataclass(frozen=True, slots=True)
class KeysGiven:
    """How a place gives its key ring.

    Attributes:
        find: the index of the log's newest `keys` event, as the place says.
        fetch: the ring's document for a digest in hex.
        older: indexes of events that announce the ring with a digest, as the place says; None
            where nobody is asked.
    """

    find: Callable[[], Awaitable[int]]
    fetch: Callable[[str], Awaitable[bytes]]
    older: Callable[[str], Awaitable[Sequence[int]]] | None = None


class _NotTheRingError(Exception):
    """What is given and what is announced are of two moments, or somebody lies."""

    def __init__(self, message: str, given: bytes | None = None) -> None:
        super().__init__(message)
        self.given = given


async def announced_ring(
    log: VerifiedLog, given: KeysGiven, *, waits: Sequence[float] = _WAITS
) -> KeyRing:
    """The key ring that an event of the log announced.

    Proved: the event is in the log, signed by a key of this very ring, and the ring has the
    digest that it states. Not proved: that it is the newest such event. A server that hides a
    later one shows an older ring, in which a key that was revoked since still counts; a mirror,
    which has read the whole log, knows better.

    Keys may be changed while this looks, and the log tells it a moment later: so it looks again
    some times, also for a newer checkpoint. In the end it goes by the ring that it is given, if
    the log announced that earlier, as a mirror does (ADR 0023): refusing instead would let a single
    entry, appended by whoever can write the store and has no key, keep everybody from the keys.

    Args:
        log: where the event is.
        given: what the place says.
        waits: seconds before each further look.

    Raises:
        LogInconsistent: the place names another entry, or gives another ring, time and again.
        Unavailable: it does not answer.
    """
    for seconds in waits:
        try:
            return await _announced(log, given)
        except _NotTheRingError:
            await anyio.sleep(seconds)
            await log.published()
    try:
        return await _announced(log, given)
    except _NotTheRingError as error:
        if error.given is not None and given.older is not None:
            ring = await _announced_before(log, error.given, given.older)
            if ring is not None:
                return ring
        raise LogInconsistent(str(error)) from error


async def _announced_before(
    log: VerifiedLog, data: bytes, older: Callable[[str], Awaitable[Sequence[int]]]
) -> KeyRing | None:
    sha256 = str(Digest.of(data))
    for index in await older(sha256):
        with suppress(NotFound, CorruptObject):
            leaf = await log.entry(index)
            happened = parse_event(Envelope.decode(leaf).unverified_payload).what
            if isinstance(happened, KeysChanged) and str(happened.ring) == sha256:
                with suppress(LogInconsistent):
                    return open_ring(data, leaf)
    return None


async def _announced(log: VerifiedLog, given: KeysGiven) -> KeyRing:
    index = await given.find()
    try:
        leaf = await log.entry(index)
        happened = parse_event(Envelope.decode(leaf).unverified_payload).what
    except (NotFound, CorruptObject) as error:
        raise _NotTheRingError(f"entry {index} of the log announces no keys: {error}") from error
    if not isinstance(happened, KeysChanged):
        raise LogInconsistent(f"entry {index} of the log announces no keys")
    data, sha256 = await given.fetch(str(happened.ring)), str(happened.ring)
    if str(Digest.of(data)) != sha256:
        raise _NotTheRingError(
            f"the key ring {Digest.of(data)} is not {sha256}, which entry {index} of the log"
            " announced: if keys were changed just now, try again; or give the right ones with"
            " --keys",
            data,
        )
    try:
        return open_ring(data, leaf)
    except LogInconsistent as error:
        raise _NotTheRingError(str(error), data) from error


def open_ring(data: bytes, event: bytes) -> KeyRing:
    """A ring whose digest an event of the log states.

    Args:
        data: its document.
        event: the envelope of that event, proved to be in the log.

    Raises:
        LogInconsistent: it is no ring, or none of its keys signed the event.
    """
    try:
        ring = KeyRing.decode(data)
    except ValueError as error:
        raise LogInconsistent(f"the key ring is not well formed: {error}") from error
    try:
        verify_event(event, ring)
    except CorruptObject as error:
        raise LogInconsistent(f"the key ring did not sign its own event: {error}") from error
    return ring


def read_ring(data: bytes) -> KeyRing:
    """Entry keys from a file: a key ring, or what `keys show --json` prints.

    Raises:
        Malformed: neither.
    """
    try:
        document = load_strict_object(data, max_bytes=MAX_RING_BYTES)
        if "log" not in document:
            return KeyRing.decode(data)
        rows = document.get("keys")
        if not isinstance(rows, list):
            raise Malformed("not the keys of entries: `keys` is not a list")
        found = [row for row in rows if isinstance(row, dict) and row.get("kind") == "entry"]
        return ring_of(_from_row(row) for row in found)
    except ValueError as error:
        raise Malformed(f"not the keys of entries: {error}") from error


def _from_row(row: Mapping[str, object]) -> PublicKey:
    document = {_ROW_NAMES.get(name, name): value for name, value in row.items() if name != "kind"}
    if document.get("notAfter") is None:
        document.pop("notAfter", None)
    return PublicKey.from_document(document)
