"""Proves at start that a folder can keep what the filesystem store promises."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from secure_cache.model.errors import Misconfigured
from secure_cache.storage.draft import Staging
from secure_cache.storage.durable import Durability, DurableFolder
from secure_cache.storage.locks import try_flock
from secure_cache.storage.posix import translated

_ROOT_MODE = 0o750
_NO_LINKS = frozenset(
    {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOENT, errno.EXDEV, errno.EINVAL}
)
_NO_LOCKS = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK, errno.EBADF, errno.EINVAL})


def make_root(root: Path, durability: Durability) -> None:
    """Make the folder and its missing parents, durably.

    Raises: Misconfigured (something else is there), StorageForbidden, StorageUnavailable.
    """
    missing = [folder for folder in (root, *root.parents) if not folder.is_dir()]
    for folder in reversed(missing):
        with translated(str(folder), applied=False):
            parent = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                folder.mkdir(mode=_ROOT_MODE)
                durability.sync(parent, str(folder.parent))
            except FileExistsError:
                if not folder.is_dir():
                    raise Misconfigured(f"{folder} is not a folder") from None
            finally:
                os.close(parent)


def prove(root: Path, folder: DurableFolder) -> None:
    """Do in the staging folder what every write does.

    Raises:
        Misconfigured: the file system there lacks link(2), rename(2) or flock(2).
        StorageForbidden, StorageUnavailable.
    """
    staging = folder.staging
    with translated(str(root), applied=False):
        if staging.anonymous and not _links(staging, folder.durability, named=False):
            # O_TMPFILE without a way to link it (no /proc, some overlays): the named way is
            # slower and needs sweeping, but promises the same.
            staging.anonymous = False
        if not _links(staging, folder.durability, named=True):
            raise _lacks(root, "link(2)")
        if not _renames(staging):
            raise _lacks(root, "rename(2)")
        if not _locks(staging):
            raise _lacks(root, "flock(2)")


def _lacks(root: Path, what: str) -> Misconfigured:
    return Misconfigured(
        f"{root}: {what} does not do there what the store needs, whatever"
        " storage.insecure_allow_network_filesystem says: use a local disk"
    )


def _links(staging: Staging, durability: Durability, *, named: bool) -> bool:
    """Whether create-if-absent works: the first link succeeds, a second one is refused."""
    with _scratch(staging) as (fd, leaf):
        with staging.draft(named=named) as draft, staging.draft(named=named) as loser:
            draft.write([b"probe"])
            durability.sync(draft.fd, leaf)
            try:
                draft.link(fd, leaf)
            except OSError as error:
                if error.errno in _NO_LINKS:
                    return False
                raise
            durability.sync(fd, leaf)
            with suppress(FileExistsError):
                loser.link(fd, leaf)
                return False
        return True


def _renames(staging: Staging) -> bool:
    """Whether rename replaces what has the name."""
    with (
        _scratch(staging) as (fd, leaf),
        staging.draft(named=True) as old,
        staging.draft(named=True) as new,
    ):
        old.rename(fd, leaf)
        new.rename(fd, leaf)
        found = os.stat(leaf, dir_fd=fd, follow_symlinks=False)
        return os.path.samestat(found, os.fstat(new.fd))


def _locks(staging: Staging) -> bool:
    """Whether of two openings of one file only one gets the lock."""
    with _scratch(staging) as (fd, leaf):
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        first = os.open(leaf, flags, 0o600, dir_fd=fd)
        second = os.open(leaf, flags, 0o600, dir_fd=fd)
        try:
            return try_flock(first) and not try_flock(second)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return False
            raise
        finally:
            os.close(first)
            os.close(second)


@contextmanager
def _scratch(staging: Staging) -> Iterator[tuple[int, str]]:
    """A free name in the staging folder, and the folder's descriptor."""
    fd = staging.open()
    leaf = f"probe-{secrets.token_hex(16)}"
    try:
        yield fd, leaf
    finally:
        with suppress(OSError):
            os.unlink(leaf, dir_fd=fd)
        os.close(fd)
