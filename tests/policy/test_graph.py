"""The graph of who may read whom claims at least what is granted, whatever the policy."""

import pytest
from fakes.policies import EXAMPLES, PRESETS, cases_of, load, text
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_cache.model.identity import Identity
from secure_cache.model.names import Namespace
from secure_cache.model.tiers import Tier
from secure_cache.policy import graph as graphs
from secure_cache.policy.cases import load_cases
from secure_cache.policy.compile import compile_policy
from secure_cache.policy.convert import convert
from secure_cache.policy.graph import namespace_graph
from secure_cache.policy.loader import load_yaml
from secure_cache.policy.schema import PolicyDocument

NAMES = ["main", "dev", "release/1", "release/1/x", "a/b", "release/ä"]
PATTERNS = [*NAMES, "release/*", "release/**", "*", "**", "*/b", "a/*", "*/*"]
TIERS = ["contributor", "candidate", "trusted"]
READS = [
    *("self", "base", "branch/main", "branch/dev", "branch/release/1", "pr/7", "queue/main/x"),
    *("tag/main", "event/deploy", "mr/20/refs/heads/main"),
]


def check(policy, decision):
    """Each thing that this decision grants is in the graph."""
    graph = namespace_graph(policy.tables)
    nodes = {node.id: node for node in graph.nodes}
    assert len(nodes) == len(graph.nodes)
    for edge in graph.edges:
        assert {edge.reader, edge.read} <= nodes.keys()
    if not decision.allowed:
        return
    writer = None
    if decision.write is not None:
        writer = graph.node_of(decision.write)
        assert decision.rule in nodes[writer].writers
        assert nodes[writer].tier >= decision.tier
    if decision.audit:
        assert any(node.audits and decision.rule in node.rules for node in graph.nodes)
    for read in decision.read:
        target = graph.node_of(read)
        assert target is not None
        granted = [
            edge
            for edge in graph.edges
            if edge.read == target
            and decision.rule in edge.rules
            and (writer is None or edge.reader == writer)
        ]
        assert granted, (decision, read)


@st.composite
def rulesets(draw):
    rules = []
    for number in range(draw(st.integers(1, 6))):
        when = draw(
            st.one_of(
                st.sampled_from(PATTERNS).map(lambda text: {"branch": text}),
                st.sampled_from(PATTERNS).map(lambda text: {"merge_queue": text}),
                st.sampled_from(PATTERNS).map(lambda text: {"tag": text}),
                st.sampled_from(["any", "7", "20/refs/heads/main"]).map(
                    lambda text: {"pull_request": text}
                ),
                st.just({"role": "dev"}),
                st.just({"context": "other"}),
            )
        )
        rule = {
            "name": f"r{number}",
            "when": when,
            "tier": draw(st.sampled_from(TIERS)),
            "read": draw(st.lists(st.sampled_from(READS), max_size=4, unique=True)),
        }
        if draw(st.booleans()):
            rule["write"] = "self"
        if draw(st.integers(0, 3)) == 0:
            rule["claims"] = {"flavour": "x"}
        if draw(st.integers(0, 5)) == 0:
            rule["audit"] = True
        rules.append(rule)
    return rules


@st.composite
def policies(draw):
    """Also such as lint would refuse: what decides must hold whatever the rules say."""
    document = {
        "version": 1,
        "audience": "https://cache.acme.example",
        "issuers": {"open": {"preset": "open"}},
        "rulesets": {"one": draw(rulesets()), "two": draw(rulesets())},
        "projects": {
            "web": {"issuers": ["open"], "ruleset": "one", "match": {"repo": "web"}},
            "api": {
                "issuers": ["open"],
                "ruleset": draw(st.sampled_from(["one", "two"])),
                "match": {"repo": "api"},
                "import": [
                    {
                        "project": "web",
                        "namespaces": draw(
                            st.lists(
                                st.sampled_from(["branch/main", "branch/release/1", "pr/7"]),
                                min_size=1,
                                unique=True,
                            )
                        ),
                    }
                ],
            },
        },
    }
    if draw(st.booleans()):
        document["anonymous"] = {"project": "web", "read": ["branch/main"], "ack": ["public-read"]}
    data = repr(document).replace("'", '"').replace("True", "true").encode()
    return compile_policy(
        convert(load_yaml(data, name="p"), PolicyDocument, name="p"), data, presets=PRESETS
    )


