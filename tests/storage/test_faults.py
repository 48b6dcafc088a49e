"""The fault wrapper itself: others rely on it telling the truth about what took effect."""

import pytest
from fakes.faults import FailOnce, Fault, FaultyStore, seeded

from secure_cache.model.errors import NotFound, StorageUnavailable
from secure_cache.storage.memory import MemoryStore

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("fault", "applied", "took_effect"),
    [
        (Fault.BEFORE, False, False),
        (Fault.LOST_BEFORE, None, False),
        (Fault.LOST_AFTER, None, True),
    ],
)
async def test_a_planned_fault_happens_once_before_or_after_the_effect(fault, applied, took_effect):
    plan = FailOnce(fault, "create", "a")
    store = FaultyStore(MemoryStore(), plan)
    await store.create("b", b"x")
    with pytest.raises(StorageUnavailable) as failed:
        await store.create("a", b"x")
    assert failed.value.applied is applied
    assert plan.happened
    if took_effect:
        assert (await store.get("a", max_bytes=1)).data == b"x"
    else:
        with pytest.raises(NotFound):
            await store.head("a")
        await store.create("a", b"x")


@pytest.mark.parametrize("took_effect", [False, True])
async def test_every_mutation_can_fail(took_effect):
    fault = Fault.LOST_AFTER if took_effect else Fault.LOST_BEFORE
    store = FaultyStore(MemoryStore())
    info = await store.create("a", b"x")
    store.plan = FailOnce(fault, "replace")
    with pytest.raises(StorageUnavailable):
        await store.replace("a", b"y", expected=info.version)
    assert (await store.get("a", max_bytes=1)).data == (b"y" if took_effect else b"x")
    store.plan = FailOnce(fault, "delete")
    with pytest.raises(StorageUnavailable):
        await store.delete("a")
    assert [i.name async for i in store.list("")] == ([] if took_effect else ["a"])
    store.plan = FailOnce(fault, "commit")
    async with store.begin_upload("u") as upload:
        with pytest.raises(StorageUnavailable):
            await upload.commit(size=0)
    assert ("u" in [i.name async for i in store.list("")]) is took_effect


async def test_reads_can_fail_in_the_middle():
    store = FaultyStore(MemoryStore())
    await store.create("a", b"xy")
    store.plan = FailOnce(Fault.BEFORE, "chunk", nth=2)
    async with store.open("a") as reading:
        chunks = reading.chunks(size=1)
        assert await anext(chunks) == b"x"
        with pytest.raises(StorageUnavailable):
            await anext(chunks)


async def test_a_seeded_plan_repeats_itself():
    async def history(seed: int) -> list[str]:
        store = FaultyStore(MemoryStore(), seeded(seed, 0.3))
        seen = []
        for number in range(50):
            try:
                await store.create(f"{number}", b"")
                seen.append("ok")
            except StorageUnavailable as error:
                seen.append(str(error))
        return seen

    assert await history(1) == await history(1) != await history(2)
    assert 5 < (await history(1)).count("ok") < 50
