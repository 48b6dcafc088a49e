"""What the log announced before the first entry that a monitor judges: its policies, and where keys
were revoked.

Which entries say so is taken from whoever has an index; each of them is read from the log, which
proves it, and held to the keys. Who leaves one out raises alerts, and hides none: an entry under a
policy that is left out is unexpected, and a key whose revocation is left out never counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from secure_cache.audit.reading import statement_of
from secure_cache.audit.watch import MAX_POLICIES
from secure_cache.audit.watch_signatures import SigningKeys
from secure_cache.model.errors import NotFound
from secure_cache.provenance.dsse import Envelope
from secure_cache.provenance.event import Event, Happening, KeysChanged, PolicyTookEffect
from secure_cache.provenance.keys import KeyRing
from secure_cache.tlog.ports import VerifiedLog

_MAX_KEY_CHANGES = 1000


@dataclass(frozen=True, slots=True)
class Before:
    """What is known of the log before an entry.

    Attributes:
        policies: digests of the newest, the newest last.
        number: of the newest; None where there is none.
        keys: with the revocations of the whole log.
    """

    policies: tuple[str, ...]
    number: int | None
    keys: SigningKeys


async def announced_before(
    log: VerifiedLog, keys: SigningKeys, events: Sequence[tuple[int, str]], first: int
) -> Before:
    """Read what was announced.

    Args:
        log: proves each entry.
        keys: the entry keys, with the revocations that were met before.
        events: index and kind of those about policies and keys, as somebody says.
        first: what comes from here on is no policy of before.

    Raises:
        LogInconsistent: the log does not prove an entry.
    """
    # The newest first: who revoked a key may have signed with one that was revoked later.
    changes = sorted((index for index, kind in events if kind == "keys"), reverse=True)
    for index in changes[:_MAX_KEY_CHANGES]:
        what = await _signed(log, keys, index)
        if isinstance(what, KeysChanged):
            keys = keys.with_revoked(what.revoked, index)
    indexes = sorted(index for index, kind in events if kind == "policy" and index < first)
    found = [await _signed(log, keys, index) for index in indexes[-MAX_POLICIES:]]
    policies = [what for what in found if isinstance(what, PolicyTookEffect)]
    # Of one that took effect twice the second time counts.
    newest = dict.fromkeys(str(what.sha256) for what in reversed(policies))
    number = max((what.number for what in policies), default=None)
    return Before(tuple(reversed(newest)), number, keys)


async def announced_since(log: VerifiedLog, ring: KeyRing, first: int) -> bool:
    """Whether an entry from `first` on announces these keys: they were changed while the entries
    before were judged.

    Raises:
        LogInconsistent: the log does not prove an entry.
    """
    keys, size = SigningKeys(ring), (await log.published()).size
    return any(
        isinstance(what, KeysChanged) and what.ring == ring.digest
        for what in [
            _what_is_signed(keys, index, leaf) async for index, leaf in log.entries(first, size)
        ]
    )


async def _signed(log: VerifiedLog, keys: SigningKeys, index: int) -> Happening | None:
    try:
        return _what_is_signed(keys, index, await log.entry(index))
    except NotFound:
        return None


def _what_is_signed(keys: SigningKeys, index: int, leaf: bytes) -> Happening | None:
    """What an event says that one of the keys signed; None for anything else."""
    event = statement_of(leaf)
    if not isinstance(event, Event):
        return None
    envelope = Envelope.decode(leaf)
    fault = keys.fault(
        index,
        envelope.unverified_keyid,
        envelope.unverified_payload,
        envelope.signature,
        event.at,
    )
    return event.what if fault is None else None
