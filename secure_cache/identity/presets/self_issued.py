"""Tokens of this server itself: for CIs without OIDC, for people, and as sessions.

`token issue` writes exactly one of `branch`, `pull_request` with `base`, or `role`.
"""

from secure_cache.identity.claim_tables import ClaimTables, is_number, is_ref_name, text
from secure_cache.model.identity import Context, ContextKind
from secure_cache.policy.preset import Claims, Preset, PresetOptions, Unclassifiable

TABLES = ClaimTables(
    verified=frozenset({"prj"}),
    optional=frozenset({"base", "branch", "pull_request", "role"}),
)

MAX_LIFETIME_SECONDS = 90 * 86_400


def classify(claims: Claims, _options: PresetOptions) -> Context | Unclassifiable:
    if TABLES.first_missing(claims) is not None:
        return Unclassifiable("the claim prj is missing, empty or not a string")
    grants = [name for name in ("branch", "pull_request", "role") if name in claims]
    if len(grants) != 1:
        return Unclassifiable("not exactly one of branch, pull_request and role")
    return _context(grants[0], claims)


def _context(grant: str, claims: Claims) -> Context | Unclassifiable:
    if ("base" in claims) != (grant == "pull_request"):
        return Unclassifiable("base goes with pull_request, and only with it")
    value = text(claims, grant)
    if grant == "pull_request":
        base = text(claims, "base")
        if not is_number(value) or not is_ref_name(base):
            return Unclassifiable("pull_request is not a number, or base is not a branch")
        return Context(ContextKind.PULL_REQUEST, value, "pr", value, base=base)
    if not is_ref_name(value):
        return Unclassifiable(f"{grant} is not a usable name")
    if grant == "role":
        return Context(ContextKind.ROLE, value)
    return Context(ContextKind.BRANCH, value, "branch", value, trustable=True)


PRESET = Preset(
    name="self",
    classify=classify,
    algorithms=("EdDSA",),
    known_claims=TABLES.known,
    max_lifetime_seconds=MAX_LIFETIME_SECONDS,
    max_age_seconds=MAX_LIFETIME_SECONDS,
    self_issued=True,
)
