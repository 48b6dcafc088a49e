"""The keys in force: read at start, re-read when the key folder's manifest changes.

`secure-cache keys rotate` runs beside a server that is running, and beside its other workers.
"""

import threading
from collections.abc import Callable
from pathlib import Path

import anyio
import structlog

from secure_cache.core.key_manifest import MANIFEST
from secure_cache.core.keystore import Keystore, load_keystore
from secure_cache.model.errors import Misconfigured, Unavailable
from secure_cache.provenance.keys import KeyRing

_log = structlog.get_logger(__name__)


class KeyFolder:
    """The holder of the current keys; one per process.

    Attributes:
        current: swapped atomically; a folder that cannot be read leaves it as it is.
        trouble: one line about why the folder could not be read, or None.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._looking = threading.Lock()
        self._signature = self._look_at_manifest()
        self.current: Keystore = load_keystore(folder)
        self.trouble: str | None = None

    def get(self) -> Keystore:
        return self.current

    def ring(self) -> KeyRing:
        return self.current.ring

    async def reload(self) -> KeyRing:
        """Read the folder again if it changed, and give the ring that is now in force.

        Raises:
            Unavailable: it cannot be read, so nobody knows which keys count by now.
        """
        await anyio.to_thread.run_sync(self._look)
        if self.trouble is not None:
            raise Unavailable(f"the keys cannot be read again: {self.trouble}")
        return self.current.ring

    async def watch(self, poll_seconds: float, changed: Callable[[], None]) -> None:
        """Look for changes for ever; `changed` is called after each, whoever met it first."""
        told = self.current
        while True:
            await anyio.sleep(poll_seconds)
            await anyio.to_thread.run_sync(self._look)
            if self.current is not told:
                told = self.current
                changed()

    def _look(self) -> None:
        # One at a time: a slower look would put back keys that were taken back meanwhile.
        with self._looking:
            self._look_alone()

    def _look_alone(self) -> None:
        try:
            signature = self._look_at_manifest()
            if signature == self._signature:
                self.trouble = None
                return
            current = load_keystore(self._folder)
        except Misconfigured as error:
            if self.trouble != str(error):
                _log.exception("keys.refused")
            self.trouble = str(error)
            return
        self._signature, self.trouble = signature, None
        if current.ring.digest != self.current.ring.digest:
            _log.info("keys.changed", ring_sha256=str(current.ring.digest))
        self.current = current

    def _look_at_manifest(self) -> tuple[int, ...]:
        path = self._folder / MANIFEST
        try:
            found = path.stat()
        except OSError as error:
            raise Misconfigured(f"{path}: cannot be read ({error.strerror})") from error
        return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
