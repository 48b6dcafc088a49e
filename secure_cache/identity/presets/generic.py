"""Any other issuer: the admin says which claim holds what.

Also for a CI that signs per-branch tokens with its own key. Nothing is known of the issuer, so
nothing is trusted until the admin acknowledges `i-verified-this-issuer`; where the issuer has a
claim for the event, only the events that the admin lists are trusted then.
"""

import hashlib

from secure_cache.identity.claim_tables import (
    ClaimTables,
    is_number,
    is_ref_name,
    other_event,
    text,
)
from secure_cache.model.identity import ClaimValue, Context, ContextKind
from secure_cache.policy.preset import Claims, Preset, PresetOptions, Unclassifiable

TABLES = ClaimTables(verified=frozenset({"sub"}))

_KINDS = ("role", "pull_request", "tag", "branch")


def classify(claims: Claims, options: PresetOptions) -> Context | Unclassifiable:
    names = dict(options.claim_names)
    mapped = [kind for kind in _KINDS if kind in names]
    if not mapped:
        return _by_subject(claims)
    present = {kind: claims.get(names[kind]) for kind in mapped}
    # CIs write an empty string or null where there is no pull request or tag.
    present = {kind: value for kind, value in present.items() if value not in {None, ""}}
    if not present:
        return Unclassifiable("the token has none of the claims in the issuer's claim_names")
    if "role" in present and len(present) > 1:
        return Unclassifiable("the token has a role beside a branch, tag or pull request")
    return _context(next(kind for kind in _KINDS if kind in present), present, claims, options)


def _context(
    kind: str, present: dict[str, ClaimValue], claims: Claims, options: PresetOptions
) -> Context | Unclassifiable:
    # The least trusted reading wins: a pull request usually names its branch too.
    value = present[kind]
    if kind == "pull_request":
        return _pull_request(
            _number(value), text(claims, dict(options.claim_names).get("base", ""))
        )
    if not isinstance(value, str) or not is_ref_name(value) or value.startswith("refs/"):
        # `refs/heads/main` may be a full ref, or a branch that somebody called so.
        return Unclassifiable(f"the {kind} claim is not a bare {kind} name")
    if kind == "role":
        return Context(ContextKind.ROLE, value)
    if kind == "tag":
        return Context(ContextKind.TAG, value, "tag", value)
    return _branch(value, claims, options)


def _pull_request(number: str, base: str) -> Context | Unclassifiable:
    if not is_number(number):
        return Unclassifiable("the pull request claim is not a number")
    if base and (not is_ref_name(base) or base.startswith("refs/")):
        return Unclassifiable("the base claim is not a bare branch name")
    return Context(ContextKind.PULL_REQUEST, number, "pr", number, base=base or None)


def _branch(name: str, claims: Claims, options: PresetOptions) -> Context | Unclassifiable:
    mapped = dict(options.claim_names).get("event")
    trustable = options.verified and mapped is None
    if mapped is not None and options.trusted_events:
        event = text(claims, mapped)
        if event not in options.trusted_events:
            # Not the branch with less trust: it would write where the branch itself writes.
            return other_event(event) or Unclassifiable("the event claim is not an event's name")
        trustable = True
    return Context(ContextKind.BRANCH, name, "branch", name, trustable=trustable)


def _by_subject(claims: Claims) -> Context | Unclassifiable:
    subject = text(claims, "sub")
    if not subject:
        return Unclassifiable("the claim sub is missing, empty or not a string")
    digest = hashlib.sha256(subject.encode(errors="surrogatepass")).hexdigest()
    return Context(ContextKind.OTHER, "sub", "sub", digest)


def _number(value: ClaimValue) -> str:
    """CIs write a pull request's number as a number or as text; names are text only."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else ""


PRESET = Preset(
    name="generic",
    classify=classify,
    jwks_path="/.well-known/jwks.json",
    algorithms=("RS256", "ES256", "EdDSA"),
    known_claims=TABLES.known,
    max_lifetime_seconds=86_400,
    max_age_seconds=86_400,
    trust_ack="i-verified-this-issuer",
    mappable=frozenset({*_KINDS, "base", "event", "actor_id", "commit", "repository_id", "run_id"}),
)
