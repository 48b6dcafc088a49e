"""What is unexpected in a log: entries in their order, each held to those before it. Pure."""

from collections.abc import Iterable, Iterator, Sequence

from secure_cache.audit.watch_alert import Alert, alarm, notice
from secure_cache.audit.watch_examine import Announced, Examined, Examiner, Run
from secure_cache.audit.watch_rules import WatchRules
from secure_cache.audit.watch_signatures import SigningKeys
from secure_cache.model.clock import rfc3339
from secure_cache.provenance.event import KeysChanged, PolicyTookEffect

MAX_POLICIES = 256
"""So many of the newest policies are known. An entry under an older one is worth an alert."""


class Watch:
    """Judges what was examined, in the order of the log.

    Args:
        rules: what is expected.
        keys: the entry keys, and until where those that were revoked count.
        policies: digests of the newest that took effect before the first entry, the newest last.
        number: of the newest; None where nobody knows.
        now: by the clock here, seconds since 1970.
        newest: the newest time that an active key signed before the first entry; 0: nobody knows.
    """

    def __init__(
        self,
        rules: WatchRules,
        keys: SigningKeys,
        policies: Iterable[str] = (),
        number: int | None = None,
        *,
        now: int,
        newest: int = 0,
    ) -> None:
        self._rules = rules
        self._keys = keys
        self._policies = dict.fromkeys(policies)
        self._number = number
        self._announced: str | None = None
        self._now = now
        self._newest = newest
        self._examiner = Examiner(rules, keys, now)

    @property
    def now(self) -> int:
        return self._now

    @property
    def newest(self) -> int:
        """The newest time that an active key has signed."""
        return self._newest

    @property
    def rules(self) -> WatchRules:
        return self._rules

    @property
    def announced(self) -> str | None:
        """Digest of the key ring that was announced last among the entries that were judged."""
        return self._announced

    @property
    def keys(self) -> SigningKeys:
        """With the revocations that were met."""
        return self._keys

    @property
    def policies(self) -> tuple[str, ...]:
        """Digests of the newest, the newest last."""
        return tuple(self._policies)

    @property
    def number(self) -> int | None:
        """Of the newest policy."""
        return self._number

    def examiner(self) -> Examiner:
        """For what comes next."""
        return self._examiner

    def settle(
        self, first: int, leaves: Sequence[bytes], examined: Examined
    ) -> tuple[list[Alert], int]:
        """The alerts of some entries, in their order.

        Args:
            first: index of the first.
            leaves: all of them.
            examined: by `examiner`, after all entries before `first` were settled.

        Returns: with the alerts, how many entries they are of. Behind an entry that revokes a key
        all others have to be examined anew.
        """
        found, end = [*examined.alerts, *self._late(examined, first, leaves)], first + len(leaves)
        steps: list[Run | Announced] = [*examined.runs, *examined.announced]
        for step in sorted(steps, key=lambda step: step.first):
            if isinstance(step, Run):
                found += self._under(step, first, leaves)
                continue
            found.append(self._take(step, leaves[step.first - first]))
            if isinstance(step.what, KeysChanged) and self._revoke(step.first, step.what):
                end = step.first + 1
                break
        if end == first + len(leaves):
            # Else some of these times are of the key that was revoked here.
            self._newest = max(self._newest, examined.newest)
        wanted = [
            alert
            for alert in found
            if alert.alert not in self._rules.ignored and (alert.index or 0) < end
        ]
        return sorted(wanted, key=lambda alert: alert.index or 0), end - first

    def _late(self, examined: Examined, first: int, leaves: Sequence[bytes]) -> Iterator[Alert]:
        """Entries that a retired key has signed, behind entries that came into being long after
        its end: whoever stole it may write any date, and cannot write into the past of a log."""
        for one in examined.retired:
            behind = max(self._newest, one.behind)
            if behind - one.end > self._rules.max_late_seconds:
                text = (
                    f"Entry {one.first} is signed by key {one.keyid}, which signed until"
                    f" {rfc3339(one.end)}, and stands in the log behind an entry of"
                    f" {rfc3339(behind)}: it waited long for its place, or somebody has that key,"
                    " or a copy of an old entry."
                )
                yield alarm("late-signature", text, one.first, leaves[one.first - first])

    def _under(self, run: Run, first: int, leaves: Sequence[bytes]) -> list[Alert]:
        if run.policy in self._policies:
            return []
        what = "names a policy that the log had not announced before it, or very long before"
        return [
            alarm("unknown-policy", f"Entry {index} {what}.", index, leaves[index - first])
            for index in range(run.first, run.last + 1)
        ]

    def _take(self, event: Announced, leaf: bytes) -> Alert:
        if isinstance(event.what, PolicyTookEffect):
            return self._policy(event.first, event.what, leaf)
        what = event.what
        self._announced = str(what.ring)
        text = (
            f"The entry keys changed with entry {event.first}: {len(what.added)} added,"
            f" {len(what.retired)} retired, {len(what.revoked)} revoked."
        )
        return notice("keys-changed", text, event.first, leaf)

    def _policy(self, index: int, what: PolicyTookEffect, leaf: bytes) -> Alert:
        sha256, newest = str(what.sha256), next(reversed(self._policies), None)
        previous = None if what.previous is None else str(what.previous)
        said, number = f"Entry {index} says that policy number {what.number}", self._number
        if (what.number, sha256) == (number, newest):
            # A server that is killed between the event and its note of it tells it once more.
            text = f"{said} took effect, as was said before: {sha256}."
            return notice("policy-changed", text, index, leaf)
        follows = number is None or (what.number == number + 1 and previous == newest)
        self._policies.pop(sha256, None)
        self._policies[sha256] = None
        if len(self._policies) > MAX_POLICIES:
            del self._policies[next(iter(self._policies))]
        if follows or number is None:
            self._number = what.number
            return notice("policy-changed", f"{said} took effect: {sha256}.", index, leaf)
        # What goes back must not make the next one look as if it went on from there.
        self._number = max(number, what.number)
        text = f"{said} took effect, which does not follow number {number}: {sha256}."
        return alarm("policy-out-of-order", text, index, leaf)

    def _revoke(self, index: int, what: KeysChanged) -> bool:
        keys = self._keys.with_revoked(what.revoked, index)
        if keys is self._keys:
            return False
        self._keys = keys
        self._examiner = Examiner(self._rules, keys, self._now)
        return True
