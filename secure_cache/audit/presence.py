"""What has become of an entry: is it served today, and which line decides it.

The log says what was stored. What is served is decided by the record that stands under the key
now, by a quarantine, and by today's policy; whoever asks brings the first two (`Records`).
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from secure_cache.model.entry import Entry
from secure_cache.model.errors import Unavailable
from secure_cache.model.names import Key, Namespace
from secure_cache.policy.decision import Policy


class State(StrEnum):
    """`unknown`: the storage did not answer, or is not at hand."""

    SERVED = "served"
    SUPERSEDED = "superseded"
    REVOKED = "revoked"
    QUARANTINED = "quarantined"
    MISSING = "missing"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Presence:
    """The state, the line that decides it (as `policy explain` names lines), and one sentence."""

    state: State
    line: str
    why: str


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands under a key.

    Attributes:
        entry_id: of the entry; None for a record that does not verify.
        quarantined: its bytes once failed verification.
        artifact_is_there: its bytes are; whether they are the right ones is proved at each read.
    """

    entry_id: str | None
    quarantined: bool
    artifact_is_there: bool


class Records(Protocol):
    """Looks at what is stored, without changing it."""

    async def standing(self, namespace: Namespace, key: Key) -> Standing | None:
        """None: nothing stands there. Raises: Unavailable, StorageForbidden."""
        ...


async def presence_of(
    entry: Entry, *, records: Records | None, policy: Policy | None, now: float
) -> Presence:
    """What has become of `entry`.

    Args:
        entry: which.
        records: what is stored; None where it is not at hand, as in a mirror.
        policy: today's; None where it is not at hand.
        now: seconds since 1970.

    Raises:
        StorageForbidden: the storage refuses the server itself.
    """
    if policy is None:
        return Presence(State.UNKNOWN, "policy", "the policy in force is not at hand")
    if records is None:
        return _by_policy(entry, policy, now) or Presence(
            State.UNKNOWN, "storage", "the policy would serve it; the storage is not at hand"
        )
    try:
        standing = await records.standing(entry.namespace, entry.key)
    except Unavailable:
        return Presence(State.UNKNOWN, "storage", "the storage did not answer")
    return _by_record(entry, standing) or _by_policy(entry, policy, now) or _served(entry, policy)


def _by_record(entry: Entry, standing: Standing | None) -> Presence | None:
    if standing is None:
        return Presence(State.MISSING, "record", "nothing stands under its key")
    if standing.entry_id is None:
        return Presence(State.MISSING, "record", "what stands under its key does not verify")
    if standing.entry_id != entry.entry_id:
        return Presence(
            State.SUPERSEDED,
            f"entry {standing.entry_id}",
            "another entry stands under its key",
        )
    if standing.quarantined:
        return Presence(State.QUARANTINED, "quarantine", "its bytes once failed verification")
    if not standing.artifact_is_there:
        return Presence(State.MISSING, "artifact", "its record is there, and its bytes are not")
    return None


def _by_policy(entry: Entry, policy: Policy, now: float) -> Presence | None:
    hidden = policy.hides(entry, now=now)
    return None if hidden is None else Presence(State.REVOKED, hidden.line, hidden.why)


def _served(entry: Entry, policy: Policy) -> Presence:
    today = policy.decide(entry.writer)
    return Presence(State.SERVED, f"rule {today.rule}", "today's policy trusts its writer")
