"""What a mirror of a log is: a folder, its names, and what it was begun with.

mirror.json          the log that this mirrors, its pinned keys, and where it came from
checkpoint           the newest one; everything that it speaks of is here
tile/...             C2SP tlog-tiles, as any tool reads them
keys/SHA256.json     key rings that the log announced
policies/SHA256.yaml policies that the log says took effect
index.sqlite         the audit index over all of it; derived, can be deleted
evidence/            signed checkpoints that contradict each other, if there ever were any
"""

import fcntl
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from secure_cache.client.log_folder import read_bounded
from secure_cache.core.key_files import write_private_file
from secure_cache.model.errors import (
    CorruptObject,
    Malformed,
    Misconfigured,
    NotFound,
    StorageUnavailable,
    Unavailable,
)
from secure_cache.tlog.note import Ed25519Verifier

PINS = "mirror.json"
KEYS = "keys"
POLICIES = "policies"
INDEX = "index.sqlite"
EVIDENCE = "evidence"
_LOCK = ".lock"
_UNFINISHED = ".new-"
_VERSION = 1
_MAX_PINS_BYTES = 8 << 20
_MAX_MISSING = 100_000
"""Of the policies whose text was not to be had, so many are asked for again: they fit the file."""


class Pins(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`mirror.json`.

    Attributes:
        v: the version of this layout.
        origin: the log's name.
        vkeys: the log's verifier keys.
        source: where it was mirrored from last, for people.
        keys_event: index of the newest entry that announces keys; None before the first look.
        next_keys_event: the same of the checkpoint that is being written; see `keys_event_of`.
        missing_policies: digests of policies in the log whose text was not to be had yet.
        untold: the first of the entries whose judgement perhaps nobody was told, if some are bad.
    """

    v: int
    origin: str
    vkeys: tuple[str, ...]
    source: str
    keys_event: int | None = None
    next_keys_event: int | None = None
    missing_policies: tuple[str, ...] = ()
    untold: int | None = None

    @property
    def finished(self) -> bool:
        """Whether some run came to its end: then there is a checkpoint."""
        return self.keys_event is not None

    def keys_event_of(self, size: int) -> int | None:
        """Index of the newest entry that announces keys, under the checkpoint of `size` entries
        that stands in the folder: a run that was killed may have left that one or the older."""
        coming = self.next_keys_event
        return coming if coming is not None and coming < size else self.keys_event

    def lacking(self, policies: Sequence[str]) -> "Pins":
        """With the digests of policies whose text was not to be had, the newest of them."""
        return msgspec.structs.replace(self, missing_policies=tuple(policies[-_MAX_MISSING:]))

    def encode(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


@dataclass(frozen=True, slots=True)
class MirrorProblem:
    """Something in a mirror that is not what it should be.

    Attributes:
        path: of the file, in the mirror.
        what: is wrong with it.
        remedy: what to do.
    """

    path: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}; {self.remedy}"


def new_pins(vkeys: tuple[Ed25519Verifier, ...], source: str) -> Pins:
    """Of a mirror that begins."""
    return Pins(
        v=_VERSION,
        origin=vkeys[0].name,
        vkeys=tuple(str(vkey) for vkey in vkeys),
        source=source,
    )


def read_pins(folder: Path) -> Pins:
    """Raises: Misconfigured: no mirror; CorruptObject: its first file is damaged."""
    try:
        data = read_bounded(folder / PINS, _MAX_PINS_BYTES)
    except NotFound as error:
        raise Misconfigured(
            f"{folder} is no mirror: make one with `secure-cache audit mirror {folder}`"
        ) from error
    try:
        pins = msgspec.json.decode(data, type=Pins)
        named = {Ed25519Verifier.parse(vkey).name for vkey in pins.vkeys}
    except (msgspec.DecodeError, UnicodeDecodeError, Malformed) as error:
        raise _damaged(folder, str(error)) from error
    if pins.v != _VERSION or named != {pins.origin}:
        raise _damaged(folder, "not of this version, or its keys are another log's")
    indexes = (pins.keys_event, pins.next_keys_event, pins.untold)
    if any(index is not None and index < 0 for index in indexes):
        raise _damaged(folder, "no entry is before the first")
    return pins


@contextmanager
def writing_to(folder: Path, pins: Pins) -> Iterator[Pins]:
    """A mirror that nobody else writes to meanwhile; what a killed run left half is removed.

    Args:
        folder: made if it is not there; its parent must be.
        pins: how it begins, if it is new.

    Yields: how it was begun.

    Raises:
        Misconfigured: it cannot be made, holds something else, or mirrors another log.
        CorruptObject: its `mirror.json`. Unavailable: another run is at work.
    """
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        fd = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Misconfigured(f"{folder}: cannot be used ({error.strerror})") from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Unavailable(f"{folder}: another run is mirroring into it") from error
        yield _begun(folder, pins)
    finally:
        os.close(fd)


def _begun(folder: Path, pins: Pins) -> Pins:
    if (folder / PINS).exists():
        found = read_pins(folder)
        if found.vkeys != pins.vkeys:
            # Two runs that began at the same time, with two servers.
            raise Misconfigured(f"{folder} mirrors a log with another key")
        _tidy(folder)
        return found
    others = [
        path.name
        for path in folder.iterdir()
        if path.name != _LOCK and not path.name.startswith(_UNFINISHED)
    ]
    if others:
        (folder / _LOCK).unlink(missing_ok=True)
        raise Misconfigured(
            f"{folder} is neither empty nor a mirror: it holds {min(others)!a}, and no {PINS}"
        )
    # First of all: whoever goes on with this mirror holds it to the same key.
    put(folder / PINS, pins.encode())
    return pins


def _tidy(folder: Path) -> None:
    """Remove what a killed run left half. Raises: CorruptObject: a folder that is a link."""
    for name, folders, files in os.walk(folder):
        here = Path(name)
        for inner in folders:
            # Whoever made this mirror would have us write and remove files elsewhere.
            if (here / inner).is_symlink():
                raise CorruptObject(
                    f"{here / inner} is a link, which leads out of the mirror: remove it, then run"
                    " this again with --repair"
                )
        for file in files:
            if file.startswith(_UNFINISHED):
                (here / file).unlink(missing_ok=True)


def put(path: Path, data: bytes) -> None:
    """Write a file, whole and durable, or not at all. Raises: StorageUnavailable."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private_file(path, data)
    except OSError as error:
        raise StorageUnavailable(f"{path}: cannot be written ({error.strerror})") from error


def put_unless_same(folder: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Write those that are not there with these very bytes. Raises: StorageUnavailable."""
    for name, data in files:
        try:
            same = read_bounded(folder / name, max(len(data), 1)) == data
        except (NotFound, CorruptObject):
            same = False
        if not same:
            put(folder / name, data)


def _damaged(folder: Path, why: str) -> CorruptObject:
    return CorruptObject(
        f"{folder / PINS} is damaged ({why}): begin a new mirror in another folder, with the log's"
        " key as you know it, and compare the two checkpoints"
    )
