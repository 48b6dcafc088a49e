"""What a mirror of a log is: a folder, its names, and what it was begun with.

mirror.json          the log that this mirrors, its pinned keys, and where it came from
checkpoint           the newest one; everything that it speaks of is here
tile/...             C2SP tlog-tiles, as any tool reads them
keys/SHA256.json     key rings that the log announced
policies/SHA256.yaml policies that the log says took effect
index.sqlite         the audit index over all of it; derived, can be deleted
evidence/            signed checkpoints that contradict each other, if there ever were any
"""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from secure_cache.client.log_folder import read_bounded
from secure_cache.model.errors import CorruptObject, Malformed, Misconfigured, NotFound
from secure_cache.tlog.note import Ed25519Verifier

PINS = "mirror.json"
KEYS = "keys"
POLICIES = "policies"
INDEX = "index.sqlite"
EVIDENCE = "evidence"
_VERSION = 1
_MAX_PINS_BYTES = 65_536


class Pins(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`mirror.json`.

    Attributes:
        v: the version of this layout.
        origin: the log's name.
        vkeys: the log's verifier keys.
        source: where it was mirrored from last, for people.
        keys_event: index of the newest entry that announces keys; None before the first look.
    """

    v: int
    origin: str
    vkeys: tuple[str, ...]
    source: str
    keys_event: int | None = None

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
    return pins


def _damaged(folder: Path, why: str) -> CorruptObject:
    return CorruptObject(
        f"{folder / PINS} is damaged ({why}): begin a new mirror in another folder, with the log's"
        " key as you know it, and compare the two checkpoints"
    )
