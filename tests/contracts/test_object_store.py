"""What every ObjectStore must do. A new backend joins by one line in `BACKENDS`."""

import hashlib
import subprocess
import sys
from contextlib import aclosing, suppress
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from fakes.azure import azure_store
from hypothesis import given
from hypothesis import strategies as st

from secure_cache.model.digest import Digest
from secure_cache.model.errors import (
    AlreadyExists,
    CorruptObject,
    DigestMismatch,
    Misconfigured,
    NotFound,
    VersionMismatch,
)
from secure_cache.storage.filesystem import FilesystemStore
from secure_cache.storage.memory import MemoryStore
from secure_cache.storage.ports import ObjectStore, check_name

pytestmark = pytest.mark.anyio

BACKENDS = {
    "memory": lambda _request, _folder: MemoryStore(),
    "filesystem": lambda _request, folder: FilesystemStore(folder / "store"),
    "filesystem-portable": lambda _request, folder: FilesystemStore(
        folder / "store", portable=True
    ),
    "azure": lambda request, _folder: azure_store(request.getfixturevalue("azurite")),
    "azure-oauth": lambda request, _folder: azure_store(request.getfixturevalue("azurite_oauth")),
}

ILLEGAL = [
    "",
    "/a",
    "a/",
    "a//b",
    "../x",
    "..",
    ".",
    "a/../b",
    "a/./b",
    "a/..",
    ".tmp/x",
    ".locks/00",
    "-a",
    "a\\b",
    "a%2Fb",
    "a b",
    "a\n",
    "a/b\n",
    "\na",
    "a\x00b",
    "é",
    "a" * 901,
]


@pytest.fixture(params=BACKENDS)
async def store(request, tmp_path):
    store: ObjectStore = BACKENDS[request.param](request, tmp_path)
    await store.check()
    yield store
    await store.close()


async def names(store: ObjectStore, prefix: str, start_after: str = "") -> list[str]:
    return [info.name async for info in store.list(prefix, start_after=start_after)]


async def read(store: ObjectStore, name: str, **where: int) -> bytes:
    async with store.open(name) as reading, aclosing(reading.chunks(**where)) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def upload(store: ObjectStore, name: str, *pieces: bytes) -> Digest:
    body = b"".join(pieces)
    async with store.begin_upload(name) as incoming:
        for piece in pieces:
            await incoming.write(piece)
        committed = await incoming.commit(size=len(body), digest=Digest.of(body))
    assert committed.info == await store.head(name)
    return committed.digest


async def test_what_was_created_can_be_read(store):
    info = await store.create("a/b/c", b"hello")
    assert (info.name, info.size) == ("a/b/c", 5)
    assert await store.head("a/b/c") == info
    found = await store.get("a/b/c", max_bytes=5)
    assert (found.info, found.data) == (info, b"hello")
    assert await read(store, "a/b/c") == b"hello"


async def test_what_was_not_created_is_not_found(store):
    await store.create("a/b", b"x")
    for name in ("missing", "a/missing", "missing/deep/down"):
        with pytest.raises(NotFound):
            await store.head(name)
        with pytest.raises(NotFound):
            await store.get(name, max_bytes=1)
        with pytest.raises(NotFound):
            await store.get_if_changed(name, version="v", max_bytes=1)
        with pytest.raises(NotFound):
            async with store.open(name):
                pass


async def test_a_second_create_changes_nothing(store):
    first = await store.create("a", b"first")
    with pytest.raises(AlreadyExists):
        await store.create("a", b"second")
    with pytest.raises(AlreadyExists):
        await store.create("a", b"first")
    with pytest.raises(AlreadyExists):
        await upload(store, "a", b"second")
    assert await store.get("a", max_bytes=10) == await store.get("a", max_bytes=10)
    assert (await store.get("a", max_bytes=10)).info == first
    assert (await store.get("a", max_bytes=10)).data == b"first"


async def test_of_fifty_racing_creators_exactly_one_wins_and_knows_it(store):
    won: list[bytes] = []
    lost: list[bytes] = []

    async def race(number: int) -> None:
        body = b"%d" % number * 100
        try:
            if number % 2:
                await store.create("new/folder/object", body)
            else:
                await upload(store, "new/folder/object", body)
            won.append(body)
        except AlreadyExists:
            lost.append(body)

    async with anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(race, number)
    assert (len(won), len(lost)) == (1, 49)
    assert (await store.get("new/folder/object", max_bytes=1000)).data == won[0]


