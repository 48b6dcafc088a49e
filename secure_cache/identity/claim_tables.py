"""What presets are written with: four tables of claims, and the grammar of refs.

Every claim that a provider is known to send stands in exactly one table, as in PyPI's trusted
publishing, so that a claim which a provider adds one day is noticed and not trusted by accident.
"""

import re
from dataclasses import dataclass
from typing import Final

from secure_cache.model.identity import Context, ContextKind
from secure_cache.policy.preset import Claims

MAX_REF_BYTES = 255

_NOT_IN_A_REF = re.compile(r"[ ~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(?:/|$)")
_EVENT = re.compile(r"[a-z][a-z0-9_]{0,63}")
_NUMBER = re.compile(r"[1-9][0-9]{0,17}")

BRANCH_PREFIX: Final = "refs/heads/"
TAG_PREFIX: Final = "refs/tags/"


@dataclass(frozen=True, slots=True)
class ClaimTables:
    """The claims of one provider.

    Attributes:
        verified: read by `classify`; must be there, as strings that are not empty.
        required: every token has them; the policy's `pin` and `match` compare them, and a
            claim that is missing matches nothing.
        optional: read by `classify` or by rules when they are there.
        unchecked: known and kept as evidence; nothing is decided from them.
        private: known and never kept: they name people.
    """

    verified: frozenset[str]
    required: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()
    unchecked: frozenset[str] = frozenset()
    private: frozenset[str] = frozenset()

    @property
    def known(self) -> frozenset[str]:
        return self.verified | self.required | self.optional | self.unchecked

    def first_missing(self, claims: Claims) -> str | None:
        """The first verified claim that is absent, empty or not a string."""
        return next((name for name in sorted(self.verified) if not text(claims, name)), None)


def text(claims: Claims, name: str) -> str:
    """A claim that is a string, else the empty string, which every caller refuses."""
    value = claims.get(name)
    return value if isinstance(value, str) else ""


def is_ref_name(name: str) -> bool:
    """Whether git would accept `name` as a branch or tag, and it is safe to print.

    Stricter than git in one thing: only printable text (no bidi controls, no line separators)
    of at most 255 bytes.
    """
    return (
        bool(name)
        and name.isprintable()
        and len(name.encode()) <= MAX_REF_BYTES
        and _NOT_IN_A_REF.search(name) is None
        and not name.startswith(("/", "."))
        and not name.endswith(("/", "."))
        and name != "@"
    )


def after(prefix: str, ref: str) -> str | None:
    """The name of a full ref under `prefix`, if it has this prefix and a legal name."""
    name = ref.removeprefix(prefix)
    return name if name != ref and is_ref_name(name) else None


def is_number(value: str) -> bool:
    """Digits without a leading zero, in ASCII."""
    return _NUMBER.fullmatch(value) is not None


def other_event(event: str) -> Context | None:
    """An event that owns no namespace and is never trusted; None when its name is not one."""
    if _EVENT.fullmatch(event) is None:
        return None
    return Context(ContextKind.OTHER, event)
