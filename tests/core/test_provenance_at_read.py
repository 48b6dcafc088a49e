"""Promise 3: nothing is served that does not verify, is not trusted today, or is revoked."""

import os

import anyio
import pytest
from fakes.cache_world import POLICY, cache_world

from secure_cache.model.clock import rfc3339
from secure_cache.model.entry import CHUNK_BYTES
from secure_cache.model.errors import CorruptObject, Denied, NotFound, SecureCacheError
from secure_cache.provenance.record import INLINE_BYTES, join_artifact, split_artifact
from secure_cache.storage import layout

pytestmark = pytest.mark.anyio

REVOKED = (
    POLICY
    + "revocations:\n  - { id: r1, match: { namespace: 'demo:branch/main' }, reason: test }\n"
)


async def tamper(store, name, change):
    """Replace a stored object behind everybody's back."""
    stored = await store.inner.get(name, max_bytes=1 << 30)
    await store.inner.replace(name, change(stored.data), expected=stored.info.version)


async def tamper_artifact(world, entry, change):
    """Change the artifact's stored bytes, wherever they stand."""
    if entry.size > INLINE_BYTES:
        name = layout.artifact(entry.entry_id, entry.stored_at)
        await tamper(world.stores["artifacts"], name, change)
        return

    def behind(data):
        record, artifact = split_artifact(data)
        return join_artifact(record, change(artifact))

    await tamper(world.stores["records"], layout.record(entry.namespace, entry.key), behind)


def flip(at):
    def change(data):
        where = at % len(data)
        return data[:where] + bytes([data[where] ^ 1]) + data[where + 1 :]

    return change


@pytest.mark.parametrize("size", [5, 70_000, CHUNK_BYTES + 7])
@pytest.mark.parametrize("at", [0, -1])
async def test_a_flipped_bit_of_an_artifact_is_never_served(size, at):
    async with cache_world() as world:
        main = world.caller(branch="main")
        data = os.urandom(size)
        entry = await world.store(main, "1", data)
        assert await world.fetch(main, "1") == data
        await tamper_artifact(world, entry, flip(at))

        with pytest.raises(CorruptObject):
            await world.fetch(main, "1")


@pytest.mark.parametrize("size", [5, 70_000])
async def test_a_damaged_entry_is_quarantined_for_good_and_its_key_can_be_written_again(size):
    async with cache_world() as world:
        main = world.caller(branch="main")
        entry = await world.store(main, "1", b"f" * size)
        await tamper_artifact(world, entry, flip(0))
        with pytest.raises(CorruptObject):
            await world.fetch(main, "1")
        await tamper_artifact(world, entry, flip(0))
        with pytest.raises(NotFound):
            await world.fetch(main, "1")
        await world.store(main, "1", b"second")

        assert await world.fetch(main, "1") == b"second"


@pytest.mark.parametrize("length", [0, 4, 6])
async def test_an_artifact_behind_its_record_that_was_cut_or_grown_is_never_served(length):
    async with cache_world() as world:
        main = world.caller(branch="main")
        entry = await world.store(main, "1", b"fiver")
        await tamper_artifact(world, entry, lambda data: (data + b"x")[:length])

        with pytest.raises(CorruptObject):
            await world.fetch(main, "1")


async def test_an_artifact_taken_from_behind_its_record_is_not_looked_for_elsewhere():
    async with cache_world() as world:
        main = world.caller(branch="main")
        entry = await world.store(main, "1", b"fiver")
        name = layout.record(entry.namespace, entry.key)
        await tamper(world.stores["records"], name, lambda data: split_artifact(data)[0])

        with pytest.raises(CorruptObject):
            await world.fetch(main, "1")


@pytest.mark.parametrize("size", [0, 1, INLINE_BYTES, INLINE_BYTES + 1])
async def test_every_size_is_given_back_as_it_was_stored(size):
    async with cache_world() as world:
        main = world.caller(branch="main")
        data = os.urandom(size)
        await world.store(main, "1", data)

        assert await world.fetch(main, "1") == data


async def test_an_artifact_that_is_gone_is_a_miss_and_can_be_written_again():
    async with cache_world() as world:
        main = world.caller(branch="main")
        entry = await world.store(main, "1", b"f" * 70_000)
        await world.stores["artifacts"].delete(layout.artifact(entry.entry_id, entry.stored_at))
        with pytest.raises(CorruptObject):
            await world.fetch(main, "1")
        await world.store(main, "1", b"second")

        assert await world.fetch(main, "1") == b"second"


@pytest.mark.parametrize("at", [0, 40, 200, -7])
async def test_a_flipped_bit_of_a_record_is_never_served_and_the_key_can_be_written_again(at):
    async with cache_world() as world:
        main = world.caller(branch="main")
        entry = await world.store(main, "1", b"first")
        name = layout.record(entry.namespace, entry.key)
        await tamper(world.stores["records"], name, flip(at))
        with pytest.raises(CorruptObject):
            await world.fetch(main, "1")
        await world.store(main, "1", b"second")

        assert await world.fetch(main, "1") == b"second"


