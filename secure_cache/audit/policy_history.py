"""How the policy came to be what it is: every version, its text, and what each change did.

That a policy took effect, when, and with which digest, is in the log. The texts are not; they are
kept beside it, and count only when their digest is the log's. So a text may be missing, and then
the answer says so: it is never guessed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, TypeVarTuple, Unpack

import anyio
import anyio.to_thread

from secure_cache.audit.auditor import PolicyInForce
from secure_cache.audit.policy_texts import PolicyTexts
from secure_cache.model.errors import (
    CorruptObject,
    InvalidPolicy,
    NotFound,
    StorageForbidden,
    Unavailable,
)
from secure_cache.policy.cases import Case
from secure_cache.policy.compile import CompiledPolicy
from secure_cache.policy.convert import convert
from secure_cache.policy.diff import DecisionChange, GrantChange, diff
from secure_cache.policy.loader import load_yaml
from secure_cache.policy.past import Verdict, read_past_policy, verdict_of
from secure_cache.policy.preset import Preset
from secure_cache.policy.schema import PolicyDocument
from secure_cache.policy.text_diff import Hunk, Line, TextDiff, text_diff

_Result = TypeVar("_Result")
_Arguments = TypeVarTuple("_Arguments")

MAX_COMPARED = 100
"""So many of the newest versions are compared for one list."""

_REMEMBERED = 1024
_NOT_COMPARED = "not compared in a list as long as this; ask for its diff"


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a change did to what the policy grants.

    Attributes:
        verdict: all in all.
        why: why it is not known; empty when it is.
        decisions: cases of today's tests that are decided differently.
        grants: parts of the policy that grant more, less or something else.
    """

    verdict: Verdict
    why: str = ""
    decisions: tuple[DecisionChange, ...] = ()
    grants: tuple[GrantChange, ...] = ()


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    """One version of the policy.

    Attributes:
        in_force: since when, and what it allowed.
        verdict: what it changed; None for the first.
        why: why that is not known.
    """

    in_force: PolicyInForce
    verdict: Verdict | None
    why: str = ""

    def document(self) -> dict[str, Any]:
        return {**self.in_force.document(), "verdict": _text(self.verdict), "why": self.why}


@dataclass(frozen=True, slots=True)
class PolicyComparison:
    """Two versions side by side.

    Attributes:
        sha256: the later one.
        against: the earlier one; None where there is none before the first.
        meaning: what it changed; None where there is none before it.
        text: line by line.
    """

    sha256: str
    against: str | None
    meaning: Meaning | None
    text: TextDiff

    @property
    def verdict(self) -> Verdict | None:
        return None if self.meaning is None else self.meaning.verdict

    @property
    def why(self) -> str:
        return "" if self.meaning is None else self.meaning.why

    @property
    def decisions(self) -> tuple[DecisionChange, ...]:
        return () if self.meaning is None else self.meaning.decisions

    @property
    def grants(self) -> tuple[GrantChange, ...]:
        return () if self.meaning is None else self.meaning.grants

    @property
    def hunks(self) -> tuple[Hunk, ...]:
        return self.text.hunks

    @property
    def cut(self) -> bool:
        return self.text.cut

    def document(self) -> dict[str, Any]:
        return {
            "sha256": self.sha256,
            "against": self.against,
            "verdict": _text(self.verdict),
            "why": self.why,
            "decisions": [
                {"case": change.case, "before": change.before, "after": change.after}
                for change in self.decisions
            ],
            "grants": [
                {"direction": str(change.direction), "what": change.what} for change in self.grants
            ],
            "hunks": [{"lines": [_line(line) for line in hunk.lines]} for hunk in self.hunks],
            "cut": self.cut,
        }


class KnowsPolicies(Protocol):
    """Knows which policy took effect when, from the log."""

    async def policies(self, sha256: str | None = None) -> list[PolicyInForce]:
        """All events, or those of one policy, the first one first."""
        ...


