"""The policy that is in force: loaded at start, re-read when its file changes.

A bad file never replaces a good one, and a half-written one is never read: a change is taken up
only when two looks in a row find the same file. Edits therefore act within two polls.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import anyio
import structlog

from secure_cache.core.telemetry import Telemetry
from secure_cache.model.clock import Clock
from secure_cache.model.errors import InvalidPolicy, Misconfigured
from secure_cache.model.identity import Identity
from secure_cache.policy.compile import CompiledPolicy
from secure_cache.policy.explain import compare
from secure_cache.policy.parse import parse_policy
from secure_cache.policy.preset import Preset
from secure_cache.storage.guarded_file import read_guarded

MAX_POLICY_BYTES = 256 * 1024

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PolicyFiles:
    """Where the policy stands, and the test file that goes with it."""

    policy: Path
    tests: Path | None = None


class PolicyFile:
    """The holder of the current policy; one per process.

    Attributes:
        current: the policy in force; swapped atomically.
        trouble: one line about why the file on disk is not in force, or None.
    """

    def __init__(
        self,
        files: PolicyFiles,
        *,
        presets: Mapping[str, Preset],
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self._files = files
        self._presets = presets
        self._clock = clock
        self._telemetry = telemetry
        self._in_force = self._signature()
        self._seen = self._in_force
        self._refused: tuple[tuple[int, ...], ...] | None = None
        self.data, self.current = self._load()
        self.shadow: CompiledPolicy | None = self._load_shadow(self.current)
        self.trouble: str | None = None
        telemetry.policy_reloaded(ok=True)

    def get(self) -> CompiledPolicy:
        return self.current

    def compare_shadow(self, identity: Identity) -> None:
        """Log where the shadow policy would decide otherwise. It is never enforced."""
        if self.shadow is None:
            return
        difference = compare(self.current, self.shadow, identity)
        if difference is not None:
            _log.info(
                "policy.shadow_differs",
                issuer=identity.issuer,
                subject=identity.subject,
                difference=difference,
            )

    async def watch(self, poll_seconds: float, took_effect: Callable[[], None]) -> None:
        """Look for changes for ever; `took_effect` is called after each swap."""
        while True:
            await anyio.sleep(poll_seconds)
            if await anyio.to_thread.run_sync(self.look):
                took_effect()

    def look(self) -> bool:
        """One look at the file; true when another policy took effect."""
        try:
            signature = self._signature()
            settled, self._seen = signature == self._seen, signature
            if signature == self._in_force:
                self.trouble = self._refused = None
                return False
            if not settled or signature == self._refused:
                return False
            self._refused = signature
            data, compiled = self._load()
            shadow = self._load_shadow(compiled)
            if self._signature() != signature:
                # Somebody began to write after our look: what was read may be the half of it.
                self._refused = None
                return False
        except Misconfigured as error:
            self._keep(str(error))
            return False
        self._in_force, self._refused, self.trouble = signature, None, None
        changed = compiled.sha256 != self.current.sha256
        self.data, self.current, self.shadow = data, compiled, shadow
        self._telemetry.policy_reloaded(ok=True)
        _log.info("policy.took_effect", policy_sha256=compiled.sha256, changed=changed)
        return changed

    def _keep(self, trouble: str) -> None:
        if trouble != self.trouble:
            _log.error("policy.refused", trouble=trouble, kept=self.current.sha256)
            self._telemetry.policy_reloaded(ok=False)
        self.trouble = trouble

    def _signature(self) -> tuple[tuple[int, ...], ...]:
        paths = [self._files.policy, *([self._files.tests] if self._files.tests else [])]
        return tuple(_stat_signature(path) for path in paths)

    def _load(self) -> tuple[bytes, CompiledPolicy]:
        data = read_policy(self._files.policy)
        tests = read_policy(self._files.tests) if self._files.tests else None
        compiled = parse_policy(
            data,
            name=self._files.policy.name,
            presets=self._presets,
            now=self._clock(),
            tests=tests,
        )
        for warning in compiled.warnings:
            # Whether there are tests is for `policy lint` to say, where the server has none.
            if tests is not None or warning.code != "W02":
                _log.warning("policy.warning", finding=str(warning))
        return data, compiled

    def _load_shadow(self, live: CompiledPolicy) -> CompiledPolicy | None:
        """The policy that is only compared with the live one; a bad one is told and left out."""
        if live.shadow_policy is None:
            return None
        path = self._files.policy.parent / live.shadow_policy
        try:
            return parse_policy(
                read_policy(path), name=path.name, presets=self._presets, now=self._clock()
            )
        except (InvalidPolicy, Misconfigured) as error:
            _log.error("policy.shadow_refused", trouble=str(error))
            return None


def read_policy(path: Path) -> bytes:
    """The bytes of a policy or of its tests. Raises: Misconfigured, as `read_guarded`."""
    return read_guarded(path, max_bytes=MAX_POLICY_BYTES)


def _stat_signature(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError as error:
        raise Misconfigured(f"{path}: cannot be read ({error.strerror})") from error
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