async def test_racing_compare_and_swaps_lose_no_update(store):
    await store.create("counter", b"0")
    seen: set[str] = set()

    async def count() -> None:
        done = 0
        while done < 5:
            now = await store.get("counter", max_bytes=100)
            try:
                after = await store.replace(
                    "counter", b"%d" % (int(now.data) + 1), expected=now.info.version
                )
            except VersionMismatch:
                await anyio.lowlevel.checkpoint()
                continue
            assert after.version not in seen, "a version was given twice"
            seen.add(after.version)
            done += 1

    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(count)
    assert (await store.get("counter", max_bytes=100)).data == b"50"


async def test_a_stale_replace_changes_nothing(store):
    first = await store.create("a", b"1")
    second = await store.replace("a", b"2", expected=first.version)
    assert second.version != first.version
    with pytest.raises(VersionMismatch):
        await store.replace("a", b"3", expected=first.version)
    assert (await store.get("a", max_bytes=1)).data == b"2"
    assert await store.head("a") == second


async def test_equal_bytes_still_make_a_new_version(store):
    seen = {(await store.create("a", b"same")).version}
    for _ in range(20):
        now = await store.head("a")
        seen.add((await store.replace("a", b"same", expected=now.version)).version)
    assert len(seen) == 21


async def test_a_missing_object_can_not_be_replaced(store):
    for name in ("missing", "missing/deep"):
        with pytest.raises(VersionMismatch):
            await store.replace(name, b"x", expected="")
        with pytest.raises(NotFound):
            await store.head(name)


async def test_a_version_does_not_return_after_delete_and_create(store):
    first = await store.create("a", b"1")
    assert await store.delete("a")
    await store.create("a", b"2")
    with pytest.raises(VersionMismatch):
        await store.replace("a", b"3", expected=first.version)


async def test_get_if_changed_answers_only_a_change(store):
    first = await store.create("a", b"1")
    assert await store.get_if_changed("a", version=first.version, max_bytes=1) is None
    second = await store.replace("a", b"2", expected=first.version)
    found = await store.get_if_changed("a", version=first.version, max_bytes=1)
    assert found is not None
    assert (found.info, found.data) == (second, b"2")


@pytest.mark.parametrize("size", [11, 70_000, 3_000_000])
async def test_an_object_above_the_limit_is_never_returned(store, size):
    info = await store.create("a", b"x" * size)
    with pytest.raises(CorruptObject):
        await store.get("a", max_bytes=size - 1)
    with pytest.raises(CorruptObject):
        await store.get_if_changed("a", version="other", max_bytes=size - 1)
    assert (await store.get("a", max_bytes=size)).info == info


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [b""],
        [b"small"],
        [b"x" * 262_144],
        [b"x" * 1_048_576],
        [b"x" * 1_048_577],
        [b"ab" * 400, b"c" * 20_000, b"d"] * 120,
        [b"x" * 5_000_000],
        [bytes([n % 256]) * 65_536 for n in range(70)],
    ],
    ids=["none", "empty", "small", "256K", "block", "block+1", "mixed", "one-large", "many"],
)
async def test_an_upload_of_any_size_comes_back_whole(store, pieces):
    body = b"".join(pieces)
    assert str(await upload(store, "a/b", *pieces)) == hashlib.sha256(body).hexdigest()
    assert await read(store, "a/b") == body
    assert (await store.get("a/b", max_bytes=len(body))).data == body


@pytest.mark.parametrize("size", [10, 3_000_000, 9_000_000])
async def test_nothing_of_an_upload_is_visible_before_commit(store, size):
    async with store.begin_upload("a/b") as incoming:
        await incoming.write(b"x" * size)
        with pytest.raises(NotFound):
            await store.head("a/b")
        assert await names(store, "") == []
        await incoming.commit(size=size)
        assert await names(store, "") == ["a/b"]


@pytest.mark.parametrize("size", [0, 10, 3_000_000, 9_000_000])
async def test_a_digest_or_size_mismatch_commits_nothing(store, size):
    for wrong in ({"digest": Digest.of(b"y")}, {"size": size + 1}):
        async with store.begin_upload("a/b") as incoming:
            await incoming.write(b"x" * size)
            with pytest.raises(DigestMismatch):
                await incoming.commit(**{"size": size, **wrong})
    with pytest.raises(NotFound):
        await store.head("a/b")
    assert await names(store, "") == []


