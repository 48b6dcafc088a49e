"""Is a mirror still what it was? Everything is derived again, from nothing but the pinned key."""

from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import anyio.to_thread

from secure_cache.client.log_folder import LogFolder, read_bounded
from secure_cache.client.mirror import bad_statements
from secure_cache.client.mirror_folder import POLICIES, MirrorProblem
from secure_cache.model.digest import Digest
from secure_cache.model.errors import CorruptObject, LogInconsistent, NotFound, Unavailable
from secure_cache.provenance.keys import KeyRing
from secure_cache.tlog.fetched import CHECKPOINT, Trust
from secure_cache.tlog.reader import TreeReader
from secure_cache.tlog.tiles import ENTRIES, FANOUT, tile_name

MAX_PROBLEMS = 100
_REFETCH = "fetch it again: `audit mirror` with --repair"
_EVIDENCE = "keep the mirror: it is evidence"
_MAX_TEXT = 1 << 20


async def check_mirror(
    folder: Path,
    trust: Trust,
    ring: KeyRing | None,
    *,
    progress: Callable[[str, int, int], None] | None = None,
) -> AsyncGenerator[MirrorProblem]:
    """What is wrong in a mirror's files; its index is for others to check.

    Args:
        folder: of the mirror.
        trust: its pinned key.
        ring: the entry keys; None: signatures are not checked.
        progress: told how far it is.

    Raises:
        Unavailable: the disk.
    """
    files = LogFolder(folder)
    try:
        checkpoint = trust.open_last(await files(CHECKPOINT))
    except (NotFound, LogInconsistent, CorruptObject) as error:
        yield MirrorProblem(CHECKPOINT, str(error), "begin a new mirror, and compare")
        return
    tree, size = TreeReader(files, checkpoint), checkpoint.size
    found = 0
    for number in range(-(-size // FANOUT)):
        width = min(FANOUT, size - number * FANOUT)
        path = tile_name(ENTRIES, number, width)
        try:
            entries = await tree.bundle(number)
        except (LogInconsistent, CorruptObject) as error:
            found += 1
            yield MirrorProblem(path, str(error), _REFETCH)
        else:
            first = number * FANOUT
            bad: list[tuple[int, str]] = []
            if ring is not None:
                bad = await anyio.to_thread.run_sync(bad_statements, first, list(entries), ring)
            for index, why in bad:
                found += 1
                yield MirrorProblem(
                    path, f"entry {index} is logged, and not ours: {why}", _EVIDENCE
                )
        if found >= MAX_PROBLEMS:
            return
        if progress is not None:
            progress("checking", number * FANOUT + width, size)
    for problem in await anyio.to_thread.run_sync(_policies, folder):
        yield problem


def _policies(folder: Path) -> list[MirrorProblem]:
    problems = []
    for path in sorted((folder / POLICIES).glob("*")):
        name = path.relative_to(folder).as_posix()
        try:
            digest = str(Digest.of(read_bounded(path, _MAX_TEXT)))
        except (NotFound, CorruptObject, Unavailable) as error:
            problems.append(MirrorProblem(name, str(error), _REFETCH))
            continue
        if path.name != f"{digest}.yaml":
            problems.append(MirrorProblem(name, "has another digest than its name", _REFETCH))
    return problems
