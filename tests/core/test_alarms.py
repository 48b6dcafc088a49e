"""What fails verification is a miss to the reader, and an alarm to the operator."""

import io
import json

import pytest
import structlog
from fakes.cache_world import cache_world

from secure_cache.core.budget import Budget
from secure_cache.model.errors import CorruptObject, NotFound
from secure_cache.observability.logging import configure_logging
from secure_cache.observability.metrics import Metrics
from secure_cache.storage import layout
from secure_cache.storage.filesystem import FilesystemStore

pytestmark = pytest.mark.anyio

LARGE = b"x" * 200_000


@pytest.fixture
def log():
    stream = io.StringIO()
    before = structlog.get_config()
    configure_logging(style="json", level="warning", stream=stream)
    yield stream
    structlog.configure(**before)


async def damage(store, name):
    stored = await store.inner.get(name, max_bytes=1 << 20)
    changed = stored.data[:50] + bytes([stored.data[50] ^ 1]) + stored.data[51:]
    await store.inner.replace(name, changed, expected=stored.info.version)


@pytest.mark.parametrize(
    ("where", "event", "kind"),
    [("records", "record.corrupt", "record"), ("artifacts", "artifact.quarantined", "digest")],
)
async def test_what_does_not_verify_is_told_and_counted(log, where, event, kind):
    async with cache_world() as world:
        metrics = world.catalog._telemetry = Metrics()
        main = world.caller(branch="main")
        entry = await world.store(main, "1", LARGE)
        name = {
            "records": layout.record(entry.namespace, entry.key),
            "artifacts": layout.artifact(entry.entry_id, entry.stored_at),
        }[where]
        await damage(world.stores[where], name)
        with pytest.raises(CorruptObject):
            await world.fetch(main, "1")

    (line,) = [json.loads(line) for line in log.getvalue().splitlines()]
    assert (line["event"], line["level"]) == (event, "error")
    assert (line["namespace"], line["key"]) == ("demo:branch/main", "1")
    assert line["why"]
    text = metrics.render()[1].decode()
    assert f'secure_cache_verification_failed_total{{kind="{kind}"}} 1.0' in text


async def test_damage_of_an_artifact_that_is_proved_piece_by_piece_is_told_once(log, tmp_path):
    store = FilesystemStore(tmp_path / "artifacts")
    await store.check()
    async with cache_world() as world:
        world.stores["artifacts"] = store
        world._assemble_over_the_same_log()
        main = world.caller(branch="main")
        entry = await world.store(main, "1", LARGE)
        path = tmp_path / "artifacts" / layout.artifact(entry.entry_id, entry.stored_at)
        path.chmod(0o600)
        path.write_bytes(b"y" * len(LARGE))
        with pytest.raises(CorruptObject):
            await world.fetch(main, "1")

    (line,) = [json.loads(line) for line in log.getvalue().splitlines()]
    assert line["event"] == "artifact.quarantined"


async def test_a_record_that_goes_while_it_is_read_is_a_miss_and_no_alarm(log):
    async with cache_world() as world:
        main = world.caller(branch="main")
        entry = await world.store(main, "1", b"small")
        name = layout.record(entry.namespace, entry.key)
        world._assemble_over_the_same_log()
        # Without memory for small artifacts: the record is read first, and then its artifact.
        world.catalog._behind = Budget(0)
        records = world.stores["records"]
        gets = []

        def gone_at_the_second_look(operation):
            if operation.kind == "get":
                gets.append(operation)
                if len(gets) == 2:
                    del records.inner._objects[name]

        records.plan = gone_at_the_second_look
        with pytest.raises(NotFound):
            await world.fetch(main, "1")

    assert log.getvalue() == ""
