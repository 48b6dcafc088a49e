"""The history of policies over a log of events, with texts that are missing, broken and huge."""

import pytest
from fakes.app_world import POLICY
from fakes.audit import SIGNER, T0, ListedLog, leaf_of_event
from fakes.statements import ed25519_signer, ring_for

from secure_cache.audit import policy_history
from secure_cache.audit.auditor import Auditor
from secure_cache.audit.index import AuditIndex
from secure_cache.audit.policy_history import PolicyHistory
from secure_cache.identity.presets import load_presets
from secure_cache.model.digest import Digest
from secure_cache.model.errors import NotFound, StorageUnavailable
from secure_cache.policy.cases import load_cases
from secure_cache.policy.past import Verdict
from secure_cache.policy.text_diff import LineKind
from secure_cache.provenance.event import PolicyTookEffect
from secure_cache.provenance.keys import KeyStatus

pytestmark = pytest.mark.anyio

LOOSER = POLICY + "log: { public: true }\n"
BROKEN = b"version: 1\nrules: {{{{ \x1b[31m"
HUGE = POLICY.encode() + b"# filler\n" * 100_000


class Texts:
    """By number, as they were put there; `reads` says which were asked for."""

    def __init__(self, texts):
        self.texts = dict(enumerate(texts, 1))
        self.reads = []
        self.down = False

    async def text(self, number, sha256):
        self.reads.append(number)
        if self.down:
            raise StorageUnavailable("down")
        if number not in self.texts:
            raise NotFound(str(number))
        assert str(Digest.of(self.texts[number])) == sha256
        return self.texts[number]


class Cases:
    def __init__(self):
        self.given = ()

    def __call__(self):
        return self.given


@pytest.fixture
async def tell(tmp_path):
    """A history of these texts, each told to the log."""
    opened = []

    async def told(*texts):
        data = [text.encode() if isinstance(text, str) else text for text in texts]
        digests = [Digest.of(text) for text in data]
        leaves = [
            leaf_of_event(PolicyTookEffect(digest, number, before), T0 + number)
            for number, (before, digest) in enumerate(
                zip([None, *digests], digests, strict=False), 1
            )
        ]
        log = ListedLog(leaves)
        index = AuditIndex.open(tmp_path / "index.sqlite", segment=16)
        opened.append(index)
        await index.catch_up(log)
        auditor = Auditor(index=index, log=log, policy=lambda: None, clock=lambda: T0)
        history = PolicyHistory(
            known=auditor, texts=Texts(data), presets=load_presets(), cases=Cases()
        )
        return history, [str(digest) for digest in digests]

    yield told
    for index in opened:
        index.close()


def verdicts(versions):
    return [version.verdict for version in versions]


async def test_what_no_key_of_ours_signed_is_no_policy_that_was_in_force(tmp_path):
    """Whoever can write where the log's batches wait can append an event that names an older one.
    Where the ring lags behind, or the key was revoked since, what is ours stays."""
    digests = [Digest.of(b"one"), Digest.of(b"two")]
    events = [PolicyTookEffect(digests[0], 1, None), PolicyTookEffect(digests[1], 2, digests[0])]
    leaves = [leaf_of_event(event, T0 + event.number) for event in events]
    forged = PolicyTookEffect(digests[0], 3, digests[1])
    log = ListedLog([*leaves, leaf_of_event(forged, T0 + 9, ed25519_signer(9))])
    rings = [ring_for(SIGNER)]
    index = AuditIndex.open(tmp_path / "index.sqlite", segment=16)
    await index.catch_up(log)
    auditor = Auditor(
        index=index, log=log, policy=lambda: None, clock=lambda: T0, ring=lambda: rings[0]
    )
    assert [found.number for found in await auditor.policies()] == [1, 2]
    assert [found.index for found in await auditor.policies(str(digests[0]))] == [0]
    rings[0] = ring_for(SIGNER, status=KeyStatus.REVOKED)
    assert [found.number for found in await auditor.policies()] == [1, 2]
    rings[0] = ring_for(ed25519_signer(9))
    assert [found.number for found in await auditor.policies()] == [1, 2, 3]
    index.close()


async def test_a_broken_policy_breaks_no_page(tell):
    history, digests = await tell(POLICY, BROKEN, LOOSER)
    versions = await history.versions()
    assert verdicts(versions) == [None, Verdict.UNKNOWN, Verdict.UNKNOWN]
    assert all(
        version.why.startswith("one of them would not load today: policy 2: ")
        for version in versions[1:]
    )
    found = await history.diff(digests[1])
    assert (found.verdict, found.grants) == (Verdict.UNKNOWN, ())
    assert found.hunks
    # Over the broken one, the others can be compared.
    found = await history.diff(digests[2], digests[0])
    assert (found.verdict, [str(change) for change in found.grants]) == (
        Verdict.LOOSENED,
        ["loosened: log: public"],
    )


async def test_a_huge_policy_is_shown_in_part(tell):
    history, digests = await tell(POLICY, HUGE)
    found = await history.diff(digests[1])
    assert found.verdict is Verdict.UNKNOWN
    assert found.cut
    lines = found.hunks[0].lines
    assert {line.kind for line in lines} == {LineKind.SAME, LineKind.ADDED}


async def test_a_storage_that_is_down_is_said_and_asked_again(tell):
    history, _ = await tell(POLICY, LOOSER)
    history._texts.down = True
    _, second = await history.versions()
    assert (second.verdict, second.why) == (Verdict.UNKNOWN, "the storage did not answer")
    history._texts.down = False
    assert verdicts(await history.versions()) == [None, Verdict.LOOSENED]


async def test_a_long_history_is_compared_in_its_newest_part(tell, monkeypatch):
    monkeypatch.setattr(policy_history, "MAX_COMPARED", 2)
    history, digests = await tell(POLICY, LOOSER, POLICY, LOOSER, POLICY)
    versions = await history.versions()
    assert verdicts(versions)[3:] == [Verdict.LOOSENED, Verdict.TIGHTENED]
    assert len(set(history._texts.reads)) == 3
    # Both changes are known by now, and nothing more is read.
    history._texts.reads.clear()
    assert verdicts(await history.versions()) == [
        None,
        *(Verdict.LOOSENED, Verdict.TIGHTENED) * 2,
    ]
    assert history._texts.reads == []
    assert await history.text(digests[0]) == POLICY.encode()


async def test_the_tests_of_today_show_which_decisions_changed(tell):
    other = POLICY.replace(
        "name: developer, when: { role: developer }, tier: contributor, read: [",
        "name: developer, when: { role: developer }, tier: contributor, read: [branch/dev, ",
    )
    history, digests = await tell(POLICY, other)
    history._cases.given = load_cases(
        b"""\
version: 1
cases:
  - name: a person
    claims: { iss: self, prj: mono, role: developer }
    expect: deny
""",
        name="tests",
    )
    found = await history.diff(digests[1])
    assert found.verdict is Verdict.LOOSENED
    assert [change.case for change in found.decisions] == ["a person"]
    assert found.document()["decisions"][0]["after"].endswith("[mono:branch/dev, mono:branch/main]")
