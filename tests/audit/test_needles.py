"""A search of a statement's bytes never leaves out what a revocation covers."""

from dataclasses import replace

from fakes.audit import numbered, writer
from fakes.policies import NOW, load
from hypothesis import assume, given
from hypothesis import strategies as st

from secure_cache.audit.needles import Needles
from secure_cache.model.errors import Malformed
from secure_cache.model.names import Namespace
from secure_cache.policy.compiled import Revocation
from secure_cache.policy.conditions import FACTS
from secure_cache.policy.schema import RevocationMatch
from secure_cache.provenance.statement import build_statement

POLICY = load()
TEXTS = st.one_of(
    st.sampled_from(["7", "1e-07", '"', "\\", "é", "\u2028", "0.1", "true"]),
    st.text(min_size=1, max_size=6),
)
CLAIMS = st.one_of(TEXTS, st.integers(-9, 9), st.booleans(), st.sampled_from([1e-07, 0.1, 1.5e300]))


@st.composite
def entries(draw):
    claims = draw(
        st.dictionaries(
            st.sampled_from(sorted({name for names in FACTS.values() for name in names})),
            st.one_of(CLAIMS, st.lists(CLAIMS, max_size=2).map(tuple)),
        )
    )
    # A claim as the verifier leaves it: a name and a subject are lines, all else is any text.
    who = writer(
        family=draw(st.sampled_from([None, "family-1"])),
        subject=draw(st.sampled_from(["repo:a", 'a"b', "é\\"])),
        **claims,
    )
    namespace = Namespace.parse(draw(st.sampled_from(["demo:branch/main", "demo:pr/7"])))
    return numbered(draw(st.integers(0, 3)), writer=who, namespace=namespace)


def words(entry):
    """What could be asked about this entry, and something else."""
    claims = [value for _, value in entry.writer.claims]
    flat = [item for value in claims for item in (value if isinstance(value, tuple) else (value,))]
    said = [str(item).lower() if isinstance(item, bool) else str(item) for item in flat]
    return [
        *said,
        entry.writer.subject,
        entry.writer.token_id,
        entry.writer.family or "none",
        str(entry.namespace),
        str(entry.key),
        entry.rule,
        entry.policy_sha256,
        entry.namespace.project,
        entry.writer.issuer,
        entry.writer.iss,
        "another",
    ]


@given(
    entries(), st.lists(st.sampled_from(RevocationMatch.__struct_fields__), min_size=1), st.data()
)
def test_what_is_covered_is_never_left_out(entry, keys, data):
    try:
        payload = build_statement(entry)
    except Malformed:
        assume(False)
    match = tuple(
        (key, frozenset(data.draw(st.lists(st.sampled_from(words(entry)), min_size=1))))
        for key in sorted(set(keys))
    )
    revocation = Revocation("r", match, None, None)
    alone = replace(POLICY, tables=replace(POLICY.tables, revocations=(revocation,)))
    hidden = alone.hides(entry, now=NOW)
    if hidden is not None and hidden.taken_back:
        assert Needles.of([revocation]).may_be_covered(payload)


def test_most_of_what_is_not_covered_is_left_out():
    payload = build_statement(numbered(1, writer=writer(run_id="12345")))
    for match in ({"run_id": "54321"}, {"subject": "somebody"}, {"namespace": "demo:branch/mai"}):
        pairs = tuple((key, frozenset({value})) for key, value in match.items())
        assert not Needles.of([Revocation("r", pairs, None, None)]).may_be_covered(payload)
    wanted = Revocation("r", (("run_id", frozenset({"12345"})),), None, None)
    other = Revocation("r", (("run_id", frozenset({"54321"})),), None, None)
    assert Needles.of([other, wanted]).may_be_covered(payload)
