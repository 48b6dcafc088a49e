"""Which file system a folder is on, and whether it keeps what the store needs.

Network and user-space file systems are refused: their link(2), flock(2) and fsync(2) promise
less than they seem to, and what they break is create-if-absent, compare-and-swap and
durability, all of them silently.
"""

import re
from pathlib import Path
from typing import Final

from secure_cache.model.errors import Misconfigured

MOUNTINFO: Final = Path("/proc/self/mountinfo")

# Default deny: a type that nobody here has thought about is refused like NFS.
_LOCAL = frozenset(
    {
        "bcachefs",
        "btrfs",
        "ext2",
        "ext3",
        "ext4",
        "f2fs",
        "jfs",
        "overlay",
        "ramfs",
        "reiserfs",
        "tmpfs",
        "xfs",
        "zfs",
    }
)
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


def require_local_filesystem(root: Path, *, mountinfo: Path = MOUNTINFO) -> None:
    """Refuse a folder on a network, user-space or unknown file system.

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
    if found not in _LOCAL:
        raise Misconfigured(
            f"{root} is on a file system of type {found or 'unknown'}, which may lose or fork"
            " what is stored: use a local disk, or set"
            " storage.insecure_allow_network_filesystem = true if you know better"
        )
