"""A log's files in a folder, for readers that verify all of it."""

import errno
import os
import stat
from pathlib import Path

import anyio.to_thread

from secure_cache.model.errors import CorruptObject, NotFound, Unavailable
from secure_cache.tlog.tiles import MAX_BUNDLE_BYTES


class LogFolder:
    """A `tlog.reader.Fetch` for the log in a folder, such as a mirror or a copy.

    Args:
        folder: holds `checkpoint` and `tile/`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def __call__(self, path: str) -> bytes:
        """The bytes under a path that this program made, never one from outside.

        Raises:
            NotFound: there is nothing.
            CorruptObject: no file, or too large for one of a log.
            Unavailable: the disk.
        """
        return await anyio.to_thread.run_sync(read_bounded, self._folder / path)


def read_bounded(
    path: Path, max_bytes: int = MAX_BUNDLE_BYTES, *, follow_links: bool = False
) -> bytes:
    """A plain file.

    Args:
        path: of the file.
        max_bytes: a larger one is refused.
        follow_links: for a file that the user names, not for one of a folder from elsewhere.

    Raises:
        as the call.
    """
    # A pipe or a link in the file's place leads somewhere else, or nowhere for ever.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(path, flags | (0 if follow_links else os.O_NOFOLLOW)), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise CorruptObject(f"{path}: not a plain file")
            data = file.read(max_bytes + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"{path}: not there") from error
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.EISDIR}:
            raise CorruptObject(f"{path}: not a plain file") from error
        raise Unavailable(f"{path}: cannot be read ({error.strerror})") from error
    if len(data) > max_bytes:
        raise CorruptObject(f"{path}: larger than any file of a log")
    return data