@pytest.mark.parametrize("size", [10, 3_000_000, 9_000_000])
async def test_an_abandoned_upload_leaves_the_name_free(store, size):
    async with store.begin_upload("a/b") as incoming:
        await incoming.write(b"x" * size)

    async def fail() -> None:
        async with store.begin_upload("a/b") as incoming:
            await incoming.write(b"x" * size)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await names(store, "") == []
    await store.create("a/b", b"free")


@pytest.mark.parametrize("size", [10, 3_000_000, 9_000_000])
async def test_a_cancelled_upload_commits_nothing_and_leaves_no_task(store, size):
    before = len(anyio.get_running_tasks())
    async with anyio.create_task_group() as tasks:

        async def receive() -> None:
            async with store.begin_upload("a/b") as incoming:
                await incoming.write(b"x" * size)
                tasks.cancel_scope.cancel()
                await anyio.sleep_forever()

        tasks.start_soon(receive)
    assert len(anyio.get_running_tasks()) == before
    assert await names(store, "") == []
    await store.create("a/b", b"free")


async def bytes_given_until_it_noticed(chunks) -> set[int]:
    """What a store had fetched before the object changed may still be given out."""
    seen: set[int] = set()

    async def drain() -> None:
        async for chunk in chunks:
            seen.update(chunk)

    with pytest.raises(VersionMismatch):
        await drain()
    return seen


async def test_a_read_is_pinned_to_the_version_in_its_info(store):
    first = await store.create("a", b"x" * 3_000_000)
    async with store.open("a") as reading:
        assert reading.info == first
        await store.replace("a", b"y" * 3_000_000, expected=first.version)
        assert await bytes_given_until_it_noticed(reading.chunks()) <= set(b"x")


async def test_an_object_replaced_while_it_is_read_is_noticed(store):
    first = await store.create("a", b"x" * 20_000_000)
    async with store.open("a") as reading, aclosing(reading.chunks(size=100_000)) as chunks:
        assert await anext(chunks) == b"x" * 100_000
        await store.replace("a", b"y" * 20_000_000, expected=first.version)
        assert await bytes_given_until_it_noticed(chunks) <= set(b"x")


async def test_a_small_object_replaced_while_it_is_read_is_given_out_whole_or_not(store):
    first = await store.create("a", b"x" * 1000)
    async with store.open("a") as reading:
        await store.replace("a", b"y" * 1000, expected=first.version)
        given = b""
        with suppress(VersionMismatch):
            given = b"".join([chunk async for chunk in reading.chunks()])
        assert given in {b"", b"x" * 1000}


async def test_an_empty_object_is_an_object(store):
    info = await store.create("a", b"")
    assert info.size == 0
    assert (await store.get("a", max_bytes=0)).data == b""
    assert await read(store, "a") == b""
    assert await names(store, "") == ["a"]


@pytest.mark.parametrize("offset", [0, 1, 99, 100, 101, 999, 1000, 5000])
async def test_chunks_begin_at_the_offset_and_have_the_size(store, offset):
    body = bytes(n % 251 for n in range(1000))
    await store.create("a", body)
    async with store.open("a") as reading:
        chunks = [chunk async for chunk in reading.chunks(offset=offset, size=100)]
    assert b"".join(chunks) == body[offset:]
    assert {len(chunk) for chunk in chunks[:-1]} <= {100}


@pytest.mark.parametrize("where", [{"offset": -1}, {"size": 0}])
async def test_a_senseless_range_is_refused(store, where):
    await store.create("a", b"x")
    async with store.open("a") as reading:
        with pytest.raises(ValueError, match="offset"):
            await anext(reading.chunks(**where))


async def test_a_list_is_in_the_order_of_full_names(store):
    expected = sorted(
        ["a", "a.b", "a-b/c", "a0", "b/a", "b/a.x", "b/b/c", "b/b-c", "b/b0", "Z", "c/.d", "c/=/_"]
    )
    for name in reversed(expected):
        await store.create(name, b"x")
    assert await names(store, "") == expected
    assert await names(store, "b/") == [name for name in expected if name.startswith("b/")]
    assert await names(store, "b") == [name for name in expected if name.startswith("b")]
    assert await names(store, "b/b/") == ["b/b/c"]
    assert await names(store, "b/b") == ["b/b-c", "b/b/c", "b/b0"]
    for after in (*expected, "b/b", "b/", "zzz"):
        assert await names(store, "", after) == [name for name in expected if name > after]


async def test_a_long_list_comes_whole_and_resumes_anywhere(store):
    expected = [f"p/{number:04d}" for number in range(600)]

    async def fill(part: list[str]) -> None:
        for name in part:
            await store.create(name, b"x")

    async with anyio.create_task_group() as tasks:
        for start in range(8):
            tasks.start_soon(fill, expected[start::8])
    assert await names(store, "p/") == expected
    assert await names(store, "p/", "p/0256") == expected[257:]


