"""Which file system a folder is on, and whether it keeps what the store needs.

Network and user-space file systems are refused: their link(2), flock(2) and fsync(2) promise
less than they seem to, and what they break is create-if-absent, compare-and-swap and
durability, all of them silently.
"""

import ctypes
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from secure_cache.model.errors import Misconfigured

MOUNTINFO: Final = Path("/proc/self/mountinfo")

# Default deny: a type that nobody here has thought about is refused like NFS. With each type the
# number by which statfs(2) tells it (linux/magic.h); ext2 to ext4 share one.
_LOCAL: Final = {
    "bcachefs": 0xCA451A4E,
    "btrfs": 0x9123683E,
    "ext2": 0xEF53,
    "ext3": 0xEF53,
    "ext4": 0xEF53,
    "f2fs": 0xF2F52010,
    "jfs": 0x3153464A,
    "overlay": 0x794C7630,
    "ramfs": 0x858458F6,
    "reiserfs": 0x52654973,
    "tmpfs": 0x01021994,
    "xfs": 0x58465342,
    "zfs": 0x2FC12FC1,
}
_STATFS_BYTES = 256
_ESCAPE = re.compile(r"\\([0-7]{3})")


def filesystem_type(path: Path, mountinfo: str) -> str | None:
    """The type of the file system that `path` is on, from the text of /proc/self/mountinfo.

    None when the text names no mount above it. Format: proc_pid_mountinfo(5).
    """
    best: tuple[int, str] | None = None
    for line in mountinfo.splitlines():
        left, dash, right = line.partition(" - ")
        fields, described = left.split(" "), right.split(" ")
        if not dash or len(fields) < 5 or not described[0]:
            continue
        point = Path(_ESCAPE.sub(lambda match: chr(int(match[1], 8)), fields[4]))
        # The later of two mounts on one point covers the earlier.
        if path.is_relative_to(point) and (best is None or len(point.parts) >= best[0]):
            best = (len(point.parts), described[0])
    return None if best is None else best[1]


def filesystem_number(path: Path) -> int | None:
    """What statfs(2) of Linux tells of the file system's type; None where it tells nothing."""
    libc = ctypes.CDLL(None, use_errno=True)
    answer = ctypes.create_string_buffer(_STATFS_BYTES)
    if libc.statfs(os.fsencode(path), answer) != 0:
        return None
    # `f_type` is the first word of the structure on every 64-bit Linux.
    return int.from_bytes(answer.raw[:8], sys.byteorder) & 0xFFFFFFFF


def require_local_filesystem(
    root: Path,
    *,
    mountinfo: Path = MOUNTINFO,
    number: Callable[[Path], int | None] = filesystem_number,
) -> None:
    """Refuse a folder on a network, user-space or unknown file system.

    In a chroot the list of mounts does not name the root's own; there the kernel is asked by
    statfs(2).

    Where the system has no /proc/self/mountinfo (macOS, the BSDs) nothing can be told and
    nothing is refused: there, keeping the folder on a local disk is left to the operator.

    Raises:
        Misconfigured: names the folder, the type and the setting that allows it.
    """
    try:
        text = mountinfo.read_text(errors="surrogateescape")
    except OSError:
        return
    found = filesystem_type(root.resolve(), text)
    if found is None and number(root) in _LOCAL.values():
        return
    if found not in _LOCAL:
        raise Misconfigured(
            f"{root} is on a file system of type {found or 'unknown'}, which may lose or fork"
            " what is stored: use a local disk, or set"
            " storage.insecure_allow_network_filesystem = true if you know better"
        )
