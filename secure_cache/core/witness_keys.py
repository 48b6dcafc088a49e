"""The folder of a witness: its key, the logs that it watches, and what it has cosigned.

witness.key     PRIVATE+KEY+<name>+<hash>+<base64 of type and seed>, one line for each key
witness.toml    the logs
state/          see `witness_book`
"""

import base64
import contextlib
import os
import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from secure_cache.core.key_files import (
    new_private_folder,
    read_private_file,
    sync_folder,
    write_private_file,
)
from secure_cache.model.errors import Malformed, Misconfigured
from secure_cache.tlog.cosignature import (
    COSIGNATURE_ED25519,
    COSIGNATURE_MLDSA44,
    Ed25519Cosigner,
    MldsaCosigner,
)
from secure_cache.tlog.note import Ed25519Verifier
from secure_cache.tlog.witness import KnownLog, log_by_origin

KEY = "witness.key"
LOGS = "witness.toml"
STATE = "state"

_MAX_BYTES = 1 << 20
# 44 characters are the algorithm's byte and a 32-byte seed, for either kind of key.
_LINE = re.compile(r"PRIVATE\+KEY\+([^+\n]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/]{44})")
_KINDS: dict[int, type[Ed25519Cosigner] | type[MldsaCosigner]] = {
    COSIGNATURE_ED25519: Ed25519Cosigner,
    COSIGNATURE_MLDSA44: MldsaCosigner,
}

_HEAD = """\
# The logs that this witness watches. A log's verifier keys are at its /log/vkeys; get them by a way
# that you trust, and not only from the server that you want to watch.
#
# [[logs]]
# vkeys = ["cache.example.com/manifest+1edde122+AYptTYMPfS1rLfFUOsDmaHMMpO8djvWIculAfysNUNwJ"]
# origin = "..."    only where it is not the name of the key
"""


class _Log(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    vkeys: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=16)]
    origin: str | None = None


class _Logs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    logs: Annotated[tuple[_Log, ...], msgspec.Meta(max_length=10_000)] = ()


@dataclass(frozen=True, slots=True)
class WitnessFolder:
    """A witness's folder, read.

    Attributes:
        cosigners: its keys, the Ed25519 one first.
        logs: what it watches.
        state: where it keeps what it cosigned.
    """

    cosigners: tuple[Ed25519Cosigner | MldsaCosigner, ...]
    logs: tuple[KnownLog, ...]
    state: Path


def create_witness(
    folder: Path,
    *,
    name: str,
    vkeys: Sequence[str] = (),
    with_mldsa: bool = False,
    random_bytes: Callable[[int], bytes] = os.urandom,
) -> WitnessFolder:
    """Make the folder of a witness; never in the place of another.

    Args:
        folder: the folder itself.
        name: the witness's name, a URL without scheme.
        vkeys: of the logs to watch.
        with_mldsa: give it an ML-DSA-44 key too.
        random_bytes: of the operating system.

    Raises:
        Misconfigured: there is one already, the folder can not be written, or a name or vkey is
            not one.
    """
    kinds = (COSIGNATURE_ED25519, *((COSIGNATURE_MLDSA44,) if with_mldsa else ()))
    try:
        lines = "".join(_format(name, kind, random_bytes(32)) for kind in kinds)
        for vkey in vkeys:
            Ed25519Verifier.parse(vkey)
    except Malformed as error:
        raise Misconfigured(str(error)) from error
    logs = "".join(f"\n[[logs]]\nvkeys = [{_quoted(vkey)}]\n" for vkey in vkeys)
    with new_private_folder(folder) as draft:
        write_private_file(draft / KEY, lines.encode())
        write_private_file(draft / LOGS, (_HEAD + logs).encode())
    # A crash before it leaves a witness that refuses to serve, and has never served.
    (folder / STATE).mkdir(mode=0o700)
    sync_folder(folder)
    return load_witness(folder)


def load_witness(folder: Path) -> WitnessFolder:
    """Read the folder of a witness.

    Raises:
        Misconfigured: missing, readable by others, or not well formed; names the file.
    """
    lines = read_private_file(folder / KEY, max_bytes=_MAX_BYTES).decode(errors="replace")
    cosigners = []
    for line in lines.splitlines():
        cosigner = _parse(line)
        if cosigner is None:
            # The text never quotes the key.
            raise Misconfigured(f"{folder / KEY} is not the key file of a witness")
        cosigners.append(cosigner)
    if not cosigners or len({item.verifier.key_id for item in cosigners}) != len(cosigners):
        raise Misconfigured(f"{folder / KEY} has no key, or one twice")
    return WitnessFolder(tuple(cosigners), _read_logs(folder / LOGS), folder / STATE)


def _format(name: str, kind: int, seed: bytes) -> str:
    key_id = _KINDS[kind](name, seed).verifier.key_id.hex()
    return f"PRIVATE+KEY+{name}+{key_id}+{base64.b64encode(bytes([kind]) + seed).decode()}\n"


def _parse(line: str) -> Ed25519Cosigner | MldsaCosigner | None:
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    raw = base64.b64decode(match[3])
    with contextlib.suppress(Malformed, KeyError):
        if _format(match[1], raw[0], raw[1:]) == line + "\n":
            return _KINDS[raw[0]](match[1], raw[1:])
    return None


def _read_logs(path: Path) -> tuple[KnownLog, ...]:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise Misconfigured(f"{path} cannot be read: {error.strerror}") from error
    if len(text) > _MAX_BYTES:
        raise Misconfigured(f"{path} is larger than {_MAX_BYTES} bytes")
    try:
        document = msgspec.convert(tomllib.loads(text.decode()), _Logs)
        logs = tuple(_known(log) for log in document.logs)
        log_by_origin(logs)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise Misconfigured(f"{path}: {error}") from None
    except Malformed as error:
        raise Misconfigured(f"{path}: {error}") from error
    return logs


def _known(log: _Log) -> KnownLog:
    verifiers = tuple(Ed25519Verifier.parse(vkey) for vkey in log.vkeys)
    if len({verifier.key_id for verifier in verifiers}) != len(verifiers):
        raise Malformed("a log has a key twice")
    if log.origin is None and len({verifier.name for verifier in verifiers}) != 1:
        raise Malformed("a log whose keys have different names needs an origin")
    return KnownLog(log.origin or verifiers[0].name, verifiers)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
