"""What the policy needs to know of a CI provider. The values live in `identity.presets`.

A preset is data plus one pure function: it reads verified claims and says what kind of job
they speak for, or that it cannot tell. The policy never looks at a provider's claims itself.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from secure_cache.model.identity import ClaimValue, Context

Claims: TypeAlias = Mapping[str, ClaimValue]


@dataclass(frozen=True, slots=True)
class Unclassifiable:
    """The claims speak for no job that a rule could name. `why` is for `explain` and whoami."""

    why: str


Classify: TypeAlias = Callable[[Claims, "PresetOptions"], "Context | Unclassifiable"]


@dataclass(frozen=True, slots=True)
class PresetOptions:
    """What an issuer's entry in the policy may set beside its pins.

    Attributes:
        trusted_events: the events that run code of the branch itself; empty means the
            preset's own list.
        claim_names: for `generic`: which claim holds what (`branch`, `pull_request`, `base`,
            `event`, `tag`, `role`, `project`, ...).
        verified: for `generic`: the admin acknowledged `i-verified-this-issuer`.
    """

    trusted_events: frozenset[str] = frozenset()
    claim_names: tuple[tuple[str, str], ...] = ()
    verified: bool = False


@dataclass(frozen=True, slots=True)
class Preset:
    """One CI provider.

    Attributes:
        name: as written in the policy, such as `github`.
        classify: verified claims to a job's context.
        default_iss: the issuer's exact `iss` where the provider has one for everybody.
        default_jwks_url: where its keys are; None means it must be configured, or is derived
            by `jwks_path` from the configured `iss`.
        jwks_path: appended to `iss` when no URL is configured.
        algorithms: JWS algorithms this issuer may use. Asymmetric only.
        required_pins: claims of which at least one set must be pinned, because the issuer is
            shared with strangers. Empty when `iss` alone tells the tenant.
        id_claims: claims that are ids: they must be quoted strings in the policy (E09).
        name_instead_of_id: mutable name claim -> the id claim that should be used (W01).
        known_claims: every claim the provider is known to send; these are kept in the
            identity and signed into the entry, all others are dropped and counted.
        private_claims: known too, but never kept: they name people, and a log is forever.
        default_trusted_events: the preset's event allow-list.
        dangerous_events: events that W03 warns about when a policy trusts them.
        max_lifetime_seconds: the longest `exp - iat` that is believable.
        max_age_seconds: the oldest `iat` that is accepted.
        multi_audience: the provider sends a list in `aud`; ours must be among it.
        self_issued: tokens of this server itself.
        facts: what revocations call `run_id`, `actor_id`, `commit` and `repository_id` -> the
            provider's claim.
            A fact without an entry is looked up under its own name.
        trust_ack: the `ack` without which no job of such an issuer is trustable; the policy
            clears `Context.trustable` then, whatever `classify` says.
        mappable: the first halves that `PresetOptions.claim_names` may have; empty when the
            provider's claims have fixed names.
    """

    name: str
    classify: Classify
    default_iss: str | None = None
    default_jwks_url: str | None = None
    jwks_path: str | None = None
    algorithms: tuple[str, ...] = ("RS256",)
    required_pins: tuple[frozenset[str], ...] = ()
    id_claims: frozenset[str] = frozenset()
    name_instead_of_id: Mapping[str, str] = field(default_factory=dict)
    known_claims: frozenset[str] = frozenset()
    private_claims: frozenset[str] = frozenset()
    default_trusted_events: frozenset[str] = frozenset()
    dangerous_events: frozenset[str] = frozenset()
    max_lifetime_seconds: int = 3600
    max_age_seconds: int = 86_400
    multi_audience: bool = False
    self_issued: bool = False
    facts: Mapping[str, str] = field(default_factory=dict)
    trust_ack: str | None = None
    mappable: frozenset[str] = frozenset()
