"""Arithmetic in Python on all cores, in processes of its own: threads would wait for each other."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import anyio
import anyio.to_process

from secure_cache.model.errors import Unavailable

MANY = 20_000
"""From so many entries on, starting other processes is worth it."""
_SAFE_PATH = "PYTHONSAFEPATH"
_Result = TypeVar("_Result")


async def on_all_cores(
    function: Callable[..., _Result], calls: Sequence[tuple[Any, ...]]
) -> list[_Result]:
    """The results of a function for each of some arguments, in their order.

    Args:
        function: of a module; it, its arguments and its result travel by pickle.
        calls: the arguments of each call.

    Raises:
        Unavailable: the processes could not be started, or ended.
    """
    limiter = anyio.CapacityLimiter(_cores())
    results: dict[int, _Result] = {}

    async def call(number: int) -> None:
        try:
            results[number] = await anyio.to_process.run_sync(
                function, *calls[number], limiter=limiter, cancellable=True
            )
        except (anyio.BrokenWorkerProcess, OSError) as error:
            raise Unavailable(
                f"a process that helps with the entries could not be started, or ended: {error}"
            ) from error

    try:
        with _safe_path():
            async with anyio.create_task_group() as tasks:
                for number in range(len(calls)):
                    tasks.start_soon(call, number)
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    return [results[number] for number in range(len(calls))]


def _cores() -> int:
    """How many this process may use; macOS does not tell, only how many there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def _safe_path() -> Iterator[None]:
    """Python processes that start meanwhile take no module from the current folder, which may be
    the checkout of whoever is being audited. anyio has no other way to say so."""
    before = os.environ.get(_SAFE_PATH)
    os.environ[_SAFE_PATH] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SAFE_PATH]
        else:
            os.environ[_SAFE_PATH] = before
