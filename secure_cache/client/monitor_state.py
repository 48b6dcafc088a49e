"""How far a monitor has come: one file, and its lock."""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from secure_cache.client.log_folder import read_bounded
from secure_cache.client.mirror_folder import put
from secure_cache.model.errors import (
    CorruptObject,
    Malformed,
    Misconfigured,
    NotFound,
    StorageUnavailable,
    Unavailable,
)
from secure_cache.tlog.note import Ed25519Verifier

_MAX_BYTES = 1 << 20
_MAX_PAIRS = 1000
_MAX_TIME = 253_402_300_799
"""The last second of the year 9999."""


class MonitorState(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file.

    Attributes:
        v: 1.
        origin: the log's name.
        vkeys: its keys, as they were at the first run.
        note: the newest signed checkpoint that was seen.
        next: the first entry that was not judged, or whose alerts may not have arrived.
        policies: digests of the newest that took effect before `next`, the newest last; None where
            the log has to be asked.
        policy_number: of the newest.
        revoked: keys that an event before `next` revoked, with the index of that event.
        signed_at: the newest time that a key in use signed before `next`, seconds since 1970; 0
            where nobody knows.
        looked_at: when the log was seen last, seconds since 1970 by the clock here.
        alive_at: when something new of the log is known to have come into being, likewise.
        standing: alerts about the log as a whole that stood at the last look, by their ids: when
            the webhook took each.
    """

    v: int
    origin: str
    vkeys: tuple[str, ...]
    note: str
    next: int
    policies: tuple[str, ...] | None = None
    policy_number: int | None = None
    revoked: dict[str, int] = {}
    signed_at: int = 0
    looked_at: int = 0
    alive_at: int = 0
    standing: dict[str, int] = {}


class StateFile:
    """The state, while no other monitor has it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> MonitorState | None:
        """None before the first run. Raises: CorruptObject."""
        try:
            data = read_bounded(self.path, _MAX_BYTES)
        except NotFound:
            return None
        try:
            state = msgspec.json.decode(data, type=MonitorState)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise CorruptObject(self._damaged(str(error))) from error
        if state.v != 1 or state.next < 0 or not state.vkeys:
            raise CorruptObject(self._damaged("not of this version"))
        try:
            for vkey in state.vkeys:
                Ed25519Verifier.parse(vkey)
        except Malformed as error:
            raise CorruptObject(self._damaged(str(error))) from error
        times = (state.signed_at, state.looked_at, state.alive_at, *state.standing.values())
        if not all(0 <= time <= _MAX_TIME for time in times):
            raise CorruptObject(self._damaged("it holds no times"))
        return state

    def write(self, state: MonitorState) -> None:
        """Whole and durable, or not at all. Raises: StorageUnavailable."""
        put(self.path, msgspec.json.format(msgspec.json.encode(state), indent=2) + b"\n")

    def keep_evidence(self, older: bytes, newer: bytes, proof: bytes | None) -> Path:
        """Keep two signed checkpoints that do not follow each other, and what convinces others.

        Each pair has a folder of its own: no evidence takes the place of another. A log that was
        put back and grows makes a pair at each look, so there is an end to it.

        Raises: StorageUnavailable: not written, or there are enough already.
        """
        pair = hashlib.sha256(older + newer).hexdigest()[:16]
        folder = self.path.with_name(f"{self.path.name}.evidence") / pair
        # There is always room for proofs beside what is only suspicious.
        most = _MAX_PAIRS if proof is None else 2 * _MAX_PAIRS
        if not folder.exists() and _count(folder.parent) >= most:
            raise StorageUnavailable(f"{folder.parent} holds {most} pairs already")
        kept = {"older.checkpoint": older, "newer.checkpoint": newer}
        if proof is not None:
            kept["contradiction.json"] = proof
        for name, data in kept.items():
            put(folder / name, data)
        return folder

    def _damaged(self, why: str) -> str:
        return (
            f"{self.path} is damaged ({why}): move it away, and begin anew with --from start, so"
            " that nothing is passed over"
        )


@contextmanager
def opened_state(path: Path) -> Iterator[StateFile]:
    """Raises: Misconfigured: no such folder; Unavailable: another monitor is at work."""
    lock = path.with_name(f"{path.name}.lock")
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Misconfigured(f"{lock}: cannot be used ({error.strerror})") from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Unavailable(f"{path}: another monitor is at work with it") from error
        yield StateFile(path)
    finally:
        os.close(fd)


def _count(folder: Path) -> int:
    try:
        return sum(1 for _ in folder.iterdir())
    except FileNotFoundError:
        return 0
