"""Prometheus numbers: what happens, counted, and what /metrics answers.

`Metrics` has the shape of `core.telemetry.Telemetry`, which is above this floor and not imported:
`compose` is where the two meet and where mypy holds them together.

With several workers the numbers live in a shared folder (see `multiprocess`), and whichever
worker is asked answers for all. Labels come from small fixed sets; whatever else is handed over
becomes `other`, so that no client can grow the memory of server or monitoring.
"""

import re
import time
from dataclasses import dataclass, field
from typing import Literal, Protocol

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

OTHER = "other"
MAX_VALUES = 64

_LABEL = re.compile(r"[A-Za-z0-9_-]{1,40}")
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Finished(Protocol):
    """One request, at its end; see `core.telemetry.Finished`."""

    @property
    def method(self) -> str: ...
    @property
    def route(self) -> str: ...
    @property
    def status(self) -> int: ...
    @property
    def outcome(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def seconds(self) -> float: ...
    @property
    def bytes_in(self) -> int: ...
    @property
    def bytes_out(self) -> int: ...


Mode = Literal["livesum", "livemax", "livemin", "livemostrecent", "max"]


@dataclass(slots=True)
class _Bounded:
    """The first values of a label, and `other`."""

    known: set[str] = field(default_factory=set)

    def __call__(self, value: str) -> str:
        if value in self.known:
            return value
        if len(self.known) >= MAX_VALUES or _LABEL.fullmatch(value) is None:
            return OTHER
        self.known.add(value)
        return value


class Metrics:
    """Counts for Prometheus; the methods are those of `core.telemetry.Telemetry`.

    Args:
        shared: several workers count into one folder; `PROMETHEUS_MULTIPROC_DIR` was in the
            environment before this module was first imported.
    """

    def __init__(self, *, shared: bool = False) -> None:
        self._shared = shared
        # Shared numbers are read from the folder; registered as well they would count twice.
        self._registry = CollectorRegistry()
        self._into = None if shared else self._registry
        if not shared:
            ProcessCollector(registry=self._registry)
        self._bounded: dict[str, _Bounded] = {}
        self._finished: dict[tuple[str, ...], Counter] = {}
        self._timed: dict[tuple[str, str], Histogram] = {}
        self._requests = self._counter(
            "requests", "Requests, at their end.", "method", "route", "status", "outcome", "reason"
        )
        self._seconds = Histogram(
            "secure_cache_request_seconds",
            "From the arrival of the headers to the last byte of the answer.",
            ("method", "outcome"),
            buckets=_SECONDS,
            registry=self._into,
        )
        body_bytes = self._counter("body_bytes", "Bytes of bodies, in and out.", "direction")
        self._bytes_in, self._bytes_out = body_bytes.labels("in"), body_bytes.labels("out")
        self._open = self._gauge("open_requests", "Requests at work.", "livesum")
        self._uploads = self._gauge("open_uploads", "Bodies being received.", "livesum")
        self._stored = self._counter("stored", "Entries that became readable.", "tier")
        self._stored_bytes = self._counter("stored_bytes", "Their size.", "tier")
        self._served = self._counter("served", "Artifacts served, by their writer's tier.", "tier")
        self._served_bytes = self._counter("served_bytes", "Their size.", "tier")
        self._missed = self._counter("missed", "Look-ups answered with a miss.", "reason")
        self._denied = self._counter("denied", "Refusals by token or policy.", "reason")
        self._failed = self._counter(
            "verification_failed", "Stored things that did not verify. Alarm on any.", "kind"
        )
        self._quarantined = self._counter("quarantined", "Records taken out of service.")
        self._tokens = self._counter("tokens_verified", "Tokens accepted by signature.")
        self._exchanged = self._counter("tokens_exchanged", "Token exchanges.", "result")
        self._policy = self._counter("policy_reloads", "Policy files, good or bad.", "result")
        self._policy_good = self._gauge(
            "policy_good",
            "0 while the policy file is refused and the last good one stays.",
            "livemin",
        )
        self._policy_time = self._gauge(
            "policy_loaded_time_seconds", "When the policy in force took effect.", "max"
        )
        self._log_size = self._gauge("log_size", "Entries in the published log.", "max")
        self._log_pending = self._gauge("log_pending", "Entries waiting for a commit.", "livemax")
        self._log_time = self._gauge("log_commit_time_seconds", "When the last commit was.", "max")
        self._log_seconds = Histogram(
            "secure_cache_log_commit_seconds",
            "How long a commit took.",
            buckets=_SECONDS,
            registry=self._into,
        )
        self._jwks = self._counter("jwks_refreshes", "Fetches of keys.", "issuer", "result")
        self._witnesses = self._counter("witness_answers", "Witnesses asked.", "witness", "result")
        self._witnessed = self._gauge(
            "log_witnessed",
            "0 while too few witnesses have cosigned the newest checkpoint.",
            "livemin",
        )
        self._witnessed.set(1)
        self._index_behind = self._gauge(
            "audit_index_behind",
            "Published entries that the audit index does not hold yet; 0 where there is none.",
            "livemax",
        )
        self._storage = self._counter("storage_failed", "Requests that a store failed.", "kind")
        self._tier_reads = self._counter("tier_reads", "Artifacts asked of the tier.", "outcome")
        self._tier_fills = self._counter("tier_fills", "Downloads into the tier.", "result")
        self._tier_bytes = self._counter("tier_filled_bytes", "Their proved bytes.")
        self._tier_evicted = self._counter("tier_evicted", "Files that the tier dropped.")
        self._tier_evicted_bytes = self._counter("tier_evicted_bytes", "Their size.")
        self._tier_failed = self._counter(
            "tier_failed", "Faults of the tier's folder; the artifact is served anyway.", "kind"
        )
        self._tier_taken = self._gauge(
            "tier_taken_bytes", "Bytes in the tier, as last counted.", "livemostrecent"
        )
        self._storage_requests = self._counter(
            "storage_requests",
            "Operations on the storage service, with all their attempts.",
            "store",
            "operation",
            "outcome",
        )
        self._storage_retries = self._counter(
            "storage_retries", "Attempts beyond the first.", "store", "operation"
        )
        self._storage_seconds = Histogram(
            "secure_cache_storage_seconds",
            "How long an operation on the storage service took, with pauses.",
            ("operation",),
            buckets=_SECONDS,
            registry=self._into,
        )
        self._policy_good.set(1)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"secure_cache_{name}", text, labels, registry=self._into)

    def _gauge(self, name: str, text: str, mode: Mode) -> Gauge:
        return Gauge(f"secure_cache_{name}", text, registry=self._into, multiprocess_mode=mode)

    def _label(self, name: str, value: str) -> str:
        bounded = self._bounded.get(name)
        if bounded is None:
            bounded = self._bounded[name] = _Bounded()
        return bounded(value)

    def request_started(self) -> None:
        self._open.inc()

    def request_finished(self, finished: Finished, /) -> None:
        self._open.dec()
        method = self._label("method", finished.method)
        outcome = self._label("outcome", finished.outcome)
        key = (
            method,
            self._label("route", finished.route),
            self._label("status", str(finished.status)),
            outcome,
            self._label("reason", finished.reason) if finished.reason else "",
        )
        # Finding the labelled child costs more than counting.
        counter = self._finished.get(key)
        if counter is None:
            counter = self._finished[key] = self._requests.labels(*key)
        counter.inc()
        if (histogram := self._timed.get((method, outcome))) is None:
            histogram = self._timed[method, outcome] = self._seconds.labels(method, outcome)
        histogram.observe(finished.seconds)
        if finished.bytes_in:
            self._bytes_in.inc(finished.bytes_in)
        if finished.bytes_out:
            self._bytes_out.inc(finished.bytes_out)

    def upload_started(self) -> None:
        self._uploads.inc()

    def upload_ended(self) -> None:
        self._uploads.dec()

    def stored(self, *, tier: str, size_bytes: int) -> None:
        self._stored.labels(self._label("tier", tier)).inc()
        self._stored_bytes.labels(self._label("tier", tier)).inc(size_bytes)

    def served(self, *, tier: str, size_bytes: int) -> None:
        self._served.labels(self._label("tier", tier)).inc()
        self._served_bytes.labels(self._label("tier", tier)).inc(size_bytes)

    def missed(self, *, reason: str) -> None:
        self._missed.labels(self._label("reason", reason)).inc()

    def denied(self, *, reason: str) -> None:
        self._denied.labels(self._label("reason", reason)).inc()

    def verification_failed(self, *, kind: str) -> None:
        self._failed.labels(self._label("kind", kind)).inc()

    def quarantined(self) -> None:
        self._quarantined.inc()

    def token_verified(self) -> None:
        self._tokens.inc()

    def token_exchanged(self, *, ok: bool) -> None:
        self._exchanged.labels(_result(ok=ok)).inc()

    def policy_reloaded(self, *, ok: bool) -> None:
        self._policy.labels(_result(ok=ok)).inc()
        self._policy_good.set(1 if ok else 0)
        if ok:
            self._policy_time.set(time.time())

    def log_committed(self, *, tree_size: int, entries: int, seconds: float) -> None:
        del entries  # it is the difference of two sizes
        self._log_size.set(tree_size)
        self._log_time.set(time.time())
        self._log_seconds.observe(seconds)

    def log_pending(self, *, entries: int) -> None:
        self._log_pending.set(entries)

    def jwks_refreshed(self, *, issuer: str, ok: bool) -> None:
        self._jwks.labels(self._label("issuer", issuer), _result(ok=ok)).inc()

    def witness_answered(self, *, witness: str, ok: bool) -> None:
        self._witnesses.labels(self._label("witness", witness), _result(ok=ok)).inc()

    def log_witnessed(self, *, ok: bool) -> None:
        self._witnessed.set(1 if ok else 0)

    def index_behind(self, *, entries: int) -> None:
        self._index_behind.set(entries)

    def storage_failed(self, *, kind: str) -> None:
        self._storage.labels(self._label("kind", kind)).inc()

    def tier_read(self, *, outcome: str) -> None:
        self._tier_reads.labels(self._label("tier_outcome", outcome)).inc()

    def tier_filled(self, *, result: str, size_bytes: int) -> None:
        self._tier_fills.labels(self._label("tier_result", result)).inc()
        self._tier_bytes.inc(size_bytes)

    def tier_evicted(self, *, files: int, size_bytes: int, taken_bytes: int) -> None:
        self._tier_evicted.inc(files)
        self._tier_evicted_bytes.inc(size_bytes)
        self._tier_taken.set(taken_bytes)

    def tier_failed(self, *, kind: str) -> None:
        self._tier_failed.labels(self._label("kind", kind)).inc()

    def storage_called(
        self, *, store: str, operation: str, outcome: str, seconds: float, attempts: int
    ) -> None:
        """One operation on the storage service is over."""
        where = (self._label("store", store), self._label("operation", operation))
        self._storage_requests.labels(*where, self._label("outcome_of_storage", outcome)).inc()
        self._storage_seconds.labels(where[1]).observe(seconds)
        if attempts > 1:
            self._storage_retries.labels(*where).inc(attempts - 1)

    def render(self) -> tuple[str, bytes]:
        """The content type and the text of /metrics, for all workers."""
        registry = self._registry
        if self._shared:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call] # theirs has no types
        return CONTENT_TYPE_LATEST, generate_latest(registry)


def _result(*, ok: bool) -> str:
    return "ok" if ok else "failed"
