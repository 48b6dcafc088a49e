"""What a revocation covers is counted as the policy itself would, or said not to be counted."""

from dataclasses import replace

import anyio
from fakes.audit import DAY, T0, ListedLog, leaf_of, numbered, writer
from fakes.policies import PRESETS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from secure_cache.audit import coverage
from secure_cache.audit.auditor import Auditor
from secure_cache.audit.coverage import Counting
from secure_cache.audit.index import AuditIndex
from secure_cache.model.clock import rfc3339
from secure_cache.model.names import Namespace
from secure_cache.policy.compile import compile_policy
from secure_cache.policy.convert import convert
from secure_cache.policy.loader import load_yaml
from secure_cache.policy.revoke import hides
from secure_cache.policy.schema import PolicyDocument

GITHUB = "https://token.actions.githubusercontent.com"
GITLAB = "https://gitlab.com"
OTHER = "https://ci.example"
NOW = T0 + 5 * DAY
POLICY = """\
version: 1
audience: https://cache.acme.example
issuers:
  gha: { preset: github, pin: { repository_owner_id: "65" } }
  lab: { preset: gitlab, pin: { namespace_id: "72" } }
%s
rulesets:
  r: [{ name: main, when: { branch: main }, tier: trusted, write: self, read: [self] }]
projects:
  demo: { issuers: [gha], ruleset: r }
"""
GENERIC = """\
  ci: { preset: generic, iss: https://ci.example, jwks_url: https://ci.example/keys,
        claims: { branch: b, run_id: build } }"""


def compiled(*, generic):
    data = (POLICY % (GENERIC if generic else "")).encode()
    document = convert(load_yaml(data, name="p"), PolicyDocument, name="p")
    return compile_policy(document, data, presets=PRESETS)


def identity(iss, number):
    """As the CI's preset would keep it; the names of issuers may be those of then."""
    if iss == GITHUB:
        return writer(
            iss=iss, issuer=("gha", "old")[number % 2], run_id=f"{number}", sha=f"{number}"
        )
    if iss == GITLAB:
        return writer(
            iss=iss, issuer="lab", pipeline_id=f"{number}", user_id=f"{number}", project_id="20"
        )
    return writer(iss=iss, issuer="ci", build=number, run_id="1", commit="2")


entries = st.lists(
    st.tuples(
        st.sampled_from([GITHUB, GITLAB, OTHER]),
        st.integers(0, 3),
        st.sampled_from(["branch/main", "pr/7"]),
        st.integers(0, 12),
        st.integers(0, 2),
    ),
    max_size=40,
)
VALUES = {
    "issuer": ["gha", "old", "lab", "ci", GITHUB, OTHER],
    "project": ["demo", "other"],
    "rule": ["rule0", "rule1"],
    "namespace": ["demo:branch/main", "demo:pr/7"],
    "run_id": ["0", "1", "2"],
    "actor_id": ["0", "1"],
    "commit": ["1", "2"],
    "key": ["1", "2"],
}


@st.composite
def revocations(draw):
    keys = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=3, unique=True))
    match = {
        key: draw(st.lists(st.sampled_from(VALUES[key]), min_size=1, max_size=2, unique=True))
        for key in keys
    }
    document = {"id": "x", "match": match}
    for end in ("since", "until"):
        if draw(st.booleans()):
            document[end] = rfc3339(T0 + draw(st.integers(0, 12)) * DAY // 2)
    return document


def leaves_of(found):
    return [
        leaf_of(
            numbered(
                number,
                namespace=Namespace.parse(f"demo:{where}"),
                writer=identity(iss, who),
                stored_at=T0 + when * DAY // 2,
                rule=f"rule{who % 2}",
                epoch=epoch,
            )
        )
        for number, (iss, who, where, when, epoch) in enumerate(found)
    ]


async def counted(path, leaves, tables, epoch):
    """What each revocation, and an epoch, is said to cover."""
    log = ListedLog(leaves)
    index = AuditIndex.open(path, segment=16)
    await index.catch_up(log)
    auditor = Auditor(index=index, log=log, policy=lambda: None, clock=lambda: NOW)
    counting = Counting(auditor, lambda: NOW)
    found = [await counting.covered_by(tables, item) for item in tables.revocations]
    ended = await counting.ended("demo:branch/main", epoch)
    index.close()
    return found, ended


def test_counts_are_those_of_the_policy_itself(tmp_path_factory):
    @settings(
        max_examples=120,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(
        entries,
        st.lists(revocations(), min_size=1, max_size=4),
        st.booleans(),
        st.integers(0, 3),
        st.sampled_from([0, 3, 1000]),
    )
    def check(found, documents, generic, epoch, most):
        policy = with_revocations(compiled(generic=generic), documents)
        leaves = leaves_of(found)
        coverage.MAX_LEAVES = coverage.MAX_ROWS = most
        path = tmp_path_factory.mktemp("coverage") / "index.sqlite"
        told, ended = anyio.run(counted, path, leaves, policy.tables, epoch)
        stored = entries_of(found)
        for revocation, covers in zip(policy.tables.revocations, told, strict=True):
            alone = replace(policy.tables, revocations=(revocation,), epochs={})
            lines = [hides(alone, entry, now=NOW) for entry in stored]
            truth = sum(line is not None and line.line == "revocation x" for line in lines)
            agree(covers, truth)
            if most == 1000:
                assert covers.entries is not None
        truth = sum(
            str(entry.namespace) == "demo:branch/main" and entry.epoch < epoch for entry in stored
        )
        agree(ended, truth)

    before = coverage.MAX_LEAVES, coverage.MAX_ROWS
    try:
        check()
    finally:
        coverage.MAX_LEAVES, coverage.MAX_ROWS = before


def agree(covers, truth):
    if covers.entries is None:
        assert covers.at_most >= truth
        assert covers.why
    else:
        assert (covers.entries, covers.at_most, covers.why) == (truth, None, "")


def entries_of(found):
    return [
        numbered(
            number,
            namespace=Namespace.parse(f"demo:{where}"),
            writer=identity(iss, who),
            stored_at=T0 + when * DAY // 2,
            rule=f"rule{who % 2}",
            epoch=epoch,
        )
        for number, (iss, who, where, when, epoch) in enumerate(found)
    ]


def with_revocations(policy, documents):
    """The same policy with these; ids need not differ here."""
    lines = repr(documents).replace("'", '"')
    data = (POLICY % "").encode() + f"revocations: {lines}\n".encode()
    document = convert(load_yaml(data, name="p"), PolicyDocument, name="p")
    tables = compile_policy(document, data, presets=PRESETS).tables
    return replace(policy, tables=replace(policy.tables, revocations=tables.revocations))


def test_a_common_revocation_is_counted_by_the_index_alone(tmp_path):
    leaves = leaves_of([(GITHUB, number % 3, "branch/main", 0, 0) for number in range(30)])
    policy = with_revocations(
        compiled(generic=False), [{"id": "x", "match": {"run_id": ["1"], "commit": ["1"]}}]
    )
    coverage_before, coverage.MAX_LEAVES = coverage.MAX_LEAVES, 0
    try:
        (covers,), _ = anyio.run(counted, tmp_path / "i.sqlite", leaves, policy.tables, 0)
    finally:
        coverage.MAX_LEAVES = coverage_before
    assert covers.entries == 10
