"""Files that decide who may do what: the policy, its tests, the keys of an issuer."""

import os
import stat
from pathlib import Path

from secure_cache.model.errors import Misconfigured


def read_guarded(path: Path, *, max_bytes: int) -> bytes:
    """Read a file that decides who may do what. Blocks only for the disk.

    Raises:
        Misconfigured: missing, not a plain file, too large, or writable by group or others,
            who then could grant themselves anything.
    """
    try:
        # Without waiting: a pipe in the file's place would stop whoever reads it, for ever, and
        # with it every later edit and revocation.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise Misconfigured(f"{path}: not a plain file")
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise Misconfigured(f"{path}: cannot be read ({error.strerror})") from error
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Misconfigured(f"{path}: group or others may write it; run: chmod go-w {path}")
    if len(data) > max_bytes:
        raise Misconfigured(f"{path}: larger than {max_bytes} bytes")
    return data
