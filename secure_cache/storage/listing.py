"""Lists a folder tree in the order of full names, one directory's names in memory per level."""

import os
from collections.abc import Generator, Iterator

from secure_cache.model.errors import Misconfigured
from secure_cache.storage.beneath import Beneath
from secure_cache.storage.ports import ObjectInfo, check_name, check_prefix
from secure_cache.storage.posix import info_of, translate


def list_objects(
    beneath: Beneath, prefix: str, start_after: str
) -> Generator[ObjectInfo, None, None]:
    """Objects whose name starts with `prefix` and is above `start_after`, in order.

    What is not a plain file under a legal name (drafts, locks, links, strangers' files) is
    left out. Blocks; to be advanced in a worker thread.

    Raises: Misconfigured, CorruptObject, StorageForbidden, StorageUnavailable.
    """
    folder_name = check_prefix(prefix).rpartition("/")[0]
    return _below(beneath, folder_name, prefix, start_after)


def _below(
    beneath: Beneath, folder_name: str, prefix: str, start_after: str
) -> Generator[ObjectInfo, None, None]:
    try:
        folder = beneath.open_directory(folder_name)
    except FileNotFoundError:
        beneath.require_present()
        return
    except OSError as error:
        raise translate(error, folder_name, applied=False) from error
    try:
        for entry in _entries(beneath, folder, folder_name):
            if not _is_wanted(entry, prefix, start_after):
                continue
            if entry.endswith("/"):
                yield from _below(beneath, entry[:-1], prefix, start_after)
            else:
                yield from _info(folder, entry)
    finally:
        os.close(folder)


def _entries(beneath: Beneath, folder: int, folder_name: str) -> list[str]:
    """Full names, those of folders ending in a slash: so `a.b` comes before what is in `a/`."""
    lead = f"{folder_name}/" if folder_name else ""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False):
                    slash = ""
                elif entry.is_dir(follow_symlinks=False):
                    slash = "/"
                else:
                    continue
                if _is_legal(lead + entry.name):
                    found.append(f"{lead}{entry.name}{slash}")
    except OSError as error:
        raise translate(error, folder_name, applied=False) from error
    if not found:
        # A removed folder reads as an empty one.
        beneath.require_present()
    found.sort()
    return found


def _is_legal(name: str) -> bool:
    try:
        check_name(name)
    except Misconfigured:
        return False
    return True


def _is_wanted(entry: str, prefix: str, start_after: str) -> bool:
    if entry.endswith("/"):
        inside = entry.startswith(prefix) or prefix.startswith(entry)
        return inside and (entry > start_after or start_after.startswith(entry))
    return entry.startswith(prefix) and entry > start_after


def _info(folder: int, name: str) -> Iterator[ObjectInfo]:
    try:
        found = os.stat(name.rpartition("/")[2], dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return
    except OSError as error:
        raise translate(error, name, applied=False) from error
    yield info_of(name, found)
