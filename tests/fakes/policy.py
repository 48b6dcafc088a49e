"""A policy that knows issuers and answers every decision the same way."""

from dataclasses import dataclass, replace

from secure_cache.identity.presets import load_presets
from secure_cache.policy.decision import Decision, Hidden, Issuer
from secure_cache.policy.preset import PresetOptions

AUDIENCE = "https://cache.example"


@dataclass(frozen=True)
class FixedPolicy:
    issuers: tuple[Issuer, ...] = ()
    audience: str = AUDIENCE
    sha256: str = "0" * 64
    public_log: bool = False
    decision: Decision = Decision(allowed=True, reason="rule main")  # noqa: RUF009 - frozen
    hidden: Hidden | None = None

    def issuer(self, iss):
        return next((issuer for issuer in self.issuers if issuer.iss == iss), None)

    def decide(self, identity):
        return self.decision

    def decide_anonymous(self):
        return Decision(allowed=False, reason="no anonymous rule")

    def refuses_token(self, identity, *, now):
        return self.hidden

    def hides(self, entry, *, now):
        return self.hidden

    def epoch(self, namespace):
        return 0


def issuer_entry(iss, *, name="ci", preset="github", **changes):
    """A compiled issuer, as the policy gives it."""
    found = load_presets()[preset]
    entry = Issuer(
        name=name,
        preset=found,
        iss=iss,
        algorithms=found.algorithms,
        jwks_url=None,
        jwks_file=None,
        allow_private=True,
        max_lifetime_seconds=found.max_lifetime_seconds,
        max_age_seconds=found.max_age_seconds,
        options=PresetOptions(),
    )
    return replace(entry, **changes)
