"""What a policy takes back."""

import pytest
from fakes.policies import NOW, entry, github, load, mutated, text

from secure_cache.model.clock import rfc3339
from secure_cache.model.identity import Identity
from secure_cache.model.names import Namespace
from secure_cache.model.tiers import Tier
from secure_cache.policy.cases import identity_of

NONE = "revocations: []"


def revoking(match, rest=""):
    line = f"revocations:\n  - {{ id: incident-7, match: {match}, reason: stolen{rest} }}\n"
    return load(mutated((NONE, line)))


def token(policy, *, issued_at=int(NOW), family=None, **claims):
    found = github(policy, **claims)
    return Identity(
        found.issuer,
        found.iss,
        found.subject,
        found.claims,
        "ab" * 32,
        family,
        issued_at,
        issued_at + 300,
    )


def test_an_entry_of_a_writer_in_good_standing_is_shown():
    policy = load()
    assert policy.hides(entry(token(policy), "mono:branch/main"), now=NOW) is None


RUN = {
    "sub": "repo:acme/mono:ref:refs/heads/main",
    "run_id": "5",
    "actor_id": "12",
    "sha": "f" * 40,
}
COVERING = [
    "{ issuer: gha }",
    "{ issuer: https://token.actions.githubusercontent.com }",
    "{ project: mono }",
    "{ rule: main }",
    '{ run_id: "5" }',
    '{ run_id: ["4", "5"] }',
    '{ actor_id: "12" }',
    f'{{ commit: "{"f" * 40}" }}',
    '{ namespace: "mono:branch/main" }',
    f'{{ jti_sha256: "{"ab" * 32}" }}',
    "{ tid: family-1 }",
    '{ repository_id: "74" }',
    '{ issuer: gha, subject: "repo:acme/mono:ref:refs/heads/main" }',
    '{ project: mono, run_id: "5", rule: [release, main] }',
]


@pytest.mark.parametrize("match", COVERING)
def test_a_revocation_refuses_tokens_and_hides_entries(match):
    if "issuer: https" in match:
        source = mutated(
            ("    preset: github   ", f"    iss: {match[10:-2]}\n    preset: github   ")
        )
        line = f"revocations:\n  - {{ id: incident-7, match: {match}, reason: stolen }}\n"
        policy = load(source.replace(NONE, line))
    else:
        policy = revoking(match)
    bearer = token(policy, family="family-1", **RUN)
    refused = policy.refuses_token(bearer, now=NOW)
    hidden = policy.hides(entry(bearer, "mono:branch/main"), now=NOW)
    assert refused == hidden
    assert hidden.line == "revocation incident-7"


@pytest.mark.parametrize(
    "match",
    [
        "{ issuer: laptops }",
        "{ project: web }",
        "{ rule: release }",
        '{ repository_id: "75" }',
        '{ issuer: gha, subject: "repo:acme/mono:ref:refs/heads/Main" }',
        '{ run_id: "55" }',
        '{ run_id: "5", actor_id: "13" }',
        '{ namespace: "mono:branch/Main" }',
        '{ namespace: "web:branch/main" }',
        f'{{ jti_sha256: "{"ac" * 32}" }}',
        "{ tid: family-2 }",
    ],
)
def test_a_revocation_covers_only_what_all_of_its_keys_say(match):
    policy = revoking(match)
    bearer = token(policy, family="family-1", **RUN)
    assert policy.refuses_token(bearer, now=NOW) is None
    assert policy.hides(entry(bearer, "mono:branch/main"), now=NOW) is None


@pytest.mark.parametrize("match", ['{ key: "123" }', f'{{ policy_sha256: "{"cd" * 32}" }}'])
def test_a_revocation_of_entries_alone_refuses_no_token(match):
    policy = revoking(match)
    assert policy.refuses_token(token(policy), now=NOW) is None
    assert policy.hides(entry(token(policy), "mono:branch/main"), now=NOW) is not None
    other = entry(token(policy), "mono:branch/main", key="124", policy_sha256="ce" * 32)
    assert policy.hides(other, now=NOW) is None


