"""`issuers:`, derived and compiled: where the keys are, what a token must hold."""

from collections.abc import Mapping
from typing import TypeVar

from msgspec import UNSET, UnsetType

from secure_cache.policy.compiled import CompiledIssuer
from secure_cache.policy.conditions import FACTS, claim_checks
from secure_cache.policy.decision import Issuer
from secure_cache.policy.duration import seconds
from secure_cache.policy.preset import Preset, PresetOptions
from secure_cache.policy.schema import AnyOf, IssuerDocument, PolicyDocument

_T = TypeVar("_T")
KEPT = "kept:"
"""Marks a pair of `PresetOptions.claim_names` that only asks to keep a claim in the identity."""


def given(value: _T | UnsetType, default: _T) -> _T:
    return default if isinstance(value, UnsetType) else value


def iss_of(issuer: IssuerDocument, preset: Preset, audience: str) -> str | None:
    """The exact `iss`, or None when it has to be written."""
    if preset.self_issued:
        return audience
    return issuer.iss if issuer.iss is not UNSET else preset.default_iss


def keys_of(issuer: IssuerDocument, preset: Preset, iss: str) -> tuple[str | None, str | None]:
    """`jwks_url` and `jwks_file`: one of them, or neither when one has to be written.

    The preset's own URL goes with the preset's own `iss` alone: the keys of github.com prove
    nothing about somebody's Enterprise Server.
    """
    if issuer.jwks_file is not UNSET:
        return None, issuer.jwks_file
    if issuer.jwks_url is not UNSET:
        return issuer.jwks_url, None
    if iss == preset.default_iss and preset.default_jwks_url is not None:
        return preset.default_jwks_url, None
    if preset.jwks_path is not None and iss.startswith(("https://", "http://")):
        return iss.rstrip("/") + preset.jwks_path, None
    return None, None


def compared_claims(document: PolicyDocument, issuer_name: str) -> frozenset[str]:
    """Every claim that decides something about this issuer's tokens."""
    found: set[str] = set(given(document.issuers[issuer_name].pin, {}))
    for project in document.projects.values():
        if issuer_name not in project.issuers:
            continue
        for claims in match_alternatives(project.match):
            found |= claims.keys()
        for rule in document.rulesets.get(project.ruleset, ()):
            found |= given(rule.claims, {}).keys()
    for deny in document.deny:
        if issuer_name in given(deny.issuers, (issuer_name,)):
            found |= given(deny.claims, {}).keys()
    return frozenset(found)


def match_alternatives(
    match: Mapping[str, AnyOf] | tuple[Mapping[str, AnyOf], ...] | UnsetType,
) -> tuple[Mapping[str, AnyOf], ...]:
    """`match:` is one mapping, or a list of them any of which will do. Empty when not there."""
    if isinstance(match, UnsetType):
        return ()
    return match if isinstance(match, tuple) else (match,)


def compile_issuer(
    document: PolicyDocument, name: str, presets: Mapping[str, Preset]
) -> CompiledIssuer:
    """An issuer that lint has found clean."""
    issuer = document.issuers[name]
    preset = presets[issuer.preset]
    iss = iss_of(issuer, preset, document.audience) or ""
    url, file = (None, None) if preset.self_issued else keys_of(issuer, preset, iss)
    acknowledged = preset.trust_ack is None or preset.trust_ack in issuer.ack
    return CompiledIssuer(
        issuer=Issuer(
            name=name,
            preset=preset,
            iss=iss,
            algorithms=given(issuer.algorithms, preset.algorithms),
            jwks_url=url,
            jwks_file=file,
            allow_private=issuer.allow_private,
            max_lifetime_seconds=_seconds(issuer.max_lifetime, preset.max_lifetime_seconds),
            max_age_seconds=_seconds(issuer.max_age, preset.max_age_seconds),
            options=_options(document, name, preset, verified=acknowledged),
        ),
        pins=claim_checks(given(issuer.pin, {})),
        trustable=acknowledged,
    )


def _options(
    document: PolicyDocument, name: str, preset: Preset, *, verified: bool
) -> PresetOptions:
    issuer = document.issuers[name]
    named = sorted(given(issuer.claims, {}).items())
    extra = compared_claims(document, name)
    if preset.mappable:
        # Kept before anybody knows that a revocation will ask for them.
        extra |= set(FACTS)
    extra -= preset.known_claims | preset.private_claims | {claim for _, claim in named}
    kept = [(KEPT + claim, claim) for claim in sorted(extra)]
    return PresetOptions(
        trusted_events=frozenset(given(issuer.trusted_events, ())),
        claim_names=(*named, *kept),
        verified=verified and preset.trust_ack is not None,
    )


def _seconds(text: str | UnsetType, default: int) -> int:
    return default if isinstance(text, UnsetType) else seconds(text)
