"""The matching semantics, step by step."""

import pytest
from fakes.policies import GITHUB, github, load, mutated, open_identity, text
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_cache.model.identity import ContextKind, Identity
from secure_cache.model.tiers import Tier
from secure_cache.policy.cases import identity_of
from secure_cache.policy.decision import Policy

NONE = "revocations: []"


@pytest.fixture(scope="module")
def mono():
    return load()


def test_a_compiled_policy_is_what_the_floors_above_expect(mono):
    policy: Policy = mono
    assert policy.audience == "https://cache.acme.example"
    assert [issuer.name for issuer in policy.issuers] == ["gha", "laptops"]
    assert policy.issuer(GITHUB["iss"]).jwks_url.startswith(GITHUB["iss"])
    assert policy.issuer("https://cache.acme.example").preset.self_issued
    assert policy.issuer("https://token.actions.githubusercontent.com/") is None
    assert not policy.public_log
    assert load(mutated((NONE, "log: { public: true }"))).public_log
    assert len(policy.sha256) == 64


def test_a_compiled_policy_cannot_be_changed(mono):
    with pytest.raises(AttributeError):
        mono.sha256 = "0"
    with pytest.raises(TypeError):
        mono.tables.issuers["x"] = None


@pytest.mark.parametrize(
    "iss",
    [
        "",
        "https://token.actions.githubusercontent.com/",
        "https://TOKEN.actions.githubusercontent.com",
        "https://token.actions.githubusercontent.com/acme",
        "https://token.actions.githubusercontent.com\n",
    ],
)
def test_an_issuer_is_known_by_its_exact_iss(mono, iss):
    identity = Identity("gha", iss, "", github(mono).claims, "0" * 64)
    assert not mono.decide(identity).allowed


def test_the_name_of_an_issuer_proves_nothing(mono):
    claims = github(mono).claims
    named = Identity("laptops", GITHUB["iss"], "", claims, "0" * 64)
    assert mono.decide(named) == mono.decide(github(mono))


@pytest.mark.parametrize("value", [None, 65, "65 ", "066", ["65"], True, ""])
def test_a_pin_is_an_exact_string(mono, value):
    claims = {**GITHUB, "repository_owner_id": value}
    frozen = {name: tuple(v) if isinstance(v, list) else v for name, v in claims.items()}
    assert not mono.decide(identity_of(mono, frozen)).allowed


def test_a_token_that_two_projects_match_is_denied():
    policy = load(
        mutated(('match: { repository_id: "74" }', 'match: { repository_id: ["74", "101"] }'))
    )
    assert "more than one project" in policy.decide(github(policy, repository_id="101")).reason
    assert policy.decide(github(policy)).allowed


def test_a_project_may_have_several_matches():
    policy = load(
        mutated(
            (
                'match: { repository_id: "74" }',
                'match: [{ repository_id: "74" }, { repository_id: "75", environment: ci }]',
            )
        )
    )
    assert policy.decide(github(policy)).project == "mono"
    assert not policy.decide(github(policy, repository_id="75")).allowed
    assert policy.decide(github(policy, repository_id="75", environment="ci")).project == "mono"


def test_a_self_issued_token_reaches_only_projects_that_list_its_issuer(mono):
    for project, allowed in (("mono", True), ("docs", False), ("web", False), ("none", False)):
        token = identity_of(mono, {"iss": "self", "prj": project, "role": "developer"})
        assert mono.decide(token).allowed is allowed


def test_a_github_token_cannot_name_its_project(mono):
    liar = Identity(
        "gha",
        GITHUB["iss"],
        "",
        (*github(mono, repository_id="9").claims, ("prj", "mono")),
        "0" * 64,
    )
    assert not mono.decide(liar).allowed


def test_a_deny_rule_goes_before_every_rule():
    policy = load(
        mutated(
            (NONE, 'deny:\n  - { name: mallory, projects: [mono], claims: { actor_id: "12" } }\n')
        )
    )
    denied = policy.decide(github(policy, actor_id="12"))
    assert (denied.allowed, denied.write, denied.read) == (False, None, ())
    assert "mallory" in denied.reason
    assert policy.decide(github(policy, actor_id="13")).allowed
    assert policy.decide(github(policy, actor_id="12", repository_id="101")).allowed
    # A provider that begins to send numbers does not lift a denial.
    assert not policy.decide(github(policy, actor_id=12)).allowed


