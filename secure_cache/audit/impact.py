"""What a revocation, or a whole edited policy, would hide. Pure.

Each entry is judged by the function that judges it when it is read, so that nothing here can say
anything else than what will happen.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from secure_cache.model.clock import rfc3339
from secure_cache.model.entry import Entry
from secure_cache.policy.compile import CompiledPolicy
from secure_cache.policy.compiled import Revocation

GROUPS = ("namespace", "writer", "rule", "tier", "day")
_DAY = 10


class Effect(StrEnum):
    """What becomes of an entry.

    `vanishes`: today's policy serves it, and the other will not. `hidden-already`: the revocation
    covers it, and today's policy hides it, too. `appears`: today's policy hides it, and the other
    will serve it: whoever only meant to take something back has made a mistake.
    """

    VANISHES = "vanishes"
    HIDDEN_ALREADY = "hidden-already"
    APPEARS = "appears"


@dataclass(frozen=True, slots=True)
class Hit:
    """One entry that is affected.

    Attributes:
        index: in the log.
        entry: what it states.
        effect: what becomes of it.
        line: of the other policy, that decides it; empty for what appears.
    """

    index: int
    entry: Entry
    effect: Effect
    line: str

    def document(self) -> dict[str, Any]:
        entry = self.entry
        return {
            "index": self.index,
            "effect": str(self.effect),
            "line": self.line,
            "time": rfc3339(entry.stored_at),
            "namespace": str(entry.namespace),
            "key": str(entry.key),
            "tier": str(entry.tier),
            "digest": str(entry.digest),
            "size": entry.size,
            "issuer": entry.writer.issuer,
            "subject": entry.writer.subject,
            "rule": entry.rule,
        }


@dataclass(frozen=True, slots=True)
class Question:
    """What is compared.

    Attributes:
        today: the policy in force.
        then: the policy with the change.
        revocation: only this one counts; None: every difference.
        now: seconds since 1970.
    """

    today: CompiledPolicy
    then: CompiledPolicy
    revocation: Revocation | None
    now: float

    def ask(self, index: int, entry: Entry) -> Hit | None:
        """None: it is not affected."""
        before = self.today.hides(entry, now=self.now)
        if self.revocation is not None:
            alone = replace(self.then.tables, revocations=(self.revocation,), epochs={})
            covered = replace(self.then, tables=alone).hides(entry, now=self.now)
            line = f"revocation {self.revocation.id}"
            if covered is None or covered.line != line:
                return None
            effect = Effect.VANISHES if before is None else Effect.HIDDEN_ALREADY
            return Hit(index, entry, effect, line)
        after = self.then.hides(entry, now=self.now)
        if before is None and after is not None:
            return Hit(index, entry, Effect.VANISHES, after.line)
        if before is not None and after is None:
            return Hit(index, entry, Effect.APPEARS, "")
        return None


@dataclass(slots=True)
class Impact:
    """All in all.

    Attributes:
        looked_at: so many entries.
        effects: how many have which effect.
        bytes_hidden: of the artifacts that vanish.
        groups: of what vanishes, by each of `GROUPS`.
        first: index and time of the oldest entry that vanishes; `last` of the newest.
    """

    looked_at: int = 0
    effects: Counter[Effect] = field(default_factory=Counter)
    bytes_hidden: int = 0
    groups: Mapping[str, Counter[str]] = field(
        default_factory=lambda: {name: Counter() for name in GROUPS}
    )
    first: tuple[int, int] | None = None
    last: tuple[int, int] | None = None

    def add(self, hit: Hit) -> None:
        self.effects[hit.effect] += 1
        if hit.effect is not Effect.VANISHES:
            return
        entry = hit.entry
        self.bytes_hidden += entry.size
        values = (
            str(entry.namespace),
            f"{entry.writer.issuer} {entry.writer.subject}",
            entry.rule,
            str(entry.tier),
            rfc3339(entry.stored_at)[:_DAY],
        )
        for name, value in zip(GROUPS, values, strict=True):
            self.groups[name][value] += 1
        here = (hit.index, entry.stored_at)
        self.first = self.first or here
        self.last = here

    def document(self) -> dict[str, Any]:
        return {
            "looked_at": self.looked_at,
            **{effect.value.replace("-", "_"): self.effects[effect] for effect in Effect},
            "bytes": self.bytes_hidden,
            "first": _place(self.first),
            "last": _place(self.last),
            **{f"by_{name}": dict(found.most_common()) for name, found in self.groups.items()},
        }


def _place(found: tuple[int, int] | None) -> dict[str, Any] | None:
    return None if found is None else {"index": found[0], "time": rfc3339(found[1])}