@st.composite
def jobs(draw):
    """What the presets of CI providers give, and any claims beside it."""
    kind = draw(st.sampled_from(["branch", "pull_request", "merge_queue", "tag", "role", "other"]))
    name = draw(st.sampled_from(NAMES))
    base = draw(st.none() | st.sampled_from(NAMES))
    number = draw(st.sampled_from(["7", "8", "20/refs/heads/main"]))
    shape = {
        "branch": ("branch", name, name, None),
        "tag": ("tag", name, name, None),
        "pull_request": ("mr" if "/" in number else "pr", number, number, base),
        "merge_queue": ("queue", name, f"{name}/x", name),
        "role": ("", "dev", "", None),
        "other": ("event", "deploy", "deploy", None),
    }[kind]
    space, name, own, base = shape
    claims = {"kind": kind, "name": name, "space": space, "id": own}
    claims |= {
        "repo": draw(st.sampled_from(["web", "api"])),
        "flavour": draw(st.sampled_from(["x", "y"])),
        "trustable": draw(st.booleans()),
    }
    if base is not None:
        claims["base"] = base
    return Identity("open", "https://open.example", "", tuple(sorted(claims.items())), "0" * 64)


@settings(max_examples=400, deadline=None)
@given(policies(), st.lists(jobs(), min_size=1, max_size=5))
def test_the_graph_claims_at_least_what_is_granted(policy, found):
    check(policy, policy.decide_anonymous())
    for job in found:
        check(policy, policy.decide(job))


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_cases_of_the_examples_are_in_the_graph(name):
    policy = load(text(name))
    for case in load_cases(cases_of(name), name="tests"):
        check(policy, case.decide(policy))


def test_the_graph_of_an_example_is_what_a_person_would_draw():
    graph = namespace_graph(load().tables)
    nodes = {node.id: node for node in graph.nodes if node.project == "mono"}
    assert {id_: (node.tier, node.writers) for id_, node in nodes.items()} == {
        "mono:branch/main": (Tier.TRUSTED, ("main",)),
        "mono:branch/release/*": (Tier.TRUSTED, ("release",)),
        "mono:merge_queue/main": (Tier.CANDIDATE, ("merge-queue",)),
        "mono:pull_request/any": (Tier.CONTRIBUTOR, ("pull-request",)),
        "mono:branch/**": (Tier.CONTRIBUTOR, ("feature-branch",)),
        "mono:role/developer": (None, ()),
    }
    edges = {
        (edge.reader, edge.read): (edge.rules, edge.how)
        for edge in graph.edges
        if edge.reader.startswith("mono:")
    }
    assert edges["mono:branch/main", "mono:branch/main"][0] == ("main", "feature-branch")
    assert edges["mono:pull_request/any", "mono:branch/release/*"] == (
        ("pull-request",),
        ("base",),
    )
    assert edges["mono:pull_request/any", "mono:branch/main"][1] == ("name", "base")
    assert edges["mono:role/developer", "mono:branch/main"] == (("developer",), ("name",))
    # Nothing of a lower tier is ever read from above.
    tiers = {node.id: node.tier or Tier.CONTRIBUTOR for node in graph.nodes}
    readers = {read for reader, read in edges if reader == "mono:branch/main"}
    assert readers == {"mono:branch/main"}
    assert all(
        tiers[edge.read] >= tiers[edge.reader] for edge in graph.edges if edge.how != ("self",)
    )
    assert any(
        (edge.reader, edge.read) == ("web:pull_request/any", "mono:branch/main")
        for edge in graph.edges
    )


def test_a_namespace_falls_under_the_most_specific_node():
    graph = namespace_graph(load().tables)
    for namespace, node in (
        ("mono:branch/main", "mono:branch/main"),
        ("mono:branch/release/1.2", "mono:branch/release/*"),
        ("mono:branch/release/1/2", "mono:branch/**"),
        ("mono:branch/maintenance", "mono:branch/**"),
        ("mono:pr/7", "mono:pull_request/any"),
        ("mono:mr/20/refs/heads/x", "mono:pull_request/any"),
        ("mono:queue/main/pr-1", "mono:merge_queue/main"),
        ("mono:queue/dev/pr-1", None),
        ("mono:tag/v1", None),
        ("gone:branch/main", None),
    ):
        assert graph.node_of(Namespace.parse(namespace)) == node, namespace


def test_a_graph_that_nobody_can_look_at_is_cut_and_says_so(monkeypatch):
    monkeypatch.setattr(graphs, "MAX_EDGES", 5)
    graph = namespace_graph(load().tables)
    assert graph.cut
    assert len(graph.edges) == 5