def test_a_deny_rule_may_speak_of_a_kind_of_job_or_of_an_issuer():
    policy = load(
        mutated(
            (
                NONE,
                (
                    "deny:\n  - { name: bots, when: { branch: bot/** } }\n"
                    "  - { name: no-laptops, issuers: [laptops] }\n"
                ),
            )
        )
    )
    assert not policy.decide(github(policy, ref="refs/heads/bot/x/y")).allowed
    assert policy.decide(github(policy, ref="refs/heads/bots")).allowed
    laptop = identity_of(policy, {"iss": "self", "prj": "mono", "role": "developer"})
    assert not policy.decide(laptop).allowed


CLAIMED = "claims: { workflow_ref: acme/ci.yml, environment: [a, b] }\n      "


@pytest.mark.parametrize(
    ("claims", "rule"),
    [
        ({"workflow_ref": "acme/ci.yml", "environment": "b"}, "main"),
        ({"workflow_ref": "acme/ci.yml"}, "feature-branch"),
        ({"workflow_ref": "acme/ci.yml\n", "environment": "a"}, "feature-branch"),
        ({"workflow_ref": ("acme/ci.yml",), "environment": "a"}, "feature-branch"),
        ({"environment": "a"}, "feature-branch"),
    ],
)
def test_claims_of_a_rule_are_exact_and_all_needed(claims, rule):
    policy = load(mutated(("when: { branch: main } ", CLAIMED + "when: { branch: main } ")))
    decision = policy.decide(github(policy, **claims))
    assert decision.rule == rule


def test_a_run_on_main_that_misses_the_trusted_rule_cannot_write_main():
    """It falls through to the rule for other branches, whose jobs write as contributors."""
    policy = load(mutated(("when: { branch: main } ", CLAIMED + "when: { branch: main } ")))
    decision = policy.decide(github(policy))
    assert (decision.rule, decision.tier, decision.write) == (
        "feature-branch",
        Tier.CONTRIBUTOR,
        None,
    )
    assert [str(read) for read in decision.read] == ["mono:branch/main"]
    assert "trusted" in decision.reason


def test_an_issuer_without_its_acknowledgement_is_never_trusted():
    source = text("generic.yaml")
    claims = {"iss": "https://ci.example.com", "repository": "acme/app", "git_branch": "main"}
    policy = load(source)
    assert policy.decide(identity_of(policy, claims)).tier is Tier.TRUSTED
    without = source.replace("    ack: [i-verified-this-issuer]\n", "")
    for policy in (
        load(without),
        load(
            without.replace(
                "      base: change_base\n", "      event: event\n    trusted_events: [push]\n"
            )
        ),
    ):
        decision = policy.decide(identity_of(policy, claims | {"event": "push"}))
        assert (decision.tier, decision.write) == (Tier.CONTRIBUTOR, None)
        assert not decision.context.trustable


def test_imports_come_last_and_never_reach_a_trusted_job_or_one_that_reads_nothing():
    source = mutated(("read: [branch/main, self]\n", "read: []\n"))
    policy = load(source)
    queue = github(
        policy,
        repository_id="101",
        event_name="merge_group",
        ref="refs/heads/gh-readonly-queue/main/pr-1-abc",
    )
    assert policy.decide(queue).read == ()
    assert [str(r) for r in policy.decide(github(policy, repository_id="101")).read] == [
        "web:branch/main"
    ]
    branch = policy.decide(github(policy, repository_id="101", ref="refs/heads/x"))
    assert [str(r) for r in branch.read] == ["web:branch/main", "web:branch/x", "mono:branch/main"]


def test_a_name_that_no_namespace_can_have_is_denied():
    source = (
        text("self-issued.yaml")
        .replace("preset: self  ", "preset: open  ")
        .replace("    issuers: [self]", "    issuers: [self]\n    match: { repo: a }")
    )
    policy = load(source)
    for name in ("main\n", "a" * 600, "\ud800", "a\x00b", "\u202emain"):
        claims = {"kind": "branch", "name": name, "space": "branch", "id": name, "repo": "a"}
        assert not policy.decide(open_identity(**claims)).allowed
    claims = {"kind": "branch", "name": "x", "space": "Bad Kind", "id": "x", "repo": "a"}
    assert not policy.decide(open_identity(**claims)).allowed


