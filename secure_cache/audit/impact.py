"""What a revocation, or a whole edited policy, would hide. Pure.

Each entry is judged by the function that judges it when it is read, so that nothing here can say
anything else than what will happen.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Self

import msgspec

from secure_cache.model.clock import rfc3339
from secure_cache.model.entry import Entry
from secure_cache.policy.compile import CompiledPolicy
from secure_cache.policy.compiled import Revocation
from secure_cache.policy.decision import Hidden

GROUPS = ("namespace", "writer", "rule", "tier", "day")
_DAY = 10


class Effect(StrEnum):
    """What becomes of an entry.

    `vanishes`: today's policy serves it, and the other will not. `hidden-already`: the revocation
    covers it, and today's policy hides it, too. `not-served`: it is covered, and nobody is served
    it whatever the policy says: its key was written again, it is quarantined, or its signature
    does not count any more. `appears`: today's policy hides it, and the other will serve it:
    whoever only meant to take something back has made a mistake.
    """

    VANISHES = "vanishes"
    HIDDEN_ALREADY = "hidden-already"
    NOT_SERVED = "not-served"
    APPEARS = "appears"


class Hit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry that is affected.

    Attributes:
        index: in the log.
        line: of the other policy, that decides it; empty for what appears.
        token_refused: a token like the one that wrote it is refused from then on, even if it is
            issued anew.
        time: when it was stored.
    """

    index: int
    effect: Effect
    line: str
    token_refused: bool
    time: str
    namespace: str
    key: str
    tier: str
    digest: str
    size: int
    entry_id: str
    issuer: str
    subject: str
    rule: str

    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found

    def not_served(self) -> "Hit":
        """The same of an entry that nobody is served today."""
        if self.effect is Effect.HIDDEN_ALREADY:
            return self
        return msgspec.structs.replace(self, effect=Effect.NOT_SERVED)


@dataclass(frozen=True, slots=True)
class Question:
    """What is compared.

    Attributes:
        today: the policy in force.
        then: the policy with the change.
        alone: the revocations that are asked about, without anything else that takes back; None:
            every difference counts.
        now: seconds since 1970.
    """

    today: CompiledPolicy
    then: CompiledPolicy
    alone: CompiledPolicy | None
    now: float

    @classmethod
    def about(
        cls,
        today: CompiledPolicy,
        then: CompiledPolicy,
        revocations: tuple[Revocation, ...] | None,
        *,
        now: float,
    ) -> Self:
        """Only what these of `then` cover; None: whatever differs."""
        if revocations is None:
            return cls(today, then, None, now)
        tables = replace(then.tables, revocations=revocations, epochs={})
        return cls(today, then, replace(then, tables=tables), now)

    @property
    def revocations(self) -> tuple[Revocation, ...] | None:
        return None if self.alone is None else self.alone.tables.revocations

    def ask(self, index: int, entry: Entry) -> Hit | None:
        """None: it is not affected."""
        if self.alone is not None:
            covered = self.alone.hides(entry, now=self.now)
            if covered is None or not covered.taken_back:
                return None
            before = self.today.hides(entry, now=self.now)
            effect = Effect.VANISHES if before is None else Effect.HIDDEN_ALREADY
            return self._hit(index, entry, effect, covered)
        before, after = (policy.hides(entry, now=self.now) for policy in (self.today, self.then))
        if before is None and after is not None:
            return self._hit(index, entry, Effect.VANISHES, after)
        if before is not None and after is None:
            return self._hit(index, entry, Effect.APPEARS, None)
        return None

    def _hit(self, index: int, entry: Entry, effect: Effect, decided: Hidden | None) -> Hit:
        anew = replace(entry.writer, issued_at=int(self.now))
        judge = self.then if self.alone is None else self.alone
        return Hit(
            index=index,
            effect=effect,
            line="" if decided is None else decided.line,
            token_refused=judge.refuses_token(anew, now=self.now) is not None,
            time=rfc3339(entry.stored_at),
            namespace=str(entry.namespace),
            key=str(entry.key),
            tier=str(entry.tier),
            digest=str(entry.digest),
            size=entry.size,
            entry_id=entry.entry_id,
            issuer=entry.writer.issuer,
            subject=entry.writer.subject,
            rule=entry.rule,
        )


@dataclass(slots=True)
class Impact:
    """All in all.

    Attributes:
        looked_at: so many entries.
        effects: how many have which effect.
        bytes_hidden: of the artifacts that vanish.
        groups: of what vanishes, by each of `GROUPS`.
        refused: writers of anything affected of whom a token is refused from then on.
        accepted: those of whom a token is not: only what they wrote goes.
        first: index and time of the oldest entry that vanishes; `last` of the newest.
    """

    looked_at: int = 0
    effects: Counter[Effect] = field(default_factory=Counter)
    bytes_hidden: int = 0
    groups: Mapping[str, Counter[str]] = field(
        default_factory=lambda: {name: Counter() for name in GROUPS}
    )
    refused: set[str] = field(default_factory=set)
    accepted: set[str] = field(default_factory=set)
    first: tuple[int, str] | None = None
    last: tuple[int, str] | None = None

    def add(self, hit: Hit) -> None:
        """Count one; in the order of the log."""
        self.effects[hit.effect] += 1
        writer = f"{hit.issuer} {hit.subject}"
        (self.refused if hit.token_refused else self.accepted).add(writer)
        if hit.effect is not Effect.VANISHES:
            return
        self.bytes_hidden += hit.size
        values = (hit.namespace, writer, hit.rule, hit.tier, hit.time[:_DAY])
        for name, value in zip(GROUPS, values, strict=True):
            self.groups[name][value] += 1
        here = (hit.index, hit.time)
        self.first = self.first or here
        self.last = here

    def document(self) -> dict[str, Any]:
        return {
            "looked_at": self.looked_at,
            **{effect.value.replace("-", "_"): self.effects[effect] for effect in Effect},
            "bytes": self.bytes_hidden,
            "writers_refused": len(self.refused),
            "writers_not_refused": len(self.accepted - self.refused),
            "first": _place(self.first),
            "last": _place(self.last),
            **{f"by_{name}": dict(found.most_common()) for name, found in self.groups.items()},
        }


def _place(found: tuple[int, str] | None) -> dict[str, Any] | None:
    return None if found is None else {"index": found[0], "time": found[1]}
