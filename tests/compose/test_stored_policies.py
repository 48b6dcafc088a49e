"""The texts of policies are found by their digests, each read once."""

from collections import Counter

import pytest

from secure_cache.compose.log_source import MAX_POLICY_TEXT_BYTES, StoredPolicies
from secure_cache.model.digest import Digest
from secure_cache.model.errors import CorruptObject, NotFound
from secure_cache.storage import layout
from secure_cache.storage.memory import MemoryStore

pytestmark = pytest.mark.anyio

TEXTS = [b"policy %d" % number for number in range(40)]


class CountingStore(MemoryStore):
    def __init__(self):
        super().__init__()
        self.asked = Counter()

    async def get(self, name, *, max_bytes):
        self.asked[name] += 1
        return await super().get(name, max_bytes=max_bytes)


@pytest.fixture
async def store():
    store = CountingStore()
    for number, text in enumerate(TEXTS, 1):
        await store.create(layout.policy_version(number), text)
    return store


def digest(text):
    return str(Digest.of(text))


async def test_all_of_them_cost_two_reads_each_and_the_newest_costs_two_in_all(store):
    policies = StoredPolicies(store)
    assert await policies.text(digest(TEXTS[-1])) == TEXTS[-1]
    assert store.asked.total() == 2
    for text in TEXTS:
        assert await policies.text(digest(text)) == text
    assert store.asked.total() <= 2 * len(TEXTS) + 1


async def test_what_is_not_kept_is_not_found_and_what_comes_later_is(store):
    policies = StoredPolicies(store)
    with pytest.raises(NotFound, match="is not kept"):
        await policies.text(digest(b"new"))
    await store.create(layout.policy_version(99), b"new")
    assert await policies.text(digest(b"new")) == b"new"


async def test_one_that_cannot_be_read_hides_no_other(store):
    await store.create(layout.policy_version(98), bytes(MAX_POLICY_TEXT_BYTES + 1))
    assert await StoredPolicies(store).text(digest(TEXTS[3])) == TEXTS[3]


async def test_one_that_is_changed_after_it_was_found_is_not_given(store):
    policies = StoredPolicies(store)
    await policies.text(digest(TEXTS[3]))
    name = layout.policy_version(4)
    version = (await store.head(name)).version
    await store.replace(name, b"another", expected=version)
    with pytest.raises(CorruptObject, match="another digest"):
        await policies.text(digest(TEXTS[3]))
