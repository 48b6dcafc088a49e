"""Policy tests, explain, diff and the shadow policy."""

import pytest
from fakes.policies import NOW, cases_of, github, load, mutated, text

from secure_cache.model.errors import InvalidPolicy
from secure_cache.policy.cases import describe, identity_of, load_cases, run_cases
from secure_cache.policy.diff import Direction, diff
from secure_cache.policy.explain import compare, explain

NONE = "revocations: []"


def one(claims, expect="deny", *, how="claims"):
    data = (
        "version: 1\nbase: { iss: self, prj: demo }\ncases:\n"
        f"  - {{ name: a, {how}: {claims}, expect: {expect} }}\n"
    )
    (result,) = run_cases(load(text("self-issued.yaml")), load_cases(data.encode(), name="t.yaml"))
    return result


ON_MAIN = "{ branch: main }"
WRITES = "rule: main, write: branch/main"


@pytest.mark.parametrize(
    ("claims", "expect", "passed"),
    [
        (ON_MAIN, f"{{ {WRITES}, read: [branch/main] }}", True),
        (ON_MAIN, '{ rule: main, write: "demo:branch/main", read: ["demo:branch/main"] }', True),
        (ON_MAIN, f"{{ {WRITES}, read: [], tier: trusted }}", False),
        (ON_MAIN, f"{{ {WRITES}, read: [branch/main, branch/main] }}", False),
        (ON_MAIN, "{ rule: main, write: null, read: [branch/main] }", False),
        (ON_MAIN, "{ rule: other, write: branch/main, read: [branch/main] }", False),
        (ON_MAIN, f"{{ {WRITES}, read: [branch/main], tier: candidate }}", False),
        (ON_MAIN, f"{{ {WRITES}, read: [branch/main], tier: trusted, audit: false }}", True),
        (ON_MAIN, "deny", False),
        ("{ role: auditor }", "{ rule: auditor, write: null, read: [], audit: false }", False),
        ("{ prj: null, branch: main }", "deny", True),
        ("{ iss: other, branch: main }", "deny", True),
    ],
)
def test_a_case_compares_the_whole_decision(claims, expect, passed):
    result = one(claims, expect)
    assert result.passed is passed
    assert str(result).isprintable()


def test_a_case_without_a_token_is_anonymous():
    assert one("true", how="anonymous").passed


def test_a_failed_case_says_where_it_stands_and_what_came_instead():
    result = one(ON_MAIN)
    assert str(result) == (
        "'a' (line 4): expected deny; got trusted, rule main, write demo:branch/main,"
        " read [demo:branch/main]"
    )


@pytest.mark.parametrize(
    "data",
    [
        "version: 1\n",
        "version: 1\ncases: []\n",
        "version: 1\ncases: [{ name: a, expect: allow }]\n",
        "version: 1\ncases: [{ name: a, expect: { rule: main } }]\n",
        "version: 1\ncases: [{ name: a, expect: { rule: main, write: branch/main } }]\n",
        "version: 1\ncases: [{ name: a, claims: { x: 0123 }, expect: deny }]\n",
        "version: 1\ncases: [{ name: a, claims: { x: { y: z } }, expect: deny }]\n",
        "version: 1\ncases: [{ name: a, claims: { x: [{ y: z }] }, expect: deny }]\n",
        "version: 1\ncases: [{ name: a, expect: deny, expect: deny }]\n",
        "version: 1\ncases: [{ name: a, expect: [deny] }]\n",
    ],
)
def test_a_test_file_is_read_as_strictly_as_a_policy(data):
    with pytest.raises(InvalidPolicy) as caught:
        load_cases(data.encode(), name="t.yaml")
    assert all(str(finding).startswith("t.yaml:") for finding in caught.value.findings)


