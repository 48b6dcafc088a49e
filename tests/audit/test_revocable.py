"""What an auditor found by a filter is taken back by a revocation that says the same."""

from dataclasses import replace

from fakes.audit import leaf_of, numbered, writer
from fakes.policies import NOW, PRESETS
from hypothesis import given
from hypothesis import strategies as st

from secure_cache.audit.filters import NAMES, Filter
from secure_cache.audit.reading import read_leaf_strictly
from secure_cache.model.names import Namespace
from secure_cache.policy.compile import compile_policy
from secure_cache.policy.compiled import Revocation
from secure_cache.policy.convert import convert
from secure_cache.policy.loader import load_yaml
from secure_cache.policy.revoke import ENTRY_ONLY
from secure_cache.policy.schema import PolicyDocument, RevocationMatch

POLICY = b"""\
version: 1
audience: https://cache.acme.example
issuers:
  gha: { preset: github, pin: { repository_owner_id: "65" } }
  lab: { preset: gitlab, pin: { namespace_id: "72" } }
  ci: { preset: generic, iss: https://ci.example, jwks_url: https://ci.example/keys,
        ack: [i-verified-this-issuer],
        claims: { branch: b, run_id: build, commit: revision } }
rulesets:
  r: [{ name: main, when: { branch: main }, tier: trusted, write: self, read: [self] }]
projects:
  demo: { issuers: [gha, lab, ci], ruleset: r }
"""
ISSUERS = {
    "gha": "https://token.actions.githubusercontent.com",
    "lab": "https://gitlab.com",
    "ci": "https://ci.example",
    "gone": "https://gone.example",
}
COMPILED = compile_policy(
    convert(load_yaml(POLICY, name="p"), PolicyDocument, name="p"), POLICY, presets=PRESETS
)
KEYS = [field for field in RevocationMatch.__struct_fields__ if field in NAMES]
CLAIMS = [
    "actor_id", "user_id", "sha", "commit", "revision", "repository_id", "project_id",
    "run_id", "pipeline_id", "build",
]  # fmt: skip
VALUES = st.sampled_from(["7", 7, 7.5, True, "8", "x y", 0])
NEEDED = {
    "gha": {
        "repository_owner_id": "65",
        "repository_id": "74",
        "event_name": "push",
        "ref": "refs/heads/main",
        "ref_type": "branch",
    },
    "lab": {
        "namespace_id": "72",
        "project_id": "20",
        "pipeline_source": "push",
        "ref": "main",
        "ref_type": "branch",
        "ref_path": "refs/heads/main",
        "ref_protected": "true",
    },
    "ci": {"b": "main"},
    "gone": {},
}


@st.composite
def entries(draw):
    name = draw(st.sampled_from(sorted(ISSUERS)))
    claims = draw(st.dictionaries(st.sampled_from(CLAIMS), VALUES))
    who = writer(
        issuer=name,
        iss=ISSUERS[name],
        subject=draw(st.sampled_from(["repo:a:main", "repo:b:main"])),
        family=draw(st.sampled_from([None, "family-1"])),
        **{**claims, **NEEDED[name]},
    )
    namespace = draw(st.sampled_from(["demo:branch/main", "demo:pr/7"]))
    return numbered(draw(st.integers(0, 3)), writer=who, namespace=Namespace.parse(namespace))


def revoking(**match):
    revocation = Revocation(
        "r", tuple((key, frozenset({value})) for key, value in match.items()), None, None
    )
    return replace(COMPILED, tables=replace(COMPILED.tables, revocations=(revocation,)))


def test_each_key_of_a_revocation_is_a_filter_of_the_same_name():
    assert set(RevocationMatch.__struct_fields__) == set(KEYS)


@given(entries(), st.sampled_from(KEYS))
def test_what_was_found_by_a_filter_is_revoked_by_the_same_words(entry, key):
    row = read_leaf_strictly(0, leaf_of(entry))
    value = getattr(row, key)
    if value is None:
        return
    assert Filter.parse({key: [value]}).matches(row)
    hidden = revoking(**{key: value}).hides(entry, now=NOW)
    assert hidden is not None
    assert hidden.line == "revocation r"


@given(entries(), st.sets(st.sampled_from(KEYS), min_size=1, max_size=3), st.data())
def test_a_token_that_is_refused_has_its_entries_hidden(entry, keys, data):
    """As its writer stored it: with the token's own project, rule and namespace."""
    row = read_leaf_strictly(0, leaf_of(entry))
    values = {
        key: data.draw(st.sampled_from([getattr(row, key) or "none", "7", "8"])) for key in keys
    }
    policy = revoking(**values)
    decision = policy.decide(entry.writer)
    assert decision.allowed is (entry.writer.issuer != "gone")
    if decision.write is None:
        return
    written = replace(entry, namespace=decision.write, rule=decision.rule)
    refused = policy.refuses_token(entry.writer, now=NOW)
    hidden = policy.hides(written, now=NOW)
    if refused is not None:
        assert hidden == refused
    elif not keys & ENTRY_ONLY:
        assert hidden is None or hidden.line != "revocation r"
