"""What can be said of an entry without those before it. Pure, so that other processes may say it.

Each leaf is parsed once and its signature verified once; what is compared with patterns is compared
once for all entries of a job. Nothing is left out: whatever is not known to be a signed entry
that a rule covers leaves an alert here, and all else is for `watch.Watch`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from secure_cache.audit.quick import QuickEntry, read_entry_quickly
from secure_cache.audit.reading import statement_of
from secure_cache.audit.watch_alert import Alert, alarm, notice
from secure_cache.audit.watch_rules import Speaking, WatchRules, Writing, judge_limits
from secure_cache.audit.watch_signatures import SigningKeys
from secure_cache.model.clock import rfc3339
from secure_cache.model.entry import Entry
from secure_cache.model.identity import Identity
from secure_cache.model.identity_json import parse_identity
from secure_cache.model.strict_json import load_strict_object
from secure_cache.policy.finding import show
from secure_cache.provenance.dsse import MAX_ENVELOPE_BYTES, Envelope
from secure_cache.provenance.event import (
    EntryQuarantined,
    EntryRemoved,
    Event,
    KeysChanged,
    LogOpened,
    PolicyTookEffect,
)

_REMEMBERED_JOBS = 4096
_REMEMBERED_WRITER_BYTES = 4096


class Run(NamedTuple):
    """Entries one behind the other, under one policy."""

    first: int
    last: int
    policy: str


class Retired(NamedTuple):
    """An entry that a retired key has signed.

    Attributes:
        first: its index in the log.
        keyid: of the key.
        end: its last second.
        behind: the newest time of an active key among the entries before it that were looked at
            with it; 0 for none.
    """

    first: int
    keyid: str
    end: int
    behind: int


class Announced(NamedTuple):
    """A signed event about policies or keys."""

    first: int
    what: PolicyTookEffect | KeysChanged


@dataclass(slots=True)
class Examined:
    """Some entries one behind the other, looked at apart from all others.

    Attributes:
        alerts: in the order of the log.
        runs: each stored entry is in exactly one.
        announced: in the order of the log.
        retired: in the order of the log.
        newest: the newest time that an active key has signed; 0 for none.
    """

    alerts: list[Alert] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    announced: list[Announced] = field(default_factory=list)
    retired: list[Retired] = field(default_factory=list)
    newest: int = 0

    def add(self, other: "Examined") -> None:
        """What comes behind these."""
        self.alerts += other.alerts
        self.runs += other.runs
        self.announced += other.announced
        self.retired += [one._replace(behind=max(self.newest, one.behind)) for one in other.retired]
        self.newest = max(self.newest, other.newest)

    def under(self, index: int, policy: str) -> None:
        """Note the policy of a stored entry."""
        if self.runs:
            first, last, same = self.runs[-1]
            if (last, same) == (index - 1, policy):
                self.runs[-1] = Run(first, index, policy)
                return
        self.runs.append(Run(index, index, policy))


class Examiner:
    """Looks at entries.

    Args:
        rules: what is expected.
        keys: the entry keys, and until where those that were revoked count.
        now: later times than this nobody signs, unless a clock is wrong.
    """

    def __init__(self, rules: WatchRules, keys: SigningKeys, now: int) -> None:
        self._rules = rules
        self._keys = keys
        self._now = now
        self._known_job = lru_cache(maxsize=_REMEMBERED_JOBS)(self._job)

    def examine(self, first: int, leaves: Sequence[bytes]) -> Examined:
        """Look at entries from index `first` on, whatever their bytes are."""
        found = Examined()
        for index, leaf in enumerate(leaves, first):
            entry = read_entry_quickly(index, leaf)
            if entry is None:
                self.examine_strictly(index, leaf, found)
            else:
                self._quick(index, leaf, entry, found)
        return found

    def examine_strictly(self, index: int, leaf: bytes, found: Examined) -> None:
        """Look at one entry, of whatever kind."""
        statement = statement_of(leaf)
        if statement is None:
            what = "is no statement of this project: somebody else can append to the log"
            found.alerts.append(alarm("unreadable", f"Entry {index} {what}.", index, leaf))
            return
        envelope = Envelope.decode(leaf)
        at = statement.stored_at if isinstance(statement, Entry) else statement.at
        fault = self._keys.fault(
            index, envelope.unverified_keyid, envelope.unverified_payload, envelope.signature, at
        )
        if fault is not None:
            found.alerts.append(_bad_signature(index, leaf, fault))
        else:
            self._order(index, envelope.unverified_keyid, at, found)
        if isinstance(statement, Entry):
            job = _writing(
                statement.writer,
                statement.namespace.project,
                str(statement.tier),
                str(statement.namespace),
                statement.rule,
            )
            code = self._rules.unexpected(job, at, statement.size)
            if code is not None:
                found.alerts.append(
                    _unexpected(code, index, leaf, _Stored(job, at, statement.size))
                )
            found.under(index, statement.policy_sha256)
        elif fault is None:
            # What nobody of ours has signed announces nothing.
            _event(index, leaf, statement, found)

    def _quick(self, index: int, leaf: bytes, entry: QuickEntry, found: Examined) -> None:
        row = entry.row
        # What every stored entry says; for the type checker.
        at, size, policy = row.at or 0, row.size or 0, row.policy_sha256 or ""
        fault = self._keys.fault(index, row.keyid or "", entry.payload, entry.signature, at)
        if fault is not None:
            found.alerts.append(_bad_signature(index, leaf, fault))
        else:
            self._order(index, row.keyid or "", at, found)
        remembered = len(entry.writer) <= _REMEMBERED_WRITER_BYTES
        job, speaking = (self._known_job if remembered else self._job)(
            entry.writer, row.project or "", row.tier or "", row.namespace or "", row.rule or ""
        )
        code = judge_limits(speaking, at, size)
        if code is not None:
            found.alerts.append(_unexpected(code, index, leaf, _Stored(job, at, size)))
        found.under(index, policy)

    def _order(self, index: int, keyid: str, at: int, found: Examined) -> None:
        """Note what a good signature says of the order of things."""
        if self._keys.is_active(keyid):
            if found.newest < at <= self._now:
                found.newest = at
        elif (end := self._keys.end_of(keyid)) is not None:
            found.retired.append(Retired(index, keyid, end, found.newest))

    def _job(
        self, writer: bytes, project: str, tier: str, namespace: str, rule: str
    ) -> tuple[Writing, Speaking]:
        identity = parse_identity(load_strict_object(writer, max_bytes=MAX_ENVELOPE_BYTES))
        job = _writing(identity, project, tier, namespace, rule)
        return job, self._rules.speaking_of(job)


def _writing(writer: Identity, project: str, tier: str, namespace: str, rule: str) -> Writing:
    return Writing(
        issuer=writer.issuer,
        iss=writer.iss,
        project=project,
        tier=tier,
        namespace=namespace,
        subject=writer.subject,
        rule=rule,
        claims=writer.claim_map,
    )


def _bad_signature(index: int, leaf: bytes, fault: str) -> Alert:
    text = f"Entry {index} is in the log, and its signature is not good: {fault}."
    return alarm("bad-signature", text, index, leaf)


class _Stored(NamedTuple):
    job: Writing
    at: int
    size: int


def _unexpected(code: str, index: int, leaf: bytes, stored: _Stored) -> Alert:
    job, at, size = stored
    who = f"{show(job.subject)} of {show(job.issuer)}"
    where = f"as {job.tier} to {show(job.namespace)} by rule {show(job.rule)}"
    why = {
        "unknown-issuer": "by an issuer that no rule expects",
        "unexpected-writer": "by a writer whom no rule expects there",
        "unexpected-size": f"with {size} bytes, which is more than the rules expect",
        "unexpected-hours": f"on {rfc3339(at)}, when no rule expects it",
    }[code]
    return alarm(code, f"Entry {index} was written {why}: {who}, {where}.", index, leaf)


def _event(index: int, leaf: bytes, event: Event, found: Examined) -> None:
    match event.what:
        case PolicyTookEffect() | KeysChanged() as what:
            found.announced.append(Announced(index, what))
        case LogOpened() if index > 0:
            text = f"Entry {index} opens the log, which was open already."
            found.alerts.append(alarm("log-opened-again", text, index, leaf))
        case EntryQuarantined(reason=reason):
            text = f"Entry {index} says that stored bytes did not verify: {show(reason)}."
            found.alerts.append(alarm("quarantined", text, index, leaf))
        case EntryRemoved(line=line) if line != "superseded":
            text = f"Entry {index} says that an entry was removed: {show(line)}."
            found.alerts.append(notice("removed", text, index, leaf))
        case _:
            return
