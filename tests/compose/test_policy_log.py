"""Policies that an auditor is told of are proved, and what was left out shows."""

import pytest
from fakes.audit import SIGNER, T0, ListedLog, leaf_of, leaf_of_event, numbered
from fakes.signed_log import TRUST, SignedLog
from fakes.statements import ed25519_signer, ring_for

from secure_cache.compose.policy_log import prove_policies
from secure_cache.model.digest import Digest
from secure_cache.model.errors import LogInconsistent
from secure_cache.provenance.event import PolicyTookEffect
from secure_cache.provenance.keys import KeyRing, KeyStatus
from secure_cache.tlog.fetched import FetchedLog

pytestmark = pytest.mark.anyio

DIGESTS = [Digest.of(b"%d" % number) for number in range(4)]


def event(number, before):
    previous = None if before is None else DIGESTS[before]
    return leaf_of_event(PolicyTookEffect(DIGESTS[number], number + 1, previous), T0 + number)


LEAVES = [event(0, None), leaf_of(numbered(1)), event(1, 0), event(2, 1), event(3, 2)]


async def test_each_event_is_proved_and_told_in_order():
    proved = await prove_policies(ListedLog(LEAVES), ring_for(SIGNER), [0, 2, 3, 4])
    assert proved.doubts == ()
    assert [found.sha256 for found in proved.events] == list(map(str, DIGESTS))
    assert [found.number for found in proved.events] == [1, 2, 3, 4]
    assert [found.index for found in await proved.policies(str(DIGESTS[1]))] == [2]


async def test_a_policy_that_was_left_out_is_named_by_the_next():
    proved = await prove_policies(ListedLog(LEAVES), ring_for(SIGNER), [0, 3, 4])
    (doubt,) = proved.doubts
    assert doubt == f"entry 3 names a policy before it that was left out: {DIGESTS[1]}"


@pytest.mark.parametrize("index", [1, 5])
async def test_what_is_no_event_about_a_policy_is_refused(index):
    leaves = [*LEAVES, b"junk"]
    with pytest.raises(LogInconsistent, match="is no event about a policy"):
        await prove_policies(ListedLog(leaves), ring_for(SIGNER), [index])


async def test_a_policy_that_no_key_of_ours_signed_is_told_and_is_none():
    """Whoever can write where batches wait can append; an older policy must not come back so."""
    forged = leaf_of_event(PolicyTookEffect(DIGESTS[0], 9, DIGESTS[3]), T0 + 9, ed25519_signer(9))
    log = ListedLog([*LEAVES, forged])
    proved = await prove_policies(log, ring_for(SIGNER), [0, 2, 3, 4, 5])
    assert proved.events[-1].sha256 == str(DIGESTS[3])
    (doubt,) = proved.doubts
    assert doubt.startswith("entry 5 is in the log, and no key of the ring ever signed it: ")


async def test_an_event_whose_key_was_revoked_is_told_with_a_doubt():
    revoked = ring_for(SIGNER, status=KeyStatus.REVOKED)
    proved = await prove_policies(ListedLog(LEAVES), revoked, [0])
    assert len(proved.events) == 1
    assert proved.doubts[0].startswith("entry 0 is in the log, but its signature is not good: ")


async def test_a_policy_that_took_effect_a_moment_ago_is_in_the_log():
    """The log was looked at, then it grew, then the index was asked."""
    log = SignedLog()
    fetched = FetchedLog(log.fetch, TRUST)
    assert (await fetched.published()).size == 2
    log.add_policy(b"version: 2\n")
    ring = KeyRing.decode(log.ring)
    proved = await prove_policies(fetched, ring, [2])
    assert [event.index for event in proved.events] == [2]
    # An index that names what nobody has is no answer "no".
    for index in (3, -1):
        with pytest.raises(LogInconsistent, match=f"names entry {index}, and"):
            await prove_policies(fetched, ring, [index])
