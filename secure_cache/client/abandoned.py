"""Calls that block, and that whoever is told to stop need not wait for."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import anyio

_Arguments = TypeVarTuple("_Arguments")
_Result = TypeVar("_Result")


async def call_or_abandon(
    function: Callable[[*_Arguments], _Result], *arguments: *_Arguments
) -> _Result:
    """The result of a call in a thread of its own.

    Cancelled, it returns at once and leaves the call behind, whose result nobody gets: the thread
    ends with the process, which waits for the threads of anyio, and not for this one.

    Args:
        function: does nothing that must be undone, such as a question over a network.
        arguments: of the call.

    Raises: what the function raises.
    """
    loop, done = asyncio.get_running_loop(), anyio.Event()
    results: list[_Result] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(function(*arguments))
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            errors.append(error)
        # Nobody waits any more, and the loop may be closed.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(done.set)

    threading.Thread(target=work, name="may be abandoned", daemon=True).start()
    await done.wait()
    if errors:
        raise errors[0]
    return results[0]
