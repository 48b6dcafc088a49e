"""An index is at every moment a proved beginning of the log, whatever happens to its builder."""

import io
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import anyio
import pytest
from fakes.audit import (
    ListedLog,
    add_to,
    leaf_of,
    numbered,
    random_leaves,
    real_log,
)
from fakes.logs import open_log

import secure_cache.audit.auditor as auditor_module
import secure_cache.audit.building as building_module
import secure_cache.audit.hands as hands_module
from secure_cache.audit import worker
from secure_cache.audit.auditor import Auditor
from secure_cache.audit.building import building_lock
from secure_cache.audit.filters import Filter
from secure_cache.audit.index import AuditIndex, remove_index
from secure_cache.audit.queries import PageRequest
from secure_cache.audit.quick import read_leaf
from secure_cache.model.errors import (
    DamagedIndex,
    LogInconsistent,
    Misconfigured,
    NotFound,
    Overloaded,
    StorageUnavailable,
)
from secure_cache.storage.filesystem import FilesystemStore
from secure_cache.storage.memory import MemoryStore

pytestmark = pytest.mark.anyio

LEAVES = random_leaves(150)


def opened(tmp_path, *, segment=16):
    return AuditIndex.open(tmp_path / "index.sqlite", segment=segment)


def all_rows(index):
    rows = []
    while True:
        page = index.query(page=PageRequest(limit=1000, after=rows[-1].number if rows else None))
        rows += page.rows
        if not page.more:
            return rows


def rows_of(leaves):
    return [read_leaf(number, leaf) for number, leaf in enumerate(leaves)]


@pytest.fixture(params=[False, True], ids=["in a thread", "in a process"])
def apart(request):
    return request.param


async def test_an_index_follows_a_real_log(tmp_path, apart):
    store = MemoryStore()
    log = await real_log(LEAVES[:40], store)
    index = opened(tmp_path)
    seen = []
    done = await index.catch_up(log, progress=lambda *now: seen.append(now), apart=apart)
    assert (done.size, done.published, done.ours) == (40, 40, True)
    assert seen == [(40, 40)]
    state = index.state()
    assert state.checkpoint == await log.published()
    assert state.note == await log.checkpoint_note()
    assert all_rows(index) == rows_of(LEAVES[:40])

    log = open_log(store)
    await add_to(log, LEAVES[40:])
    again = opened(tmp_path)
    await again.catch_up(open_log(store), apart=apart)
    assert all_rows(index) == rows_of(LEAVES)
    assert index.state().checkpoint == await log.published()
    # Nothing new: nothing to do.
    assert (await index.catch_up(log, apart=apart)).size == 150


@pytest.mark.parametrize("batch", [1, 7, 16, 64])
async def test_batches_and_segments_meet_in_every_way(tmp_path, batch, monkeypatch):
    monkeypatch.setattr(building_module, "BATCH_ENTRIES", batch)
    index = opened(tmp_path)
    await index.catch_up(ListedLog(LEAVES[:70]))
    await index.catch_up(ListedLog(LEAVES[:73]))
    assert all_rows(index) == rows_of(LEAVES[:73])
    assert sum(number for _, number in index.count_by("event").counts) == 73


async def test_a_batch_is_bounded_in_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(building_module, "BATCH_BYTES", 4000)
    log, seen = ListedLog(LEAVES[:20]), []
    await opened(tmp_path).catch_up(log, progress=lambda done, _: seen.append(done))
    assert len(seen) > 3
    assert seen[-1] == 20


class Fault(Exception):
    pass


@pytest.mark.parametrize(
    "sql",
    [
        "BEGIN IMMEDIATE",
        "DELETE FROM state",
        "INSERT INTO state",
        "INSERT INTO entries",
        "INSERT INTO postings",
        "INSERT INTO slices",
        "INSERT INTO groups",
        "COMMIT",
    ],
)
async def test_a_fault_at_any_statement_leaves_the_batch_before(tmp_path, sql, monkeypatch):
    """Each statement of a batch fails once, the second time that it is there."""
    monkeypatch.setattr(building_module, "BATCH_ENTRIES", 16)
    index, log, met = opened(tmp_path), ListedLog(LEAVES[:64]), []
    real = building_module.Builder.__init__

    class Failing:
        def __init__(self, connection):
            self.connection = connection

        @property
        def in_transaction(self):
            return self.connection.in_transaction

        def _do(self, method, statement, *more):
            if statement.startswith(sql):
                met.append(statement)
                if len(met) == 2:
                    raise Fault
            return method(statement, *more)

        def execute(self, *more):
            return self._do(self.connection.execute, *more)

        def executemany(self, *more):
            return self._do(self.connection.executemany, *more)

    def failing(self, connection, *, segment):
        real(self, Failing(connection), segment=segment)

    monkeypatch.setattr(building_module.Builder, "__init__", failing)
    with pytest.raises(Fault):
        await index.catch_up(log)
    assert all_rows(index) == rows_of(LEAVES[:16])
    assert index.count() == 16
    monkeypatch.setattr(building_module.Builder, "__init__", real)
    await index.catch_up(log)
    assert all_rows(index) == rows_of(LEAVES[:64])


