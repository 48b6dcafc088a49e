"""A quick look at a statement's bytes: can a revocation cover it at all?

Reading a statement takes ten times as long as searching it. What a revocation asks for stands in
the statement as it is written, so that a statement without it need not be read. The answer errs on
one side only: what is covered is never left out.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from secure_cache.policy.compiled import Revocation
from secure_cache.policy.conditions import FACTS

_TEXTS = frozenset({"key", "jti_sha256", "policy_sha256", "project", "rule", "subject", "tid"})
"""Keys whose values are texts of the statement; an issuer answers to names that are not in it."""
_NAMESPACE = "namespace"


@dataclass(frozen=True, slots=True)
class Needles:
    """For each revocation: of each group, one must be in the statement."""

    groups: tuple[tuple[tuple[bytes, ...], ...], ...]

    @classmethod
    def of(cls, revocations: Iterable[Revocation]) -> Self:
        return cls(tuple(_groups(revocation) for revocation in revocations))

    def may_be_covered(self, payload: bytes) -> bool:
        """False only when none of the revocations can cover the statement in `payload`."""
        return any(
            all(any(needle in payload for needle in group) for group in groups)
            for groups in self.groups
        )


def _groups(revocation: Revocation) -> tuple[tuple[bytes, ...], ...]:
    found = []
    for key, values in revocation.match:
        needles = [_needle(key, value) for value in sorted(values)]
        if all(needle is not None for needle in needles):
            found.append(tuple(needle for needle in needles if needle is not None))
    return tuple(found)


def _needle(key: str, value: str) -> bytes | None:
    """None: it may be there in other words."""
    if key not in _TEXTS and key not in FACTS and key != _NAMESPACE:
        return None
    if key in FACTS and _is_fraction(value):
        # RFC 8785 writes some fractions otherwise than revocations read them.
        return None
    try:
        # Escaped as RFC 8785 does.
        text = json.dumps(value, ensure_ascii=False)[1:-1].encode()
    except UnicodeEncodeError:
        return None
    # A namespace stands in the subject's name, before the key.
    return text + b"/" if key == _NAMESPACE else text


def _is_fraction(value: str) -> bool:
    try:
        number = float(value)
    except ValueError:
        return False
    return not value.lstrip("-").isdigit() and str(number) == value