class PolicyHistory:
    """Answers from the log's events and the texts that are kept.

    Methods raise StorageUnavailable, LogInconsistent and DamagedIndex.

    Args:
        known: the events.
        texts: gives the texts.
        presets: the CI providers, by name.
        cases: those of the tests in force; they show which decisions a change changes.
    """

    def __init__(
        self,
        *,
        known: KnowsPolicies,
        texts: PolicyTexts,
        presets: Mapping[str, Preset],
        cases: Callable[[], tuple[Case, ...]] = tuple,
    ) -> None:
        self._known = known
        self._texts = texts
        self._presets = presets
        self._cases = cases
        # Reading policies is slow, and must take no thread from other questions.
        self._threads = anyio.CapacityLimiter(1)
        self._judged_by: tuple[Case, ...] = ()
        self._verdicts: dict[tuple[str, str], tuple[Verdict, str]] = {}

    async def versions(self) -> tuple[PolicyVersion, ...]:
        """All of them, the first one first, with what each changed."""
        found = await self._known.policies()
        cases = await self._in_thread(self._cases)
        if cases != self._judged_by:
            self._judged_by = cases
            self._verdicts.clear()
        by_digest: dict[str | None, PolicyInForce] = {}
        shown = []
        for place, policy in enumerate(found):
            before = by_digest.get(policy.previous_sha256)
            by_digest[policy.sha256] = policy
            if policy.previous_sha256 is None:
                shown.append(PolicyVersion(policy, None))
            elif before is None:
                why = "the log has no event about the policy before it"
                shown.append(PolicyVersion(policy, Verdict.UNKNOWN, why))
            elif place < len(found) - MAX_COMPARED:
                shown.append(PolicyVersion(policy, *self._verdict_before(before, policy)))
            else:
                shown.append(PolicyVersion(policy, *await self._verdict(before, policy)))
        return tuple(shown)

    async def text(self, sha256: str) -> bytes:
        """The very bytes of a policy that was in force.

        Raises:
            NotFound: the log knows none of this digest, or its text is not kept.
            CorruptObject: what is kept is not that policy.
        """
        return await self._text(await self._version(sha256))

    async def diff(self, sha256: str, against: str | None = None) -> PolicyComparison:
        """What changed from one policy, by default the one before, to another.

        Raises:
            NotFound, CorruptObject: as `text`, of either.
        """
        later = await self._version(sha256)
        new = await self._text(later)
        digest = against or later.previous_sha256
        if digest is None:
            return PolicyComparison(sha256, None, None, await self._in_thread(text_diff, b"", new))
        earlier = await self._version(digest)
        old = await self._text(earlier)
        cases = await self._in_thread(self._cases)
        meaning = await self._in_thread(self._compare, (earlier, old), (later, new), cases)
        text = await self._in_thread(text_diff, old, new)
        return PolicyComparison(sha256, earlier.sha256, meaning, text)

    async def document(self, version: PolicyInForce) -> PolicyDocument:
        """What a version said, whether or not it would load today.

        Raises: as `text`, and InvalidPolicy: it cannot be read at all.
        """
        data = await self._text(version)
        return await self._in_thread(_document, f"policy {version.number}", data)

    def _verdict_before(self, before: PolicyInForce, after: PolicyInForce) -> tuple[Verdict, str]:
        key = (before.sha256, after.sha256)
        return self._verdicts.get(key, (Verdict.UNKNOWN, _NOT_COMPARED))

    async def _verdict(self, before: PolicyInForce, after: PolicyInForce) -> tuple[Verdict, str]:
        key = (before.sha256, after.sha256)
        if key in self._verdicts:
            return self._verdicts[key]
        try:
            old, new = await self._text(before), await self._text(after)
        except NotFound:
            return Verdict.UNKNOWN, "a text is not kept here"
        except CorruptObject:
            return Verdict.UNKNOWN, "what is kept is not the policy that the log names"
        except (Unavailable, StorageForbidden):
            return Verdict.UNKNOWN, "the storage did not answer"
        meaning = await self._in_thread(self._compare, (before, old), (after, new), self._judged_by)
        while len(self._verdicts) >= _REMEMBERED:
            del self._verdicts[next(iter(self._verdicts))]
        self._verdicts[key] = (meaning.verdict, meaning.why)
        return self._verdicts[key]

    def _compare(
        self,
        before: tuple[PolicyInForce, bytes],
        after: tuple[PolicyInForce, bytes],
        cases: tuple[Case, ...],
    ) -> Meaning:
        try:
            old, new = self._read(*before), self._read(*after)
        except InvalidPolicy as error:
            return Meaning(Verdict.UNKNOWN, f"one of them would not load today: {error}")
        difference = diff(old, new, cases)
        return Meaning(verdict_of(difference), "", difference.decisions, difference.grants)

    def _read(self, version: PolicyInForce, data: bytes) -> CompiledPolicy:
        name = f"policy {version.number}"
        return read_past_policy(data, name=name, presets=self._presets, now=version.at)

    async def _version(self, sha256: str) -> PolicyInForce:
        """The newest event about it. Raises: NotFound."""
        found = await self._known.policies(sha256)
        if not found:
            raise NotFound(f"the log has no policy {sha256[:80]!a}")
        return found[-1]

    async def _text(self, version: PolicyInForce) -> bytes:
        return await self._texts.text(version.number, version.sha256)

    async def _in_thread(
        self, function: Callable[[Unpack[_Arguments]], _Result], *arguments: *_Arguments
    ) -> _Result:
        return await anyio.to_thread.run_sync(function, *arguments, limiter=self._threads)


def _document(name: str, data: bytes) -> PolicyDocument:
    return convert(load_yaml(data, name=name), PolicyDocument, name=name)


def _text(verdict: Verdict | None) -> str | None:
    return None if verdict is None else str(verdict)


def _line(line: Line) -> dict[str, Any]:
    return {"kind": str(line.kind), "old": line.old, "new": line.new, "text": line.text}
