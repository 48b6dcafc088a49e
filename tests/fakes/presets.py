"""A provider whose tokens say outright what they speak for, and may lie about everything else."""

from secure_cache.model.identity import Context, ContextKind
from secure_cache.policy.preset import Preset, Unclassifiable


def classify(claims, _options):
    kind = claims.get("kind")
    if kind not in set(ContextKind):
        return Unclassifiable("no kind")
    return Context(
        ContextKind(kind),
        str(claims.get("name", "")),
        str(claims.get("space", "")),
        str(claims.get("id", "")),
        base=claims.get("base"),
        trustable=claims.get("trustable") is True,
    )


OPEN = Preset(
    name="open",
    classify=classify,
    default_iss="https://open.example",
    default_jwks_url="https://open.example/keys",
    known_claims=frozenset(
        {"kind", "name", "space", "id", "base", "trustable", "repo", "flavour", "run_id", "user"}
    ),
    facts={"actor_id": "user"},
)
"""No pins, no events: whatever the policy lets through, it lets through by its own rules."""
