"""`secure-cache log fsck` and `secure-cache storage`."""

import json
import shutil
from pathlib import Path

import anyio
import pytest

from secure_cache.compose.posture import prove
from secure_cache.compose.stores import open_stores, opened
from secure_cache.core.keystore import load_keystore
from secure_cache.settings import load_settings
from secure_cache.tlog.log import LogService

ENTRIES = 300
PARTIAL = "tile/0/001.p/44"


async def write_entries(config: Path, count: int) -> None:
    """As a server does, and publish all of it."""
    settings = load_settings(config, {})
    async with opened(open_stores(settings.storage)) as stores:
        await prove(stores)
        log = LogService(
            tiles=stores.tiles,
            head=stores.head,
            pending=stores.pending,
            signer=load_keystore(settings.keys).log,
            turn=stores.turn,
        )
        async with log.running():
            async with anyio.create_task_group() as group:
                for number in range(count):
                    group.start_soon(log.append, f"entry {number}".encode())
            with anyio.fail_after(30):
                while (await log.published()).size < count:  # noqa: ASYNC110 - it is a file
                    await anyio.sleep(0.02)


@pytest.fixture(scope="module")
def full(pristine, tmp_path_factory):
    directory = tmp_path_factory.mktemp("full") / "server"
    shutil.copytree(pristine, directory)
    anyio.run(write_entries, directory / "secure-cache.toml", ENTRIES)
    return directory


@pytest.fixture
def written(full, installation):
    """An installation with entries in its log."""
    shutil.rmtree(installation.directory)
    shutil.copytree(full, installation.directory)
    return installation


@pytest.fixture
def fsck(call):
    return lambda installation, *options: call(
        "log", "fsck", "--config", installation.config, *options
    )


def test_an_empty_log_is_sound(installation, fsck):
    done = fsck(installation)
    assert done.code == 0
    assert "has 0 entries" in done.out


def test_a_sound_log_is_told_with_size_and_root(written, fsck):
    done = fsck(written, "--json")
    assert done.code == 0
    said = json.loads(done.out)
    origin, size, root, *_ = (written.log / "checkpoint").read_text().split("\n")
    assert said == {
        "ok": True,
        "origin": origin,
        "size": int(size),
        "root": root,
        "entries": ENTRIES,
        "pending": 0,
        "unpublished": 0,
        "findings": [],
    }
    plain = fsck(written)
    assert f"has {ENTRIES} entries with root {root}" in plain.out


def stored(log: Path) -> list[str]:
    return sorted(
        str(path.relative_to(log))
        for path in log.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.parts[-3:])
    )


def tamper(path: Path, *, how: str) -> None:
    data = path.read_bytes()
    path.chmod(0o600)
    if how == "flip":
        path.write_bytes(data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])
    elif how == "cut":
        path.write_bytes(data[:-1])
    elif how == "append":
        path.write_bytes(data + b"\n")
    else:
        path.unlink()


@pytest.mark.parametrize("how", ["flip", "cut", "append", "delete"])
@pytest.mark.parametrize("name", ["checkpoint", "tile/0/000", PARTIAL, "tile/entries/000"])
def test_a_log_that_was_tampered_with_is_integrity(name, how, written, fsck):
    assert name in stored(written.log)
    tamper(written.log / name, how=how)
    done = fsck(written, "--json")
    assert done.code == 5
    assert "damaged or tampered" in done.err
    said = json.loads(done.out)
    assert said["ok"] is False
    # What derives from a changed entry contradicts it, so the finding stands there.
    assert {name, "checkpoint"} & {finding["path"] for finding in said["findings"]}
    assert all(finding["remedy"] for finding in said["findings"])


def test_each_difference_is_a_line(written, fsck):
    tamper(written.log / "checkpoint", how="cut")
    done = fsck(written)
    assert done.code == 5
    assert done.out.startswith("checkpoint: ")
    assert done.out.count("\n") == 1


def test_fsck_writes_nothing(written, fsck):
    before = {name: (written.log / name).stat().st_mtime_ns for name in stored(written.log)}
    fsck(written)
    tamper(written.log / "tile/0/000", how="flip")
    before["tile/0/000"] = (written.log / "tile/0/000").stat().st_mtime_ns
    fsck(written)
    assert before == {name: (written.log / name).stat().st_mtime_ns for name in stored(written.log)}


def test_another_servers_keys_do_not_vouch_for_this_log(written, fsck, call, tmp_path):
    call("init", tmp_path / "other")
    written.keys.rename(tmp_path / "mine")
    (tmp_path / "other" / "keys").rename(written.keys)
    assert fsck(written).code == 5


def test_a_store_that_is_not_there_is_not_called_damaged(installation, fsck):
    (installation.directory / "data").rename(installation.directory / "elsewhere")
    done = fsck(installation)
    assert done.code == 2
    assert str(installation.log) in done.err


def test_storage_check_tries_each_store(installation, call):
    done = call("storage", "check", "--config", installation.config)
    assert (done.code, done.out) == (0, "artifacts: ok\nrecords: ok\nlog: ok\nstate: ok\n")
    said = json.loads(call("storage", "check", "--config", installation.config, "--json").out)
    assert said == {"kind": "filesystem", "stores": ["artifacts", "records", "log", "state"]}


def test_storage_check_refuses_what_is_no_folder(installation, call):
    artifacts = installation.directory / "data" / "artifacts"
    artifacts.rename(installation.directory / "aside")
    artifacts.write_text("")
    done = call("storage", "check", "--config", installation.config)
    assert done.code == 2
    assert str(artifacts) in done.err
    assert done.err.count("\n") == 1


def test_storage_create_makes_the_folders_but_never_a_log(installation, call):
    (installation.directory / "data").rename(installation.directory / "aside")
    done = call("storage", "create", "--config", installation.config)
    assert done.code == 0
    assert stored(installation.log) == []
    assert "`secure-cache init`" in done.err


def test_azure_without_an_identity_is_refused_before_anything_is_asked(installation, call):
    text = installation.config.read_text()
    text = text.replace('path = "data"', 'container = "nx-cache"')
    text = text.replace('kind = "filesystem"', 'kind = "azure"')
    installation.config.write_text(text)
    for line in (["storage", "check"], ["storage", "create"], ["log", "fsck"]):
        done = call(*line, "--config", installation.config)
        assert done.code == 2
        assert "storage.credential is missing" in done.err
