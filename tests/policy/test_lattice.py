"""No byte goes up: by brute force over jobs, without a look into `lattice`."""

from collections import defaultdict

import pytest
import yaml
from fakes.policies import PRESETS, entry, open_identity
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_cache.model.names import Namespace
from secure_cache.model.tiers import Tier
from secure_cache.policy.compile import compile_policy
from secure_cache.policy.convert import convert
from secure_cache.policy.lint import lint_lattice
from secure_cache.policy.loader import load_yaml
from secure_cache.policy.report import Report
from secure_cache.policy.schema import PolicyDocument

BRANCHES = ["main", "dev", "release/1", "release/1/x", "queue/main"]
PATTERNS = ["main", "dev", "release/*", "release/1", "*", "**", "release/**"]
READS = [
    "self",
    "base",
    "branch/main",
    "branch/dev",
    "branch/release/1",
    "queue/main/q1",
    "pr/7",
    "tag/v1",
]
TIERS = ["contributor", "candidate", "trusted"]
KINDS = {"branch": PATTERNS, "pull_request": ["any", "7"], "merge_queue": ["main", "dev", "**"],
         "tag": ["v1", "**"], "role": ["dev"], "context": ["other"]}  # fmt: skip


@st.composite
def rules(draw, name):
    kind = draw(st.sampled_from(["branch", "branch", "branch", *KINDS]))
    rule = {
        "name": name,
        "when": {kind: draw(st.sampled_from(KINDS[kind]))},
        "tier": draw(st.sampled_from(TIERS)),
        "read": draw(st.lists(st.sampled_from(READS), max_size=4)),
        "ack": ["branch-creation-is-restricted"],
    }
    if draw(st.booleans()) or kind == "branch":
        rule["write"] = "self"
    if draw(st.booleans()):
        rule["claims"] = {"flavour": draw(st.sampled_from(["a", "b"]))}
    return rule


@st.composite
def policies(draw):
    count = draw(st.integers(1, 5))
    both = [
        [draw(rules(f"{prefix}{index}")) for index in range(draw(st.integers(1, 3)))]
        for prefix in ("x", "y")
    ]
    ruleset = [draw(rules(f"r{index}")) for index in range(count)]
    return {
        "version": 1,
        "audience": "https://cache.example",
        "issuers": {"open": {"preset": "open"}},
        "rulesets": {"one": ruleset, "two": both[0] + both[1]},
        "projects": {
            "p": {
                "issuers": ["open"],
                "match": {"repo": "p"},
                "ruleset": "one",
                "import": [{"project": "q", "namespaces": draw(_shared)}],
            },
            "q": {
                "issuers": ["open"],
                "match": {"repo": "q"},
                "ruleset": "two",
                "share": [{"with": "p", "namespaces": [r for r in READS if "/" in r]}],
            },
        },
    }


_shared = st.lists(st.sampled_from([r for r in READS if "/" in r]), min_size=1, max_size=3)


def jobs():
    """Every job of a small world, honest and not: kinds and namespaces need not fit together."""
    own = {
        "branch": [("branch", branch) for branch in BRANCHES],
        "pull_request": [("pr", "7"), ("mr", "3/refs/heads/main"), ("branch", "main")],
        "merge_queue": [("queue", "main/q1"), ("queue", "dev/q1"), ("branch", "main")],
        "tag": [("tag", "v1"), ("branch", "main")],
        "role": [("", "")],
        "other": [("sub", "abc"), ("", ""), ("branch", "main")],
    }
    names = {"branch": BRANCHES, "pull_request": ["7", "8"], "merge_queue": ["main", "dev"],
             "tag": ["v1"], "role": ["dev"], "other": ["sub"]}  # fmt: skip
    for repo in ("p", "q"):
        for kind, spaces in own.items():
            for name in names[kind]:
                for space, space_id in spaces:
                    for trustable in (True, False):
                        for flavour in ("a", "b"):
                            yield open_identity(
                                kind=kind, name=name, space=space, id=space_id, base="main",
                                trustable=trustable, flavour=flavour, repo=repo,
                            )  # fmt: skip


JOBS = list(jobs())


def compiled(document):
    """Without lint, so that the worst that can be written is judged too."""
    data = yaml.safe_dump(document).encode()
    node = load_yaml(data, name="p.yaml")
    return compile_policy(convert(node, PolicyDocument, name="p.yaml"), data, presets=PRESETS)


def check_lattice(policy):
    writers = defaultdict(set)
    decisions = [policy.decide(job) for job in JOBS]
    for decision in decisions:
        if decision.write is not None:
            writers[decision.write].add(decision.tier)
    for namespace, tiers in writers.items():
        assert len(tiers) == 1, f"{namespace} has writers of {tiers}"
    for decision in decisions:
        for namespace in decision.read:
            for tier in writers[namespace]:
                assert tier >= decision.tier, f"{decision.rule} reads {namespace} of {tier}"


@settings(max_examples=60, deadline=None)
@given(policies())
def test_no_reader_gets_a_namespace_that_a_lower_tier_can_write(document):
    check_lattice(compiled(document))


@settings(max_examples=60, deadline=None)
@given(policies())
def test_lint_tells_of_exactly_the_named_reads_that_are_left_out(document):
    """E06 and the guard in `decide` are the same law."""
    policy = compiled(document)
    report = Report(load_yaml(b"{}", name="p"), "p")
    lint_lattice(policy.document, policy.tables, report)
    flagged = {finding.message.split()[1] for finding in report.findings}
    for job in JOBS:
        decision = policy.decide(job)
        if not decision.allowed:
            continue
        project = policy.tables.projects[decision.project]
        rule = next(rule for rule in project.rules if rule.name == decision.rule)
        named = {read for read in (*rule.reads, *rule.imports) if isinstance(read, Namespace)}
        assert (named <= set(decision.read)) is (rule.name not in flagged)


@settings(max_examples=40, deadline=None)
@given(policies(), rules("added"))
def test_a_rule_added_below_never_changes_what_matches_above(document, extra):
    before = compiled(document)
    longer = {**document, "rulesets": {**document["rulesets"]}}
    longer["rulesets"]["one"] = [*document["rulesets"]["one"], extra]
    after = compiled(longer)
    for job in JOBS:
        old, new = before.decide(job), after.decide(job)
        if not old.allowed:
            continue
        assert (new.rule, new.tier, new.audit) == (old.rule, old.tier, old.audit)
        assert new.write in {old.write, None}


@settings(max_examples=40, deadline=None)
@given(policies(), policies())
def test_no_change_of_policy_shows_a_reader_what_was_written_below_its_tier(old, new):
    """Written under one policy, read under another: in both directions."""
    before, after = compiled(old), compiled(new)
    readers = [after.decide(job) for job in JOBS]
    for job in JOBS[::3]:
        written = before.decide(job)
        if written.write is None:
            continue
        stored = entry(job, str(written.write), tier=written.tier, rule=written.rule)
        if after.hides(stored, now=2e9) is not None:
            continue
        assert after.decide(job).write == written.write
        for reader in readers:
            if written.write in reader.read:
                assert written.tier >= reader.tier


@pytest.mark.parametrize("tier", list(Tier))
def test_the_tiers_are_an_order(tier):
    assert Tier.CONTRIBUTOR <= tier <= Tier.TRUSTED