@pytest.fixture
def folder(tmp_path):
    """A real log on disk."""

    async def make():
        await real_log(LEAVES, FilesystemStore(tmp_path / "log"))

    (tmp_path / "log").mkdir()
    anyio.run(make)
    return tmp_path / "log"


def builder(tmp_path, folder, *, apart=False, batch=8):
    return subprocess.Popen(
        [
            sys.executable,
            str(Path(__file__).with_name("crash_builder.py")),
            str(tmp_path / "index.sqlite"),
            str(folder),
            str(batch),
            "apart" if apart else "thread",
        ],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("apart", [False, True], ids=["thread", "process"])
def test_killing_the_builder_costs_at_most_a_batch(tmp_path, folder, apart):
    """kill -9 of a real process after each number of batches; the next goes on from there."""
    chance, sizes = random.Random(5), [0]
    for _ in range(12):
        process = builder(tmp_path, folder, apart=apart)
        for _ in range(chance.randrange(1, 5)):
            line = process.stdout.readline().strip()
        process.send_signal(signal.SIGKILL)
        process.communicate()
        index = opened(tmp_path)
        size = index.state().size
        assert size >= max(sizes[-1], int(line) if line.isdigit() else 0)
        assert all_rows(index) == rows_of(LEAVES[:size])
        assert index.check() == ()
        index.close()
        sizes.append(size)
        if line == "done":
            break
    process = builder(tmp_path, folder, apart=apart)
    assert process.communicate()[0].strip().endswith("done")
    assert all_rows(opened(tmp_path)) == rows_of(LEAVES)
    # Those who helped the killed ones have noticed, and are gone.
    deadline = time.monotonic() + 60
    while helpers_of(tmp_path):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def helpers_of(folder):
    """The command lines of processes that build an index in this folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = process.read_bytes().split(b"\0")
            if b"secure_cache.audit.worker" in words and str(folder).encode() in b" ".join(words):
                found.append(words)
    return found


def test_one_builds_and_others_read(tmp_path, folder):
    """Several processes at once, all eager to build, while this one reads."""
    processes = [builder(tmp_path, folder, batch=2) for _ in range(3)]
    index = opened(tmp_path)
    while any(process.poll() is None for process in processes):
        page = index.query(page=PageRequest(limit=10, newest_first=True))
        assert [row.number for row in page.rows] == [*range(page.size)][::-1][:10]
    for process in processes:
        assert process.communicate()[0].strip().endswith("done")
        assert process.returncode == 0
    assert all_rows(index) == rows_of(LEAVES)
    assert index.check() == ()


async def test_who_comes_second_does_not_build(tmp_path):
    index = opened(tmp_path)
    with building_lock(index.path) as ours:
        assert ours
        done = await index.catch_up(ListedLog(LEAVES))
        assert (done.size, done.published, done.ours) == (0, 150, False)
        with pytest.raises(Overloaded):
            remove_index(index.path)
    assert (await index.catch_up(ListedLog(LEAVES))).ours


async def test_a_builder_that_was_overtaken_stops(tmp_path):
    """Of a builder that was killed, the helping process may still write its last batch."""
    index = opened(tmp_path)
    async with index.building() as building:
        await building.catch_up(ListedLog(LEAVES[:20]))
        hands = building._hands
        before = await hands.begin()
        await hands.prepare(before.origin, await hands.read(20, LEAVES[20:30]))
        real = sqlite3.connect(index.path)
        real.execute("UPDATE state SET size = 21")
        real.commit()
        with pytest.raises(StorageUnavailable, match="meanwhile"):
            await hands.commit()
        real.execute("UPDATE state SET size = 20")
        real.commit()
        real.close()
        await building.catch_up(ListedLog(LEAVES))
    assert all_rows(index) == rows_of(LEAVES)


@pytest.mark.parametrize("which", ["reader", "writer"])
async def test_a_helping_process_that_dies_is_told_and_replaced(tmp_path, which):
    index = opened(tmp_path)
    async with index.building(apart=True) as building:
        await building.catch_up(ListedLog(LEAVES[:20]))
        getattr(building._hands, which).process.kill()
        with pytest.raises(StorageUnavailable, match="has ended"):
            await building.catch_up(ListedLog(LEAVES))
    await index.catch_up(ListedLog(LEAVES), apart=True)
    assert all_rows(index) == rows_of(LEAVES)


# a log that is not the one that was indexed


async def refuses(index, log, says):
    size = index.state().size
    with pytest.raises(LogInconsistent, match=says):
        await index.catch_up(log)
    assert index.state().size == size


async def test_a_log_that_was_put_back_is_refused(tmp_path):
    index = opened(tmp_path)
    await index.catch_up(ListedLog(LEAVES[:100]))
    await refuses(index, ListedLog(LEAVES[:99]), "put back")


async def test_a_log_whose_past_was_changed_is_refused(tmp_path):
    index = opened(tmp_path)
    await index.catch_up(ListedLog(LEAVES[:100]))
    changed = [*LEAVES[:50], leaf_of(numbered(999)), *LEAVES[51:]]
    for size in (100, 101, 150):
        await refuses(index, ListedLog(changed[:size]), "history was changed, or the index")
    assert all_rows(index) == rows_of(LEAVES[:100])


async def test_another_log_is_refused(tmp_path):
    index = opened(tmp_path)
    await index.catch_up(ListedLog(LEAVES[:100]))
    await refuses(
        index, ListedLog(LEAVES, origin="other.example/log"), "not of 'other.example/log'"
    )


async def test_entries_that_are_not_those_of_the_checkpoint_are_not_indexed(tmp_path):
    """The source may lie: nothing is written that does not lead to the signed root."""
    index, log = opened(tmp_path), ListedLog(LEAVES)
    log.lies = {149: leaf_of(numbered(7))}
    await refuses(index, log, "does not lead on")
    assert index.count() == 0
    log.lies = {}
    await index.catch_up(log)
    assert index.count() == 150


@pytest.mark.parametrize("lie", ["short", "skipping"])
async def test_a_source_that_leaves_entries_out_is_refused(tmp_path, lie):
    class Lying(ListedLog):
        async def entries(self, start=0, end=None):
            async for index, leaf in super().entries(start, end):
                if (lie == "short" and index < 30) or (lie == "skipping" and index != 30):
                    yield index, leaf

    await refuses(opened(tmp_path), Lying(LEAVES), "the log gave|gave 30 of them")


async def test_a_source_that_fails_says_so_itself(tmp_path):
    class Failing(ListedLog):
        async def entries(self, start=0, end=None):
            async for index, leaf in super().entries(start, end):
                if index == 30:
                    raise StorageUnavailable("the disk is away")
                yield index, leaf

    with pytest.raises(StorageUnavailable, match="the disk is away"):
        await opened(tmp_path).catch_up(Failing(LEAVES))


# files


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(Misconfigured, match="nowhere"):
        AuditIndex.open(tmp_path / "nowhere" / "index.sqlite")


def test_a_folder_that_is_none_any_more_is_named_and_ends_no_follower(tmp_path):
    folder = tmp_path / "audit"
    folder.mkdir()
    index = opened(folder)
    folder.rename(tmp_path / "away")
    folder.touch()
    with pytest.raises(Misconfigured, match="Not a directory"):
        index.count()


def test_workers_that_begin_an_index_at_the_same_moment_all_have_it():
    """A server that has just been installed starts them together; one in ten had none for 30 s."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("race_openers.py")), "60", "4"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    said = done.stdout.split("\n")[:-1]
    assert (len(said), set(said)) == (240, {""})


def test_a_file_that_somebody_is_about_to_make_an_index_of_is_waited_for(tmp_path):
    index = opened(tmp_path)
    for path in tmp_path.iterdir():
        path.unlink()
    index.path.touch()
    with pytest.raises(StorageUnavailable, match="being made"):
        index.count()
    opened(tmp_path)
    assert index.count() == 0


def test_whoever_opens_an_index_does_not_wait_for_its_builder(tmp_path):
    index = opened(tmp_path)
    builder = sqlite3.connect(index.path, isolation_level=None)
    builder.execute("BEGIN IMMEDIATE")
    assert opened(tmp_path).count() == 0
    builder.close()


def test_another_programs_database_is_never_touched(tmp_path):
    path = tmp_path / "other.sqlite"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE precious (x)")
    other.commit()
    other.close()
    before = path.read_bytes()
    with pytest.raises(Misconfigured, match="is not an audit index"):
        AuditIndex.open(path)
    assert path.read_bytes() == before


def test_nobody_else_may_read_the_file(tmp_path):
    assert opened(tmp_path).path.stat().st_mode & 0o777 == 0o600


def test_an_index_that_is_made_anew_is_noticed_by_those_who_read(tmp_path):
    index = opened(tmp_path)
    anyio.run(index.catch_up, ListedLog(LEAVES[:60]))
    assert index.count() == 60
    remove_index(index.path)
    AuditIndex.open(index.path, segment=8).close()
    assert index.count() == 0
    anyio.run(index.catch_up, ListedLog(LEAVES[:30]))
    assert index.count() == 30


def test_many_threads_may_ask_at_once(tmp_path):
    index = opened(tmp_path)
    anyio.run(index.catch_up, ListedLog(LEAVES))
    expected, answers = rows_of(LEAVES), []

    def ask(number):
        answers.append(index.entry(number) == expected[number])

    threads = [threading.Thread(target=partial(ask, number)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [True] * 40
    assert len(index._readers) <= 4
    index.close()


def test_what_is_not_indexed_yet_is_not_found(tmp_path):
    with pytest.raises(NotFound):
        opened(tmp_path).entry(0)


def test_a_damaged_state_says_how_to_rebuild(tmp_path):
    index = opened(tmp_path)
    anyio.run(index.catch_up, ListedLog(LEAVES))
    with sqlite3.connect(index.path) as changed:
        changed.execute("UPDATE state SET size = 149")
    changed.close()
    with pytest.raises(DamagedIndex, match="audit index rebuild"):
        index.query()


async def test_a_file_in_the_current_folder_becomes_no_module_of_the_builder(tmp_path, monkeypatch):
    """An auditor may stand in the checkout of whoever is being audited."""
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in ("msgspec", "secure_cache", "sqlite3"):
        hostile = f"open({str(tmp_path / 'ran')!r}, 'a')\nraise SystemExit"
        (checkout / f"{name}.py").write_text(hostile)
    monkeypatch.chdir(checkout)
    index = AuditIndex.open(tmp_path / "index.sqlite", segment=16)

    assert (await index.catch_up(ListedLog(LEAVES), apart=True)).size == len(LEAVES)
    assert not (tmp_path / "ran").exists()


def test_a_sandbox_that_keeps_the_builders_priority_does_not_keep_it_from_building(
    tmp_path, monkeypatch
):
    def refused(_niceness):
        raise PermissionError("not in this sandbox")

    monkeypatch.setattr(os, "nice", refused)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    assert worker.main([str(tmp_path / "index.sqlite"), "16", "19"]) == 0


async def test_a_lock_that_cannot_be_opened_is_an_error_of_ours(tmp_path):
    """Whoever follows the log for a server knows no other, and would end with it."""
    index = AuditIndex.open(tmp_path / "index.sqlite", segment=16)
    (tmp_path / "index.sqlite.lock").mkdir()

    with pytest.raises(Misconfigured, match=r"index\.sqlite\.lock"):
        await index.catch_up(ListedLog(LEAVES))
    with pytest.raises(Misconfigured, match=r"index\.sqlite\.lock"):
        remove_index(index.path)


async def test_a_process_that_cannot_be_started_is_an_error_of_ours(tmp_path, monkeypatch):
    index = AuditIndex.open(tmp_path / "index.sqlite", segment=16)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))

    with pytest.raises(StorageUnavailable, match="started"):
        await index.catch_up(ListedLog(LEAVES), apart=True)


async def test_a_full_disk_is_no_damage_and_costs_nothing_but_time(tmp_path, monkeypatch):
    """SQLite has undone the transaction by itself then; whoever is told of damage deletes it."""
    index = opened(tmp_path)
    await index.catch_up(ListedLog(LEAVES[:40]))
    connect = hands_module.connect

    def on_a_full_disk(path, *, writing):
        connection = connect(path, writing=writing)
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(hands_module, "connect", on_a_full_disk)
        with pytest.raises(StorageUnavailable, match="full"):
            await index.catch_up(ListedLog(LEAVES))
    assert index.check() == ()
    assert (await index.catch_up(ListedLog(LEAVES))).size == len(LEAVES)
    assert all_rows(index) == rows_of(LEAVES)


@pytest.mark.parametrize("newest_first", [False, True])
async def test_an_export_never_ends_early_because_the_index_is_made_anew(
    tmp_path, newest_first, monkeypatch
):
    """What the new one does not hold yet would look as if it were not in the log."""
    monkeypatch.setattr(auditor_module, "_EXPORT_ROWS", 10)
    index = opened(tmp_path)
    await index.catch_up(ListedLog(LEAVES))
    auditor = Auditor(index=index, log=ListedLog(LEAVES), policy=lambda: None, clock=time.time)
    rows = auditor.export(Filter(), PageRequest(newest_first=newest_first))
    assert len(await anext(rows)) == 10
    remove_index(index.path)
    await opened(tmp_path).catch_up(ListedLog(LEAVES[:40]))
    with pytest.raises(StorageUnavailable, match="made anew"):
        await anext(rows)
