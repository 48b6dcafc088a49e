"""What is unexpected in a log: entries judged one by one, each exactly by the rules. Pure."""

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from secure_cache.audit.forms import row_document
from secure_cache.audit.quick import read_leaf
from secure_cache.audit.reading import statement_of
from secure_cache.audit.watch_rules import WatchRules
from secure_cache.model.entry import Entry
from secure_cache.model.errors import CorruptObject
from secure_cache.provenance.event import (
    EntryQuarantined,
    EntryRemoved,
    Event,
    KeysChanged,
    LogOpened,
    PolicyTookEffect,
)
from secure_cache.provenance.keys import KeyRing
from secure_cache.provenance.verify import verify_statement


class Severity(StrEnum):
    """`notice`: somebody should know. `alarm`: somebody should come."""

    NOTICE = "notice"
    ALARM = "alarm"


@dataclass(frozen=True, slots=True)
class Alert:
    """One thing that was not expected.

    Attributes:
        alert: one of `watch_rules.CODES`.
        severity: how loud.
        sentence: for a person.
        index: of the entry in the log; None for what is about the log as a whole.
        facts: of the entry, as an audit query shows them.
    """

    alert: str
    severity: Severity
    sentence: str
    index: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        return {
            "alert": self.alert,
            "severity": str(self.severity),
            "index": self.index,
            "sentence": self.sentence,
            "entry": self.facts or None,
        }


class Watch:
    """Judges entries in their order.

    Args:
        rules: what is expected.
        ring: the entry keys.
        policies: digests of the policies that took effect before the first entry to be judged.
    """

    def __init__(self, rules: WatchRules, ring: KeyRing, policies: Collection[str]) -> None:
        self._rules = rules
        self._ring = ring
        self._policies = set(policies)
        self._announced: str | None = None

    @property
    def announced(self) -> str | None:
        """Digest of the key ring that was announced last among the entries that were judged."""
        return self._announced

    def judge(self, index: int, leaf: bytes) -> list[Alert]:
        """The alerts of one entry. Raises nothing, whatever the leaf is."""
        statement = statement_of(leaf)
        facts = row_document(read_leaf(index, leaf))
        found: list[Alert] = []
        signed = False
        if statement is None:
            what = "is no statement of this project: somebody else can append to the log"
            found.append(
                Alert("unreadable", Severity.ALARM, f"Entry {index} {what}.", index, facts)
            )
        else:
            found += self._signature(index, leaf, facts)
            signed = not found
        if isinstance(statement, Entry):
            found += self._entry(index, statement, facts)
        elif isinstance(statement, Event):
            found += self._event(index, statement, facts)
            # What nobody of ours has signed announces nothing.
            if signed and isinstance(statement.what, PolicyTookEffect):
                self._policies.add(str(statement.what.sha256))
            if signed and isinstance(statement.what, KeysChanged):
                self._announced = str(statement.what.ring)
        return [alert for alert in found if alert.alert not in self._rules.ignored]

    def _signature(self, index: int, leaf: bytes, facts: dict[str, Any]) -> list[Alert]:
        try:
            verify_statement(leaf, self._ring)
        except CorruptObject as error:
            text = f"Entry {index} is in the log, and its signature is not good: {error}."
            return [Alert("bad-signature", Severity.ALARM, text, index, facts)]
        return []

    def _entry(self, index: int, entry: Entry, facts: dict[str, Any]) -> list[Alert]:
        found = []
        who = f"{entry.writer.issuer} {entry.writer.subject}"
        where = f"as {entry.tier} to {entry.namespace} by rule {entry.rule}"
        if not self._rules.knows_issuer(entry):
            text = f"Entry {index} was written by an issuer that no rule expects: {who}, {where}."
            found.append(Alert("unknown-issuer", Severity.ALARM, text, index, facts))
        elif not self._rules.expects(entry):
            text = f"Entry {index} was written by {who}, {where}, which no rule expects."
            found.append(Alert("unexpected-writer", Severity.ALARM, text, index, facts))
        if entry.policy_sha256 not in self._policies:
            text = f"Entry {index} names a policy that the log had not announced before it."
            found.append(Alert("unknown-policy", Severity.ALARM, text, index, facts))
        return found

    def _event(self, index: int, event: Event, facts: dict[str, Any]) -> list[Alert]:
        match event.what:
            case PolicyTookEffect(sha256=sha256, number=number):
                text = f"Policy number {number} took effect with entry {index}: {sha256}."
                return [Alert("policy-changed", Severity.NOTICE, text, index, facts)]
            case KeysChanged(added=added, retired=retired, revoked=revoked):
                text = (
                    f"The entry keys changed with entry {index}: {len(added)} added,"
                    f" {len(retired)} retired, {len(revoked)} revoked."
                )
                return [Alert("keys-changed", Severity.NOTICE, text, index, facts)]
            case LogOpened() if index > 0:
                text = f"Entry {index} opens the log, which was open already."
                return [Alert("log-opened-again", Severity.ALARM, text, index, facts)]
            case EntryQuarantined(reason=reason):
                text = f"Entry {index} says that stored bytes did not verify: {reason}."
                return [Alert("quarantined", Severity.ALARM, text, index, facts)]
            case EntryRemoved(line=line) if line != "superseded":
                text = f"Entry {index} says that an entry was removed: {line}."
                return [Alert("removed", Severity.NOTICE, text, index, facts)]
            case _:
                return []
