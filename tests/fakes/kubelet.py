"""A volume as the kubelet writes it: every file a link through `..data`, which is swapped at once.

After `AtomicWriter` in kubernetes/pkg/volume/util: a folder with a time in its name, a link
`..data_tmp` renamed over `..data`, links from the names that a pod sees, the old folder removed.
"""

import itertools
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

_ROUNDS = itertools.count()


def write_volume(
    volume: Path,
    files: Mapping[str, bytes],
    *,
    mode: int,
    folder_mode: int = 0o755,
    group: int | None = None,
) -> None:
    """Make or change the volume's content, atomically for whoever reads through `..data`."""
    fresh = volume / f"..2026_11_21_00_00_00.{next(_ROUNDS):010d}"
    fresh.mkdir()
    for name, data in files.items():
        path = fresh / name
        path.write_bytes(data)
        path.chmod(mode)
        if group is not None:
            os.chown(path, -1, group)
    if group is not None:
        os.chown(fresh, -1, group)
    fresh.chmod(folder_mode)
    data_link = volume / "..data"
    old = data_link.resolve() if data_link.is_symlink() else None
    draft = volume / "..data_tmp"
    draft.symlink_to(fresh.name)
    draft.rename(data_link)
    for name in files:
        if not (volume / name).is_symlink():
            (volume / name).symlink_to(f"..data/{name}")
    for path in volume.iterdir():
        if path.is_symlink() and not path.name.startswith("..") and path.name not in files:
            path.unlink()
    if old is not None:
        shutil.rmtree(old)


def files_of(folder: Path) -> dict[str, bytes]:
    """What `kubectl create secret generic --from-file=FOLDER` takes."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
