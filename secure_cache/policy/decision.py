"""The answer of the policy, and what a compiled policy offers to the floors above."""

from dataclasses import dataclass
from typing import Protocol

from secure_cache.model.entry import Entry
from secure_cache.model.identity import Context, Identity
from secure_cache.model.names import Namespace
from secure_cache.model.tiers import Tier
from secure_cache.policy.preset import Preset, PresetOptions


@dataclass(frozen=True, slots=True)
class Decision:
    """What one identity may do.

    Attributes:
        allowed: a rule matched. When false, everything below but `reason` is empty.
        reason: one line for the person who can act: the rule that matched, or the first
            thing that failed.
        project: the one project of this identity.
        rule: the name of the rule that matched.
        tier: the tier of what it writes.
        write: the one namespace it may write, or None.
        read: the namespaces it may read, in the order to look (falling integrity).
        audit: it may read the whole log and the audit API.
        context: the normalised job, for whoami and explain.
    """

    allowed: bool
    reason: str
    project: str | None = None
    rule: str | None = None
    tier: Tier | None = None
    write: Namespace | None = None
    read: tuple[Namespace, ...] = ()
    audit: bool = False
    context: Context | None = None


@dataclass(frozen=True, slots=True)
class Issuer:
    """One entry of `issuers:`, compiled. Exactly one of the key sources is set, or neither
    for tokens of this server.

    Attributes:
        name: its name in the policy.
        preset: the provider.
        iss: the exact `iss`; for `self` this is the policy's audience.
        algorithms: the JWS algorithms it may use.
        jwks_url: where its keys are fetched.
        jwks_file: a file of keys, relative to the policy file.
        allow_private: its host may be a private or loopback address (and, on loopback only,
            plain http).
        max_lifetime_seconds: the longest `exp - iat`.
        max_age_seconds: the oldest `iat`.
        options: for the preset's `classify`.
    """

    name: str
    preset: Preset
    iss: str
    algorithms: tuple[str, ...]
    jwks_url: str | None
    jwks_file: str | None
    allow_private: bool
    max_lifetime_seconds: int
    max_age_seconds: int
    options: PresetOptions


@dataclass(frozen=True, slots=True)
class Hidden:
    """Why an entry is not served today.

    Attributes:
        why: one line.
        line: names the deciding item: `revocation <id>`, `epoch of <namespace>`, `rule <name>`,
            `default deny`.
        taken_back: on purpose, by a revocation or an epoch; else by what the rules are today.
    """

    why: str
    line: str
    taken_back: bool = False


class Policy(Protocol):
    """A compiled policy: immutable, deterministic, total."""

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of the policy file's bytes."""
        ...

    @property
    def audience(self) -> str: ...

    @property
    def public_log(self) -> bool:
        """Tiles and entries may be read without a token."""
        ...

    def issuer(self, iss: str) -> Issuer | None:
        """The issuer with exactly this `iss`."""
        ...

    @property
    def issuers(self) -> tuple[Issuer, ...]: ...

    def decide(self, identity: Identity) -> Decision:
        """What `identity` may do. Never raises; no match is a denial."""
        ...

    def decide_anonymous(self) -> Decision:
        """What a request without any token may do; by default nothing."""
        ...

    def refuses_token(self, identity: Identity, *, now: float) -> Hidden | None:
        """The revocation that covers this token, if any."""
        ...

    def hides(self, entry: Entry, *, now: float) -> Hidden | None:
        """Why `entry` must not be served today, or None.

        Applies revocations, the namespace's epoch, and today's rules to the writer's signed
        identity: they must still grant it this very namespace, at the entry's tier or above.
        """
        ...

    def epoch(self, namespace: Namespace) -> int: ...
