"""Where several workers keep their numbers together: a private folder that lives with the server.

This module does not import prometheus_client: that reads the environment once, on import, and
decides for ever. The parent calls `shared_numbers` and gives the environment to its workers.
"""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from secure_cache.model.errors import Unavailable

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

_PREFIX = "secure-cache-metrics-"
_LOCK = "lock"
_YOUNG_SECONDS = 60
_KIB = 1024
_ROOM = {
    "counter": 256 * _KIB,
    "histogram": 256 * _KIB,
    "gauge_max": 64 * _KIB,
    "gauge_livemax": 64 * _KIB,
    "gauge_livemin": 64 * _KIB,
    "gauge_livemostrecent": 64 * _KIB,
    "gauge_livesum": 64 * _KIB,
}
"""What a worker's files take: beyond what all bounded labels together need."""


@contextmanager
def shared_numbers() -> Iterator[Mapping[str, str]]:
    """The environment that makes workers share their numbers; the folder goes at the end.

    A server that is killed leaves its folder behind. The next one to start takes it away: a
    folder is in use for as long as its lock is held, which no kill can leave behind.
    """
    _remove_abandoned(Path(tempfile.gettempdir()))
    with (
        tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True) as folder,
        (Path(folder) / _LOCK).open("wb") as lock,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield {VARIABLE: folder}


def _remove_abandoned(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        try:
            status = folder.lstat()
            # A folder that was made a moment ago may not have its lock yet.
            young = time.time() - status.st_mtime < _YOUNG_SECONDS
            if status.st_uid != os.getuid() or folder.is_symlink() or young:
                continue
            with (folder / _LOCK).open("ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
        except OSError:
            # In use, or being removed by another server that starts: either way not ours.
            continue


def reserve_room(environment: Mapping[str, str], pid: int) -> None:
    """Make a worker's files, with all their room.

    prometheus_client makes them with holes and writes to them as to memory: where the disk is full
    by then, the kernel kills the worker in the middle of its requests.

    Raises: Unavailable: there is no room.
    """
    folder = Path(environment[VARIABLE])
    for kind, room in _ROOM.items():
        path, draft = folder / f"{kind}_{pid}.db", folder / f"{kind}_{pid}.new"
        if path.exists():
            # Of a dead worker that had the same number: its totals go on.
            continue
        try:
            with draft.open("wb") as file:
                _fill(file.fileno(), room)
            draft.rename(path)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise Unavailable(
                f"{folder}: no room for the numbers of a worker: {error.strerror}:"
                " make some, or set TMPDIR to a folder that has"
            ) from error


def _fill(fd: int, room: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, room)
    else:
        os.write(fd, bytes(room))


def forget_worker(environment: Mapping[str, str], pid: int) -> None:
    """Drop the gauges of a worker that ended: its open requests ended with it.

    Its counters stay, because a total must never fall.
    """
    # Where no file can be opened for the moment, its gauges stay: no reason to end the server.
    with suppress(OSError):
        for path in Path(environment[VARIABLE]).glob(f"gauge_live*_{int(pid)}.db"):
            path.unlink(missing_ok=True)
