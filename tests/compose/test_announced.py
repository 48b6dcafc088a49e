"""What a log announced, from an index that may say anything."""

import pytest
from fakes.audit import ListedLog, leaf_of, leaf_of_event, numbered
from fakes.statements import ed25519_signer, public_key

from secure_cache.audit.watch import MAX_POLICIES
from secure_cache.audit.watch_signatures import SigningKeys
from secure_cache.compose.announced import announced_before, announced_since
from secure_cache.model.digest import Digest
from secure_cache.model.errors import NotFound
from secure_cache.provenance.event import KeysChanged, PolicyTookEffect
from secure_cache.provenance.keys import KeyStatus, ring_of

pytestmark = pytest.mark.anyio

FIRST, SECOND, THIRD, STRANGER = map(ed25519_signer, (1, 2, 3, 66))
REVOKED = KeyStatus.REVOKED


class Listed(ListedLog):
    async def entry(self, index):
        if not 0 <= index < len(self.leaves):
            raise NotFound("no such entry")
        return self.leaves[index]


def policy(number, signer=THIRD):
    before = Digest.of(b"%d" % (number - 1)) if number > 1 else None
    what = PolicyTookEffect(Digest.of(b"%d" % number), number, before)
    return leaf_of_event(what, signer=signer)


def revoking(key, signer):
    return leaf_of_event(KeysChanged(Digest.of(b"ring"), revoked=(key.keyid,)), signer=signer)


def digests(*numbers):
    return tuple(str(Digest.of(b"%d" % number)) for number in numbers)


async def asked(leaves, events, first, *keys):
    ring = ring_of(keys or [public_key(THIRD)])
    return await announced_before(Listed(leaves), SigningKeys(ring), events, first)


async def test_policies_before_an_entry_are_known_in_their_order():
    leaves = [policy(1), policy(2), policy(3), policy(1), policy(4)]
    events = [(index, "policy") for index in (4, 2, 0, 1, 3)]
    before = await asked(leaves, events, 4)
    assert before.policies == digests(2, 3, 1)
    assert before.number == 3
    assert (await asked(leaves, events, 0)).policies == ()
    assert (await asked(leaves, events, 0)).number is None


async def test_only_the_newest_policies_are_read():
    leaves = [policy(number) for number in range(1, MAX_POLICIES + 11)]
    before = await asked(leaves, [(n, "policy") for n in range(len(leaves))], len(leaves))
    assert len(before.policies) == MAX_POLICIES
    assert before.number == MAX_POLICIES + 10


async def test_an_index_announces_nothing_by_itself():
    leaves = [policy(1, STRANGER), leaf_of(numbered(1), THIRD), b"junk", policy(4)]
    events = [(index, kind) for index in (-1, 0, 1, 2, 3, 99) for kind in ("policy", "keys")]
    before = await asked(leaves, [*events, (3, "nonsense")], 9)
    assert before.policies == digests(4)
    assert before.keys.revoked_at == {}


async def test_who_revoked_a_key_may_have_been_revoked_later():
    keys = [public_key(FIRST, status=REVOKED), public_key(SECOND, status=REVOKED)]
    leaves = [policy(1, FIRST), revoking(FIRST, SECOND), revoking(SECOND, THIRD)]
    events = [(0, "policy"), (1, "keys"), (2, "keys")]
    before = await asked(leaves, events, 3, *keys, public_key(THIRD))
    assert before.keys.revoked_at == {FIRST.keyid: 1, SECOND.keyid: 2}
    assert not before.keys.unplaced
    # Its policy was announced while the key was good.
    assert before.policies == digests(1)


async def test_a_stolen_key_cannot_move_the_place_where_it_was_revoked():
    keys = [public_key(FIRST, status=REVOKED), public_key(THIRD)]
    leaves = [revoking(FIRST, THIRD), policy(1, FIRST), revoking(FIRST, FIRST)]
    everything = [(0, "keys"), (1, "policy"), (2, "keys")]
    before = await asked(leaves, everything, 3, *keys)
    assert before.keys.revoked_at == {FIRST.keyid: 0}
    assert before.policies == ()
    # Left out by the index: then it never counted.
    before = await asked(leaves, everything[1:], 3, *keys)
    assert before.keys.unplaced
    assert before.policies == ()


async def test_keys_that_were_changed_in_the_meantime_are_found():
    ring = ring_of([public_key(THIRD)])
    event = leaf_of_event(KeysChanged(ring.digest), signer=THIRD)
    log = Listed([event, policy(1), b"junk", revoking(FIRST, THIRD), event])
    assert await announced_since(log, ring, 2)
    assert await announced_since(log, ring, 4)
    log.leaves[-1] = leaf_of_event(KeysChanged(ring.digest), signer=STRANGER)
    assert not await announced_since(log, ring, 1)
    assert not await announced_since(log, ring, 4)
