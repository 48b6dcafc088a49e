"""A log that is read from elsewhere: nothing leaves it that was not proved."""

import pytest
from fakes.signed_log import LOG_KEY, ORIGIN, OTHER_LOG_KEY, TRUST, SignedLog
from fakes.statements import flipped

from secure_cache.model.errors import HistoryChanged, LogInconsistent, NotFound, Unavailable
from secure_cache.tlog.contradiction import Contradiction
from secure_cache.tlog.fetched import FetchedLog, Trust
from secure_cache.tlog.merkle import leaf_hash
from secure_cache.tlog.proof import verify_consistency, verify_inclusion

pytestmark = pytest.mark.anyio


def opened(log, **options):
    return FetchedLog(log.fetch, TRUST, **options)


async def test_everything_of_a_log_is_read_and_proved():
    log = SignedLog().grow_to(600)
    reader = opened(log)
    now = await reader.published()
    assert (now.size, now.origin) == (600, ORIGIN)
    assert await reader.checkpoint_note() == log.files["checkpoint"]
    assert [item async for item in reader.entries(250, 520)] == [
        (index, log.leaves[index]) for index in range(250, 520)
    ]
    assert await reader.entry(599) == log.leaves[599]
    proof = await reader.proof(511)
    verify_inclusion(
        index=511,
        size=600,
        leaf=leaf_hash(log.leaves[511]),
        proof=proof.hashes,
        root=now.root,
    )
    assert proof.hashes == await reader.inclusion_proof(511, 600)
    older = SignedLog().grow_to(300)
    verify_consistency(
        old_size=300,
        new_size=600,
        old_root=TRUST.open(older.files["checkpoint"]).root,
        new_root=now.root,
        proof=await reader.consistency_proof(300, 600),
    )
    with pytest.raises(NotFound):
        await reader.entry(600)


async def test_one_look_is_a_look_at_one_tree():
    log = SignedLog().grow_to(10)
    reader = opened(log)
    await reader.published()
    log.grow_to(300)
    assert len([item async for item in reader.entries()]) == 10
    assert (await reader.published()).size == 300
    assert len([item async for item in reader.entries()]) == 300


async def test_it_never_goes_back():
    log = SignedLog().grow_to(300)
    reader = opened(log)
    await reader.published()
    log.files = SignedLog().grow_to(200).files
    with pytest.raises(HistoryChanged, match="put back") as caught:
        await reader.published()
    assert caught.value.proof is None
    # What was proved before goes on to be read.
    assert (await reader.checkpoint_note()) == caught.value.older


@pytest.mark.parametrize("size", [300, 700])
async def test_another_history_is_proved_to_be_one(size):
    log = SignedLog().grow_to(300)
    reader = opened(log)
    await reader.published()
    log.files = SignedLog().grow_to(size, start=9).files
    with pytest.raises(HistoryChanged) as caught:
        await reader.published()
    assert caught.value.proof is not None
    Contradiction.decode(caught.value.proof).verify([LOG_KEY.verifier], origin=ORIGIN)


async def test_what_was_seen_by_an_earlier_process_counts():
    seen = SignedLog().grow_to(300).files["checkpoint"]
    assert (await opened(SignedLog().grow_to(301), last=seen).published()).size == 301
    for other in (SignedLog().grow_to(299), SignedLog().grow_to(400, start=9)):
        with pytest.raises(HistoryChanged):
            await opened(other, last=seen).published()
    stranger = SignedLog(signer=OTHER_LOG_KEY).grow_to(4).files["checkpoint"]
    reader = opened(SignedLog().grow_to(301), last=stranger)
    with pytest.raises(LogInconsistent, match="kept here does not verify"):
        await reader.published()


@pytest.mark.parametrize("path", ["tile/0/000", "tile/entries/000", "tile/1/000.p/1", "checkpoint"])
async def test_one_bit_of_any_file_is_noticed(path):
    log = SignedLog().grow_to(300)
    log.lies[path] = flipped(log.files[path], 8 * len(log.files[path]) // 2)
    reader = opened(log, remedy="so do this and that")

    async def all_of_it():
        await reader.proof(5)
        return [item async for item in reader.entries()]

    with pytest.raises(LogInconsistent, match="so do this and that"):
        await all_of_it()


async def test_a_log_that_is_not_there_or_does_not_answer_is_told_apart():
    log = SignedLog().grow_to(10)
    del log.files["checkpoint"]
    with pytest.raises(LogInconsistent, match="no checkpoint"):
        await opened(log).published()
    log.lies["checkpoint"] = Unavailable("a fault")
    with pytest.raises(Unavailable, match="a fault"):
        await opened(log).entry(3)


async def test_a_log_by_another_name_is_another_log():
    log = SignedLog().grow_to(10)
    with pytest.raises(LogInconsistent):
        await FetchedLog(log.fetch, Trust((LOG_KEY.verifier,), "another.example.com")).published()
