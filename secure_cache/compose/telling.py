"""Small connections between the parts: what one tells another."""

from collections.abc import Callable, Mapping

import anyio
import structlog

from secure_cache.core.key_folder import KeyFolder
from secure_cache.core.telemetry import Telemetry
from secure_cache.identity.keys import KeySet, ed25519_key_set
from secure_cache.model.clock import Clock

_log = structlog.get_logger("secure_cache.tlog")


class Signal:
    """Set by many, waited for by one; what is set while nobody waits is not lost."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def set(self) -> None:
        self._event.set()

    def clear(self) -> None:
        if self._event.is_set():
            self._event = anyio.Event()

    async def wait(self) -> None:
        await self._event.wait()


class LogTeller:
    """What happens in the log, to the operator's log and instruments."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def __call__(self, event: str, facts: Mapping[str, object]) -> None:
        if event == "log.committed":
            size, entries = facts["size"], facts["entries"]
            if isinstance(size, int) and isinstance(entries, int):
                self._telemetry.log_committed(tree_size=size, entries=entries, seconds=0.0)
            _log.debug(event, **facts)
        elif event == "log.recovered":
            _log.warning(event, **facts)
        else:
            if event == "log.faulted":
                self._telemetry.verification_failed(kind="log")
            _log.error(event, **facts)


def own_keys(keys: KeyFolder, clock: Clock) -> Callable[[], KeySet]:
    """The server's own token keys; one and the same object for as long as they are the same."""
    known: tuple[frozenset[str], KeySet] | None = None

    def current() -> KeySet:
        nonlocal known
        accepted = keys.current.token_public_keys(clock())
        names = frozenset(accepted)
        if known is None or known[0] != names:
            known = (names, ed25519_key_set(accepted.values()))
        return known[1]

    return current