async def test_an_empty_list_is_no_error(store):
    assert await names(store, "") == []
    assert await names(store, "missing/") == []
    assert await names(store, "missing/deep/") == []


async def test_a_list_tells_the_versions_that_heads_tell(store):
    await store.create("p/a", b"1")
    await store.create("p/b", b"22")
    assert [info async for info in store.list("p/")] == [
        await store.head("p/a"),
        await store.head("p/b"),
    ]


async def test_a_list_may_be_left_in_the_middle(store):
    for number in range(300):
        await store.create(f"p/{number:03d}", b"")
    async with aclosing(store.list("p/")) as listing:
        assert (await anext(listing)).name == "p/000"
    assert len(await names(store, "p/")) == 300


async def test_delete_tells_whether_there_was_anything(store):
    await store.create("a/b", b"x")
    assert await store.delete("a/b") is True
    assert await store.delete("a/b") is False
    assert await store.delete("missing/deep") is False
    with pytest.raises(NotFound):
        await store.head("a/b")
    await store.create("a/b", b"again")


async def test_a_conditional_delete_spares_another_version(store):
    first = await store.create("a", b"1")
    second = await store.replace("a", b"2", expected=first.version)
    with pytest.raises(VersionMismatch):
        await store.delete("a", expected=first.version)
    assert (await store.get("a", max_bytes=1)).data == b"2"
    assert await store.delete("a", expected=second.version) is True
    assert await store.delete("a", expected=second.version) is False


@pytest.mark.parametrize("name", ILLEGAL, ids=repr)
async def test_an_illegal_name_is_refused_by_every_operation(store, name):
    for call in (
        store.head(name),
        store.get(name, max_bytes=1),
        store.get_if_changed(name, version="v", max_bytes=1),
        store.create(name, b""),
        store.replace(name, b"", expected=""),
        store.delete(name),
        read(store, name),
        upload(store, name, b""),
    ):
        with pytest.raises(Misconfigured):
            await call


@pytest.mark.parametrize("prefix", ["/", "../", "a//", "a/../", ".tmp/", "a\n", ".", "é"], ids=repr)
async def test_an_illegal_prefix_is_refused(store, prefix):
    with pytest.raises(Misconfigured):
        await names(store, prefix)


async def test_a_check_may_be_repeated_and_shows_nothing(store):
    await store.create("a", b"x")
    await store.check()
    assert await names(store, "") == ["a"]


@given(
    st.text("ab./", max_size=12)
    | st.text("Aa0._=-/%\\\n é", max_size=20)
    | st.sampled_from(ILLEGAL)
)
def test_legal_names_have_plain_segments_only(name):
    plain = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._=-")
    parts = name.split("/")
    legal = (
        len(name) <= 900
        and all(part and set(part) <= plain and part not in {".", ".."} for part in parts)
        and name[0] not in "._=-"
    )
    if legal:
        assert check_name(name) == name
    else:
        with pytest.raises(Misconfigured):
            check_name(name)


RACER = """
import sys, anyio
from pathlib import Path
from secure_cache.model.errors import AlreadyExists, VersionMismatch
from secure_cache.storage.filesystem import FilesystemStore

async def main(root, me):
    store = FilesystemStore(Path(root))
    await store.check()
    print("ready", flush=True)
    sys.stdin.readline()
    won = 0
    for number in range(60):
        try:
            await store.create(f"races/{number // 10}/{number}", me.encode())
            won += 1
        except AlreadyExists:
            pass
    done = 0
    while done < 40:
        now = await store.get("counter", max_bytes=100)
        try:
            await store.replace("counter", b"%d" % (int(now.data) + 1), expected=now.info.version)
            done += 1
        except VersionMismatch:
            pass
    print(won, flush=True)

anyio.run(main, *sys.argv[1:])
"""


def run_racers(root: Path) -> list[int]:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(root), f"racer {number}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    return [int(racer.communicate()[0]) for racer in racers]


async def test_real_processes_race_like_tasks(tmp_path: Path):
    store = FilesystemStore(tmp_path)
    await store.check()
    await store.create("counter", b"0")
    assert sum(await anyio.to_thread.run_sync(run_racers, tmp_path)) == 60
    assert (await store.get("counter", max_bytes=100)).data == b"160"
    assert len(await names(store, "races/")) == 60
    await store.close()
