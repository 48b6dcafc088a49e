"""What the use-cases and the HTTP floor tell the operator's instruments: a port.

Numbers only. Nothing here can fail, wait or refuse, and nothing here is the record of what
happened: that is the transparency log. Every string handed over comes from a small fixed set
(an error's `code`, a tier, a route's name), never from a request: a label that a client can
choose is a memory leak that a client controls. There is deliberately no namespace, project,
key or subject.
"""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Finished:
    """One request, at its end.

    Attributes:
        method: the HTTP method.
        route: the name of the route (`cache`, `token`, `log`, ...), not its path.
        status: the HTTP status that was sent; 0 when the client left before.
        outcome: `hit`, `miss`, `stored`, `exists`, `denied`, `refused`, `failed`, `gone`, or
            `ok` for everything outside the cache.
        reason: the `code` of the error, or empty.
        seconds: from the headers' arrival to the last byte of the answer.
        bytes_in: of the body that arrived.
        bytes_out: of the body that was sent.
    """

    method: str
    route: str
    status: int
    outcome: str
    reason: str = ""
    seconds: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0


class Telemetry(Protocol):
    """Counts what happens. No method raises or waits."""

    def request_started(self) -> None:
        """A request is open; `request_finished` follows exactly once."""
        ...

    def request_finished(self, finished: Finished, /) -> None: ...

    def upload_started(self) -> None:
        """A body is being received; `upload_ended` follows exactly once."""
        ...

    def upload_ended(self) -> None: ...

    def stored(self, *, tier: str, size_bytes: int) -> None:
        """An entry became readable."""
        ...

    def served(self, *, tier: str, size_bytes: int) -> None:
        """Verified bytes were sent; `tier` is the writer's."""
        ...

    def missed(self, *, reason: str) -> None:
        """A look-up answered with a miss: `absent`, or the `code` of what hid it."""
        ...

    def denied(self, *, reason: str) -> None:
        """A token or the policy said no; `reason` is the error's `code`."""
        ...

    def verification_failed(self, *, kind: str) -> None:
        """Something stored did not verify: a `record`, an artifact's `digest`, the `log`.
        Each one deserves an alarm."""
        ...

    def quarantined(self) -> None:
        """A record was taken out of service after a failed verification."""
        ...

    def token_verified(self) -> None:
        """A token was accepted by its signature; what is remembered of it is not counted."""
        ...

    def token_exchanged(self, *, ok: bool) -> None: ...

    def policy_reloaded(self, *, ok: bool) -> None:
        """A policy file took effect, at the start too, or was refused and the last good one
        stays."""
        ...

    def log_committed(self, *, tree_size: int, entries: int, seconds: float) -> None:
        """A commit published a checkpoint."""
        ...

    def log_pending(self, *, entries: int) -> None:
        """How many durable entries wait to be sequenced."""
        ...

    def jwks_refreshed(self, *, issuer: str, ok: bool) -> None:
        """An issuer's keys were fetched; `issuer` is its name in the policy."""
        ...

    def witness_answered(self, *, witness: str, ok: bool) -> None:
        """A witness was asked; `witness` is its name in the witness policy."""
        ...

    def log_witnessed(self, *, ok: bool) -> None:
        """Whether enough witnesses have cosigned the newest checkpoint."""
        ...

    def index_behind(self, *, entries: int) -> None:
        """How many published entries the audit index does not hold yet."""
        ...

    def storage_failed(self, *, kind: str) -> None:
        """A request failed because a store did; `kind` is the error's `code`."""
        ...

    def tier_read(self, *, outcome: str) -> None:
        """An artifact was asked of the local tier: `hit`, `miss`, `joined` (a download or proof
        that was at work), or `aside` (served without it)."""
        ...

    def tier_filled(self, *, result: str, size_bytes: int) -> None:
        """A download into the tier ended: `ok`, `failed` (the store), `aside` (no room or a local
        fault) or `left` (by all readers), after so many proved bytes."""
        ...

    def tier_evicted(self, *, files: int, size_bytes: int, taken_bytes: int) -> None:
        """Room was taken in the tier: what had to go for it, and what is taken now."""
        ...

    def tier_failed(self, *, kind: str) -> None:
        """The tier's folder failed: `io`, or `damaged` (a file of it did not verify)."""
        ...


class Silent:
    """Counts nothing: for tests, commands and the offline client."""

    def request_started(self) -> None: ...

    def request_finished(self, finished: Finished, /) -> None: ...

    def upload_started(self) -> None: ...

    def upload_ended(self) -> None: ...

    def stored(self, *, tier: str, size_bytes: int) -> None: ...

    def served(self, *, tier: str, size_bytes: int) -> None: ...

    def missed(self, *, reason: str) -> None: ...

    def denied(self, *, reason: str) -> None: ...

    def verification_failed(self, *, kind: str) -> None: ...

    def quarantined(self) -> None: ...

    def token_verified(self) -> None: ...

    def token_exchanged(self, *, ok: bool) -> None: ...

    def policy_reloaded(self, *, ok: bool) -> None: ...

    def log_committed(self, *, tree_size: int, entries: int, seconds: float) -> None: ...

    def log_pending(self, *, entries: int) -> None: ...

    def jwks_refreshed(self, *, issuer: str, ok: bool) -> None: ...

    def witness_answered(self, *, witness: str, ok: bool) -> None: ...

    def log_witnessed(self, *, ok: bool) -> None: ...

    def index_behind(self, *, entries: int) -> None: ...

    def storage_failed(self, *, kind: str) -> None: ...

    def tier_read(self, *, outcome: str) -> None: ...

    def tier_filled(self, *, result: str, size_bytes: int) -> None: ...

    def tier_evicted(self, *, files: int, size_bytes: int, taken_bytes: int) -> None: ...

    def tier_failed(self, *, kind: str) -> None: ...