@pytest.mark.parametrize("claim", [5, (5,), ("4", "5"), 5.0])
def test_a_revocation_reads_numbers_and_lists_as_the_admin_writes_them(claim):
    policy = revoking('{ run_id: "5" }')
    assert policy.refuses_token(token(policy, run_id=claim), now=NOW) is not None


def test_facts_have_the_providers_own_names():
    policy = load(
        "version: 1\naudience: https://c.example\n"
        'issuers: { gl: { preset: gitlab, pin: { namespace_id: "72" } } }\n'
        "rulesets: { s: [{ name: main, when: { branch: main }, tier: trusted, write: self,"
        " read: [] }] }\n"
        'projects: { p: { issuers: [gl], match: { project_id: "20" }, ruleset: s } }\n'
        'revocations: [{ id: r, match: { run_id: "99", actor_id: "1" }, reason: x }]\n'
    )
    claims = {
        "iss": "https://gitlab.com",
        "namespace_id": "72",
        "project_id": "20",
        "pipeline_source": "push",
        "ref": "main",
        "ref_type": "branch",
        "ref_path": "refs/heads/main",
        "ref_protected": "true",
        "user_id": "1",
    }
    assert policy.decide(identity_of(policy, claims)).allowed
    assert policy.refuses_token(identity_of(policy, claims), now=NOW) is None
    assert policy.refuses_token(identity_of(policy, {**claims, "pipeline_id": "99"}), now=NOW)


@pytest.mark.parametrize(
    ("stored", "covered"), [(-1, False), (0, True), (50, True), (100, True), (101, False)]
)
def test_since_and_until_are_both_inside(stored, covered):
    start = int(NOW) - 1000
    times = f", since: {rfc3339(start)}, until: {rfc3339(start + 100)}"
    policy = revoking("{ project: mono }", times)
    bearer = token(policy, issued_at=start + stored)
    assert (policy.refuses_token(bearer, now=NOW) is not None) is covered
    written = entry(bearer, "mono:branch/main", stored_at=start + stored)
    assert (policy.hides(written, now=NOW) is not None) is covered


def test_a_token_without_a_time_of_issue_is_of_now():
    policy = revoking("{ project: mono }", f", since: {rfc3339(NOW - 10)}")
    assert policy.refuses_token(token(policy, issued_at=0), now=NOW) is not None


def test_an_entry_from_the_future_is_of_now():
    policy = revoking("{ project: mono }", f", until: {rfc3339(NOW)}")
    written = entry(token(policy), "mono:branch/main", stored_at=int(NOW) + 10**6)
    assert policy.hides(written, now=NOW) is not None


def test_a_new_epoch_hides_what_was_written_before():
    policy = load(mutated((NONE, 'epochs: { "mono:branch/main": 3 }')))
    main = Namespace.parse("mono:branch/main")
    assert policy.epoch(main) == 3
    assert policy.epoch(Namespace.parse("mono:branch/Main")) == 0
    writer = token(policy)
    for epoch, shown in ((0, False), (2, False), (3, True), (4, True)):
        hidden = policy.hides(entry(writer, "mono:branch/main", epoch=epoch), now=NOW)
        assert (hidden is None) is shown
    hidden = policy.hides(entry(writer, "mono:branch/main"), now=NOW)
    assert hidden.line == "epoch of mono:branch/main"


def test_a_revocation_is_named_before_an_epoch():
    both = mutated(
        (
            NONE,
            (
                'epochs: { "mono:branch/main": 3 }\nrevocations:\n'
                "  - { id: r, match: { project: mono }, reason: x }\n"
            ),
        )
    )
    policy = load(both)
    assert policy.hides(entry(token(policy), "mono:branch/main"), now=NOW).line == "revocation r"