def test_explain_names_the_first_failing_condition_of_every_rule():
    policy = load()
    identity = github(policy, event_name="pull_request", ref="refs/pull/7/merge", base_ref="main")
    found = explain(policy, identity)
    assert (found.issuer, found.project) == ("gha", "mono")
    assert [step.failed for step in found.rules] == [
        "the job is not branch: main",
        "the job is not branch: release/*",
        "the job is not merge_queue: main",
        None,
        "the job is not branch: **",
        "the job is not role: developer",
    ]
    assert [step.decided for step in found.rules].index(True) == 3
    assert "rule pull-request: matches, and decides" in str(found)
    assert "decision: contributor, rule pull-request, write mono:pr/7" in str(found)


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({"repository_owner_id": "66"}, "repository_owner_id"),
        ({"repository_id": "9"}, "no project"),
        ({"ref": "x"}, "neither a branch nor a tag"),
        ({"event_name": "issue_comment"}, "no rule matches"),
    ],
)
def test_explain_says_where_a_way_ends(claims, words):
    policy = load()
    found = explain(policy, github(policy, **claims))
    assert not found.decision.allowed
    assert words in str(found)


def test_explain_tells_of_a_claim_and_of_trust():
    source = mutated(
        ("when: { branch: main } ", "claims: { environment: a }\n      when: { branch: main } ")
    )
    policy = load(source)
    steps = {step.rule: step for step in explain(policy, github(policy)).rules}
    assert "claim environment" in steps["main"].failed
    laptop = identity_of(policy, {"iss": "self", "prj": "mono", "role": "developer"})
    assert explain(policy, laptop).rules[-1].decided
    unverified = load(text("generic.yaml").replace("    ack: [i-verified-this-issuer]\n", ""))
    claims = {"iss": "https://ci.example.com", "repository": "acme/app", "git_branch": "main"}
    found = explain(unverified, identity_of(unverified, claims))
    assert "does not prove" in found.rules[0].failed
    assert "not trustable" in str(found)


def test_explain_agrees_with_decide_on_every_case():
    policy = load()
    for case in load_cases(cases_of(), name="t"):
        identity = identity_of(policy, case.claims)
        found = explain(policy, identity)
        decided = [step.rule for step in found.rules if step.decided]
        assert decided == ([found.decision.rule] if found.decision.allowed else [])


def test_a_policy_does_not_differ_from_itself():
    found = diff(load(), load(), load_cases(cases_of(), name="t"))
    assert not found
    assert str(found) == "no difference"


MAIN = ("when: { branch: main } ", "claims: { environment: [a, b] }\n      when: { branch: main } ")
STRUCTURE = [
    (MAIN, Direction.TIGHTENED, "mono: rule main: claims"),
    (
        ('"release/*"', '"release/1"'),
        Direction.TIGHTENED,
        "mono: rule release: when branch: release/* -> branch: release/1",
    ),
    (
        ("read: [branch/main, base, self]", "read: [branch/main, self]"),
        Direction.TIGHTENED,
        "mono: rule pull-request: read",
    ),
    (
        ("read: [branch/main, base, self]", "read: [base, branch/main, self]"),
        Direction.CHANGED,
        "mono: rule pull-request: read",
    ),
    (
        ("      write: self                           # pr/104\n", ""),
        Direction.TIGHTENED,
        "mono: rule pull-request: write",
    ),
    (
        ("tier: candidate", "tier: contributor"),
        Direction.TIGHTENED,
        "mono: rule merge-queue: tier candidate -> contributor",
    ),
    (("name: developer", "name: dev"), Direction.LOOSENED, "mono: rule dev is new"),
    (("name: developer", "name: dev"), Direction.TIGHTENED, "mono: rule developer is gone"),
    (
        ('repository_owner_id: "65"', 'repository_owner_id: ["65", "66"]'),
        Direction.CHANGED,
        "issuers: gha: pin",
    ),
    (
        ("with: web, namespaces: [branch/main]", "with: web, namespaces: [branch/main, branch/x]"),
        Direction.CHANGED,
        "projects: mono: share",
    ),
    ((NONE, "deny: [{ name: d, issuers: [gha] }]"), Direction.TIGHTENED, "deny d"),
    (
        (NONE, "revocations: [{ id: r, match: { project: web }, reason: x }]"),
        Direction.TIGHTENED,
        "revocation r",
    ),
    (
        (NONE, 'epochs: { "mono:branch/main": 2 }'),
        Direction.TIGHTENED,
        "epoch of mono:branch/main: 0 -> 2",
    ),
    (
        (NONE, "anonymous: { project: mono, read: [branch/main], ack: [public-read] }"),
        Direction.LOOSENED,
        "what anonymous requests read",
    ),
    ((NONE, "log: { public: true }"), Direction.LOOSENED, "log: public"),
    (
        ("https://cache.acme.example ", "https://new.acme.example "),
        Direction.CHANGED,
        "audience https://cache.acme.example -> https://new.acme.example",
    ),
    (
        ("when: { role: developer } ", "audit: true\n      when: { role: developer } "),
        Direction.LOOSENED,
        "mono: rule developer: audit",
    ),
]
OPPOSITE = {
    Direction.LOOSENED: Direction.TIGHTENED,
    Direction.TIGHTENED: Direction.LOOSENED,
    Direction.CHANGED: Direction.CHANGED,
}