async def test_a_record_moved_to_another_key_namespace_or_branch_is_never_served():
    async with cache_world() as world:
        main, pr = world.caller(branch="main"), world.caller(pull_request="7", base="main")
        entry = await world.store(pr, "1", b"poison")
        stored = await world.stores["records"].get(
            layout.record(entry.namespace, entry.key), max_bytes=1 << 20
        )
        for namespace, key in (("demo:branch/main", "1"), ("demo:branch/main", "2")):
            name = layout.record(world.namespace(namespace), key)
            await world.stores["records"].create(name, stored.data)
            with pytest.raises(CorruptObject):
                await world.fetch(main, key)


async def test_a_damaged_trusted_entry_does_not_bring_the_readers_own_to_light():
    async with cache_world() as world:
        main, pr = world.caller(branch="main"), world.caller(pull_request="7", base="main")
        await world.store(pr, "1", b"poison")
        entry = await world.store(main, "1", b"good")
        name = layout.record(entry.namespace, entry.key)
        await tamper(world.stores["records"], name, flip(10))

        with pytest.raises(CorruptObject):
            await world.fetch(pr, "1")


async def test_a_revocation_hides_what_was_written_and_the_key_can_be_written_again():
    async with cache_world() as world:
        main = world.caller(branch="main")
        await world.store(main, "1", b"first")
        world.edit(REVOKED.replace("reason:", f"until: '{stamp(world)}', reason:"))
        world.clock.advance(60)
        main = world.caller(branch="main")
        with pytest.raises(NotFound):
            await world.fetch(main, "1")
        await world.store(main, "1", b"second")

        assert await world.fetch(main, "1") == b"second"


async def test_a_new_epoch_drops_a_namespace_at_once_and_an_old_record_stays_dropped():
    async with cache_world() as world:
        main = world.caller(branch="main")
        entry = await world.store(main, "1", b"first")
        name = layout.record(entry.namespace, entry.key)
        old = await world.stores["records"].get(name, max_bytes=1 << 20)
        world.edit(POLICY + "epochs: { 'demo:branch/main': 1 }\n")
        main = world.caller(branch="main")
        with pytest.raises(NotFound):
            await world.fetch(main, "1")
        await world.store(main, "1", b"second")
        assert await world.fetch(main, "1") == b"second"
        await tamper(world.stores["records"], name, lambda _: old.data)

        with pytest.raises(NotFound):
            await world.fetch(main, "1")


async def test_a_writer_that_todays_rules_would_not_let_write_is_not_served():
    async with cache_world() as world:
        await world.store(world.caller(branch="main"), "1", b"first")
        world.edit(POLICY.replace("{ branch: main }, tier", "{ branch: trunk }, tier"))

        with pytest.raises(NotFound):
            await world.fetch(world.caller(branch="main"), "1")


@pytest.mark.parametrize(
    "edit",
    [
        REVOKED,
        POLICY + "revocations:\n  - { id: r2, match: { tid: stolen }, reason: test }\n",
        POLICY + "epochs: { 'demo:branch/main': 1 }\n",
        POLICY.replace("{ branch: main }, tier", "{ branch: trunk }, tier"),
    ],
    ids=["namespace", "family", "epoch", "rule"],
)
async def test_a_policy_edited_while_a_body_comes_in_has_the_last_word(edit):
    async with cache_world() as world:
        main = world.caller(branch="main", family="stolen")

        async def body():
            yield b"first "
            world.edit(edit)
            yield b"second"

        with pytest.raises(Denied):
            await world.store(main, "1", b"first second", blocks=body())
        world.edit(POLICY)

        with pytest.raises(NotFound):
            await world.fetch(world.caller(branch="main"), "1")


async def test_a_reader_that_is_slow_gets_no_byte_of_a_file_that_changes_under_it():
    async with cache_world() as world:
        main = world.caller(branch="main")
        data = os.urandom(3 * CHUNK_BYTES)
        entry = await world.store(main, "1", data)
        name = layout.artifact(entry.entry_id, entry.stored_at)
        received = b""

        async def read():
            nonlocal received
            from contextlib import AsyncExitStack

            async with AsyncExitStack() as stack:
                artifact = await world.get(main, entry.key, stack)
                async for block in artifact.blocks:
                    if not received:
                        await tamper(world.stores["artifacts"], name, lambda _: b"x" * len(data))
                    received += block

        with pytest.raises(SecureCacheError) as caught:
            await read()

        assert caught.value.code in {"corrupt", "version-mismatch"}
        assert data.startswith(received)
        await anyio.lowlevel.checkpoint()


def stamp(world):
    return rfc3339(world.clock())


async def test_what_another_process_quarantined_does_not_keep_its_place_here():
    async with cache_world() as world:
        main = world.caller(branch="main")
        entry = await world.store(main, "1", b"first")
        assert await world.fetch(main, "1") == b"first"
        await world.stores["state"].create(layout.quarantine(entry.entry_id), b"elsewhere")
        await world.store(main, "1", b"second")

        assert await world.fetch(main, "1") == b"second"


async def test_an_entry_dated_into_the_future_does_not_escape_a_revocation_that_begins_later():
    async with cache_world() as world:
        main = world.caller(branch="main")
        world.clock.advance(600)
        await world.store(main, "1", b"first")
        world.clock.advance(-600)
        world.edit(REVOKED.replace("reason:", f"since: '{rfc3339(world.clock() + 60)}', reason:"))
        main = world.caller(branch="main")
        assert await world.fetch(main, "1") == b"first"
        world.clock.advance(120)

        with pytest.raises(NotFound):
            await world.fetch(main, "1")