@pytest.mark.parametrize(
    ("namespace", "claims"),
    [
        ("mono:branch/other", {}),
        ("web:branch/main", {}),
        ("mono:pr/main", {}),
        ("mono:branch/main", {"ref": "refs/heads/x"}),
        ("mono:branch/main", {"repository_id": "101"}),
        (
            "mono:branch/main",
            {"event_name": "pull_request", "ref": "refs/pull/7/merge", "base_ref": "main"},
        ),
    ],
)
def test_an_entry_in_a_namespace_that_its_writer_may_not_write_is_hidden(namespace, claims):
    policy = load()
    hidden = policy.hides(entry(token(policy, **claims), namespace), now=NOW)
    assert hidden.line.startswith("rule ")


def test_an_entry_of_a_writer_that_is_denied_today_is_hidden():
    policy = load()
    hidden = policy.hides(
        entry(token(policy, repository_owner_id="66"), "mono:branch/main"), now=NOW
    )
    assert hidden.line == "default deny"


def test_an_entry_of_an_issuer_that_is_gone_is_hidden():
    writer = token(load())
    policy = load(
        mutated(("    preset: github   ", "    iss: https://ghe.example\n    preset: github   "))
    )
    assert policy.hides(entry(writer, "mono:branch/main"), now=NOW).line == "default deny"


MAIN = (
    "      when: { branch: main }                # preset => event in [push, schedule] only\n"
    "      tier: trusted"
)
LOWER = MAIN.replace("trusted", "contributor")


def test_what_contributors_wrote_stays_hidden_when_their_namespace_becomes_trusted():
    assert MAIN in mutated()
    policy = load()
    written = entry(token(policy), "mono:branch/main", tier=Tier.CONTRIBUTOR)
    hidden = policy.hides(written, now=NOW)
    assert hidden.why == "written as contributor, and the namespace is trusted today"


def test_what_was_trusted_is_hidden_when_its_namespace_loses_trust_and_shown_when_it_is_back():
    lower = load(mutated((MAIN, LOWER), ("tier: candidate", "tier: contributor")))
    high = load()
    trusted = entry(token(high), "mono:branch/main", tier=Tier.TRUSTED)
    meanwhile = entry(token(lower), "mono:branch/main", tier=Tier.CONTRIBUTOR)
    assert high.hides(trusted, now=NOW) is None
    assert lower.hides(trusted, now=NOW) is not None
    assert lower.hides(meanwhile, now=NOW) is None
    assert high.hides(meanwhile, now=NOW) is not None


def test_a_renamed_issuer_or_rule_hides_nothing_and_escapes_no_revocation():
    writer = token(load(), run_id="5")
    renamed = mutated(
        ("  gha:  ", "  actions:  "),
        (NONE, "revocations:\n  - { id: r, match: { issuer: actions }, reason: x }\n"),
    )
    renamed = renamed.replace("[gha, laptops]", "[actions, laptops]").replace("[gha]", "[actions]")
    policy = load(renamed)
    written = entry(writer, "mono:branch/main", rule="an-older-name")
    assert policy.hides(written, now=NOW).line == "revocation r"
    assert (
        load(renamed.replace("issuer: actions }", 'run_id: "6" }')).hides(written, now=NOW) is None
    )


def test_a_generic_issuer_keeps_what_a_later_revocation_will_ask_for():
    source = text("generic.yaml").replace(
        "      base: change_base\n", "      base: change_base\n      run_id: build\n"
    )
    source = source.replace(NONE, 'revocations: [{ id: r, match: { run_id: "5" }, reason: x }]')
    policy = load(source)
    claims = {
        "iss": "https://ci.example.com",
        "repository": "acme/app",
        "git_branch": "main",
        "commit": "abc",
    }
    for build, refused in (("5", True), ("6", False)):
        bearer = identity_of(policy, claims | {"build": build})
        assert bearer.claim_map["commit"] == "abc"
        assert (policy.refuses_token(bearer, now=NOW) is not None) is refused