def test_a_preset_cannot_make_a_trusted_job_write_or_read_a_lower_namespace():
    source = (
        text("self-issued.yaml")
        .replace("preset: self  ", "preset: open  ")
        .replace("    issuers: [self]", "    issuers: [self]\n    match: { repo: a }")
    )
    policy = load(source)
    odd = open_identity(kind="branch", name="main", space="job", id="1", trustable=True, repo="a")
    decision = policy.decide(odd)
    assert (decision.rule, decision.write, decision.read) == ("main", None, ())
    liar = open_identity(kind="pull_request", name="7", space="branch", id="main", repo="a")
    assert policy.decide(liar).write is None


def test_anonymous_requests_get_nothing_unless_the_policy_says_so(mono):
    assert not mono.decide_anonymous().allowed
    source = mutated(
        (NONE, "anonymous: { project: mono, read: [branch/main], ack: [public-read] }")
    )
    decision = load(source).decide_anonymous()
    assert (decision.rule, decision.write, decision.audit) == ("anonymous", None, False)
    assert [str(read) for read in decision.read] == ["mono:branch/main"]


def test_a_role_reads_and_never_writes():
    policy = load(text("self-issued.yaml"))
    auditor = policy.decide(identity_of(policy, {"iss": "self", "prj": "demo", "role": "auditor"}))
    assert (auditor.audit, auditor.write, auditor.read) == (True, None, ())
    developer = policy.decide(
        identity_of(policy, {"iss": "self", "prj": "demo", "role": "developer"})
    )
    assert (developer.audit, developer.write) == (False, None)


values = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([*GITHUB.values(), "refs/heads/x", "refs/pull/1/merge", "any", "", "\ud800"])
    | st.text(max_size=20)
)
claims = st.dictionaries(
    st.sampled_from(
        [*GITHUB, "base_ref", "head_ref", "prj", "branch", "pull_request", "role", "base"]
    ),
    values | st.lists(values, max_size=3).map(tuple),
)
WHOLE = load(
    mutated(
        (
            NONE,
            (
                'deny: [{ name: d, claims: { actor_id: "1" } }]\n'
                'epochs: { "mono:branch/main": 1 }\n'
                "revocations:\n  - { id: r, match: { rule: release, run_id: [a] }, reason: x }\n"
            ),
        )
    )
)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([GITHUB["iss"], "https://cache.acme.example", "", "x"]), claims, st.booleans()
)
def test_a_decision_is_total_and_deterministic(iss, drawn, over):
    merged = {**GITHUB, **drawn} if over else drawn
    merged.pop("iss", None)
    identity = Identity("gha", iss, "", tuple(merged.items()), "0" * 64)
    first = WHOLE.decide(identity)
    assert first == WHOLE.decide(identity)
    assert WHOLE.refuses_token(identity, now=0) is None or first.rule == "release"
    if not first.allowed:
        assert (first.write, first.read, first.audit, first.rule) == (None, (), False, None)
    else:
        assert first.context.kind in set(ContextKind)
        assert first.write is None or first.write.project == first.project
        assert len(set(first.read)) == len(first.read)


def test_a_trusted_base_whose_name_is_too_long_is_left_out():
    source = text("self-issued.yaml").replace("preset: self  ", "preset: open  ")
    source = source.replace("    issuers: [self]", "    issuers: [self]\n    match: { repo: a }")
    ack = '      ack: [branch-creation-is-restricted]\n      when: { branch: "*" }'
    policy = load(source.replace("      when: { branch: main }", ack))
    for base, found in (
        ("dev", ["demo:branch/main", "demo:branch/dev"]),
        ("a" * 600, ["demo:branch/main"]),
    ):
        pull = open_identity(kind="pull_request", name="7", base=base, repo="a")
        assert [str(read) for read in policy.decide(pull).read] == found


def test_the_projects_are_listed(mono):
    assert mono.projects == ("mono", "web", "docs")
