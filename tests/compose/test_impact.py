"""Entries in the order of the log: what later ones say of earlier ones."""

import pytest
from fakes.audit import leaf_of, leaf_of_event, numbered, writer
from fakes.policies import NOW, load, mutated
from fakes.statements import ed25519_signer, public_key, ring_for

from secure_cache.audit.impact import Effect, Question
from secure_cache.compose.impact import Judging
from secure_cache.model.digest import Digest
from secure_cache.model.errors import LogInconsistent
from secure_cache.model.names import Namespace
from secure_cache.model.tiers import Tier
from secure_cache.provenance.event import EntryQuarantined, EntryRemoved, PolicyTookEffect
from secure_cache.provenance.keys import KeyStatus, ring_of

SIGNER = ed25519_signer()
STRANGER = ed25519_signer(9)
RING = ring_for(SIGNER)
THEN = load(
    mutated(("revocations: []", 'revocations: [{ id: r, match: { run_id: "5" }, reason: x }]'))
)
QUESTION = Question.about(load(), THEN, THEN.tables.revocations, now=NOW)


def made(number, run_id="5"):
    who = writer(
        issuer="gha",
        repository_owner_id="65",
        repository_id="74",
        ref_type="branch",
        run_id=run_id,
    )
    return numbered(
        number, writer=who, namespace=Namespace.parse("mono:branch/main"), tier=Tier.TRUSTED
    )


def judged(*leaves, policy_event=0):
    with Judging(QUESTION, RING) as judging:
        for start in range(0, len(leaves), 2):
            judging.look(list(enumerate(leaves))[start : start + 2])
        judging.require_newest_policy(policy_event)
        return {hit.index: hit.effect for hit in judging.hits()}


def test_what_is_covered_is_found_and_what_is_not_is_skipped():
    leaves = [leaf_of(made(number, str(number))) for number in range(4, 8)]
    assert judged(*leaves, b"junk") == {1: Effect.VANISHES}


def test_what_a_later_entry_removed_or_quarantined_is_served_to_nobody():
    first, second, third = (made(number) for number in (1, 2, 3))
    found = judged(
        leaf_of(first),
        leaf_of(second),
        leaf_of(third),
        leaf_of_event(EntryRemoved.of(first, line="revocation x")),
        leaf_of_event(EntryQuarantined.of(third, reason="a bit")),
    )
    assert found == {0: Effect.NOT_SERVED, 1: Effect.VANISHES, 2: Effect.NOT_SERVED}


def test_what_no_key_of_ours_signed_says_nothing_of_other_entries():
    """Else whoever can append would make a revocation look as if it were not needed."""
    entry = made(1)
    forged = [
        leaf_of_event(EntryRemoved.of(entry, line="revocation x"), signer=STRANGER),
        leaf_of_event(EntryQuarantined.of(entry, reason="a bit"), signer=STRANGER),
        leaf_of_event(PolicyTookEffect(Digest.of(b"policy"), 1, None), signer=STRANGER),
    ]
    assert judged(leaf_of(entry), *forged) == {0: Effect.VANISHES}


def test_what_a_key_said_that_was_revoked_since_counts_for_what_is_served():
    entry, removed = made(1), EntryRemoved.of(made(1), line="revocation x")
    leaves = [(0, leaf_of(entry)), (1, leaf_of_event(removed, signer=STRANGER))]
    revoked = public_key(STRANGER, status=KeyStatus.REVOKED)
    with Judging(QUESTION, ring_of([*RING.keys, revoked])) as judging:
        judging.look(leaves)
        assert [hit.effect for hit in judging.hits()] == [Effect.NOT_SERVED]


def test_an_entry_that_our_keys_did_not_sign_is_served_to_nobody():
    assert judged(leaf_of(made(1), STRANGER)) == {0: Effect.NOT_SERVED}


def test_a_policy_that_was_left_out_is_noticed():
    event = leaf_of_event(PolicyTookEffect(Digest.of(b"policy"), 1, None))
    assert judged(event, leaf_of(made(1)), policy_event=0) == {1: Effect.VANISHES}
    with pytest.raises(LogInconsistent, match="entry 1 is a policy that is newer"):
        judged(leaf_of(made(1)), event, policy_event=0)
