"""An alert of the monitor: what was not expected, for a program and for a person. Pure.

What strangers chose is quoted and cut short in the sentence, and cut in the facts: an entry may
hold 60 KiB of claims, and what is too large for whoever takes the alerts would hold up all others.
"""

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from secure_cache.audit.forms import inert_json, row_document
from secure_cache.audit.quick import read_leaf

_MAX_TEXT = 512
_MAX_DETAIL_BYTES = 4096


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
        facts: of the entry, as an audit query shows them, without what is too long.
        about: of the log as a whole: what makes two alerts one; the sentence, if it is empty.
    """

    alert: str
    severity: Severity
    sentence: str
    index: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    about: str = ""

    def document(self, origin: str) -> dict[str, Any]:
        """As it is given out.

        The id is the same whenever the same thing is told again, as after a crash.

        Args:
            origin: the log's name.
        """
        what = self.facts.get("leaf_hash") or self.about or self.sentence
        about = (origin, self.alert, self.index, what)
        return {
            "id": hashlib.sha256(inert_json(about)).hexdigest()[:32],
            "alert": self.alert,
            "severity": str(self.severity),
            "index": self.index,
            "sentence": self.sentence,
            "entry": self.facts or None,
        }


def alarm(code: str, sentence: str, index: int, leaf: bytes) -> Alert:
    return Alert(code, Severity.ALARM, sentence, index, facts_of(index, leaf))


def notice(code: str, sentence: str, index: int, leaf: bytes) -> Alert:
    return Alert(code, Severity.NOTICE, sentence, index, facts_of(index, leaf))


def facts_of(index: int, leaf: bytes) -> dict[str, Any]:
    """The row of an entry as an audit query shows it; `shortened` where something is left out."""
    found, shortened = row_document(read_leaf(index, leaf)), False
    for name, value in found.items():
        if isinstance(value, str) and len(value) > _MAX_TEXT:
            found[name], shortened = value[:_MAX_TEXT], True
        elif isinstance(value, dict) and len(inert_json(value)) > _MAX_DETAIL_BYTES:
            found[name], shortened = None, True
    return found | ({"shortened": True} if shortened else {})
