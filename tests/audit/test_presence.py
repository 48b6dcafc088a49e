"""What became of an entry, from what stands and what the policy says."""

from dataclasses import dataclass, field, replace

import pytest
from fakes.statements import ENTRY

from secure_cache.audit.presence import Standing, presence_of
from secure_cache.model.errors import StorageForbidden, StorageUnavailable
from secure_cache.policy.decision import Decision, Hidden

pytestmark = pytest.mark.anyio

OURS = Standing(ENTRY.entry_id, quarantined=False, artifact_is_there=True)


@dataclass
class Records:
    """What stands under the one key."""

    answer: object
    asked: list = field(default_factory=list)

    async def standing(self, namespace, key):
        self.asked.append((namespace, key))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@dataclass
class Policy:
    hidden: Hidden | None = None

    def hides(self, entry, *, now):
        assert (entry, now) == (ENTRY, 5.0)
        return self.hidden

    def decide(self, identity):
        assert identity == ENTRY.writer
        return Decision(allowed=True, reason="", rule="main")


REVOKED = Policy(Hidden("covered by the revocation r1", "revocation r1"))


@pytest.mark.parametrize(
    ("standing", "policy", "state", "line"),
    [
        (OURS, Policy(), "served", "rule main"),
        (OURS, REVOKED, "revoked", "revocation r1"),
        (replace(OURS, quarantined=True), Policy(), "quarantined", "quarantine"),
        (replace(OURS, quarantined=True), REVOKED, "quarantined", "quarantine"),
        (replace(OURS, artifact_is_there=False), Policy(), "missing", "artifact"),
        (replace(OURS, entry_id="0" * 26), Policy(), "superseded", "entry " + "0" * 26),
        (replace(OURS, entry_id="0" * 26), REVOKED, "superseded", "entry " + "0" * 26),
        (replace(OURS, entry_id=None), Policy(), "missing", "record"),
        (None, Policy(), "missing", "record"),
        (StorageUnavailable("away"), Policy(), "unknown", "storage"),
    ],
)
async def test_each_state_names_the_line_that_decides(standing, policy, state, line):
    records = Records(standing)
    found = await presence_of(ENTRY, records=records, policy=policy, now=5.0)
    assert (found.state, found.line) == (state, line)
    assert found.why
    assert records.asked == [(ENTRY.namespace, ENTRY.key)]


async def test_without_the_storage_the_policy_alone_can_only_say_no():
    assert (await presence_of(ENTRY, records=None, policy=Policy(), now=5.0)).state == "unknown"
    assert (await presence_of(ENTRY, records=None, policy=REVOKED, now=5.0)).line == "revocation r1"


async def test_a_storage_that_refuses_us_is_not_read_as_missing():
    with pytest.raises(StorageForbidden):
        await presence_of(ENTRY, records=Records(StorageForbidden()), policy=Policy(), now=5.0)