@pytest.mark.parametrize(("change", "direction", "what"), STRUCTURE)
def test_a_diff_says_whether_a_change_grants_more(change, direction, what):
    old, new = load(), load(mutated(change))
    assert f"{direction}: {what}" in str(diff(old, new)).splitlines()
    back = {grant.direction for grant in diff(new, old).grants}
    assert OPPOSITE[direction] in back


def test_a_diff_tells_of_required_tests_and_of_the_order_of_rules():
    required = load("require_tests: true\n" + text("minimal.yaml"), tests=cases_of("minimal.yaml"))
    plain = load(text("minimal.yaml"))
    assert "loosened: require_tests" in str(diff(required, plain))
    rules = text("minimal.yaml")
    start, middle, end = (
        rules.index(f"    - name: {n}") for n in ("main", "pull-request", "other-branch")
    )
    swapped = rules[:start] + rules[middle:end] + rules[start:middle] + rules[end:]
    assert "changed: app: the order of its rules" in str(diff(plain, load(swapped)))


def test_a_diff_lists_the_cases_that_are_decided_differently():
    new = load(mutated(('when: { branch: "**" }', 'when: { branch: "feat/**" }')))
    found = diff(load(), new, load_cases(cases_of(), name="t"))
    assert {change.case for change in found.decisions} == {"case", "release nested", "release-evil"}
    assert "'case': contributor, rule feature-branch" in str(found)


def test_a_shadow_policy_is_compared_and_never_enforced():
    live = load(mutated((NONE, "shadow_policy: next.yaml")))
    shadow = load(
        mutated(
            ('when: { branch: "**" }', 'when: { branch: "feat/**" }'),
            ("name: main\n", "name: trunk\n"),
        )
    )
    assert live.shadow_policy == "next.yaml"
    assert load().shadow_policy is None
    assert compare(live, shadow, github(live)) is None, "another name for a rule grants the same"
    line = compare(live, shadow, github(live, ref="refs/heads/x"))
    assert line.startswith("live: contributor, rule feature-branch")
    assert "shadow: deny" in line
    assert line.isprintable()


def test_a_decision_reads_as_one_line():
    policy = load(text("self-issued.yaml"))
    auditor = policy.decide(identity_of(policy, {"iss": "self", "prj": "demo", "role": "auditor"}))
    assert describe(auditor) == "contributor, rule auditor, write nothing, read [], audit"
    assert NOW


def test_a_diff_tells_of_new_and_lost_projects():
    docs = (
        '  docs:\n    issuers: [gha]\n    match: { repository_id: "102" }\n    ruleset: standard\n'
    )
    smaller = load(mutated((docs, "")))
    assert "loosened: projects: docs is new" in str(diff(smaller, load()))
    assert "tightened: projects: docs is gone" in str(diff(load(), smaller))
