"""`secure-cache init`: a whole server, or nothing."""

import os
import stat
from pathlib import Path

import pytest

from secure_cache.compose.init import LOCAL_URL, initialise, policy_for, template
from secure_cache.core.keystore import load_keystore
from secure_cache.identity.presets import load_presets
from secure_cache.model.errors import Misconfigured
from secure_cache.policy.parse import parse_policy
from secure_cache.settings import load_settings

POLICIES = Path(__file__).resolve().parents[2] / "policies"


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_it_makes_settings_policy_keys_and_a_store(call, tmp_path):
    done = call("init", tmp_path / "server")
    assert done.code == 0
    assert done.out == f"{tmp_path / 'server'}\n"
    assert {path.name for path in (tmp_path / "server").iterdir()} == {
        "secure-cache.toml",
        "policy.yaml",
        "keys",
        "data",
    }
    settings = load_settings(tmp_path / "server" / "secure-cache.toml", {})
    assert settings.policy == tmp_path / "server" / "policy.yaml"
    assert settings.storage.path == tmp_path / "server" / "data"
    assert load_keystore(settings.keys).log.name in done.err


def test_it_says_what_to_do_next(call, tmp_path):
    done = call("init", tmp_path / "a server")
    config = tmp_path / "a server" / "secure-cache.toml"
    assert f"secure-cache serve --config '{config}'" in done.err
    assert "secure-cache token issue" in done.err


def test_nobody_else_may_read_any_of_it(call, tmp_path):
    call("init", tmp_path / "server")
    folder = tmp_path / "server"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "keys").stat().st_mode) == 0o700
    private = [folder / "secure-cache.toml", folder / "policy.yaml", *(folder / "keys").iterdir()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}


def test_a_lax_umask_makes_nothing_readable(call, tmp_path):
    before = os.umask(0)
    try:
        assert call("init", tmp_path / "server").code == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "server").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "server" / "policy.yaml").stat().st_mode) == 0o600


@pytest.mark.parametrize("what", ["server", "folder", "file", "link", "dangling link"])
def test_it_never_overwrites(what, call, tmp_path):
    target = tmp_path / "target"
    if what == "server":
        call("init", target)
    elif what == "folder":
        target.mkdir()
        (target / "mine").write_text("mine")
    elif what == "file":
        target.write_text("mine")
    else:
        (tmp_path / "elsewhere").mkdir()
        target.symlink_to(tmp_path / ("elsewhere" if what == "link" else "nowhere"))
    before = tree(tmp_path)
    done = call("init", target)
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith(f"secure-cache: {target} is there already")
    assert done.err.count("\n") == 1
    assert tree(tmp_path) == before


def test_an_empty_folder_and_missing_parents_are_fine(call, tmp_path):
    (tmp_path / "empty").mkdir()
    assert call("init", tmp_path / "empty").code == 0
    assert call("init", tmp_path / "a" / "b" / "c").code == 0


@pytest.mark.parametrize("call_number", [1, 2])
def test_a_failure_in_the_middle_leaves_nothing(call_number, tmp_path):
    calls = 0

    def failing_random(size):
        nonlocal calls
        calls += 1
        if calls == call_number:
            raise KeyboardInterrupt
        return os.urandom(size)

    with pytest.raises(KeyboardInterrupt):
        initialise(tmp_path / "server", url=None, clock=lambda: 1e9, random_bytes=failing_random)
    assert list(tmp_path.iterdir()) == []


def test_a_parent_that_cannot_hold_it_is_told(call, tmp_path):
    (tmp_path / "file").write_text("")
    done = call("init", tmp_path / "file" / "server")
    assert done.code == 2
    assert str(tmp_path / "file" / "server") in done.err
    assert done.err.count("\n") == 1


def test_the_public_address_becomes_audience_and_names_the_log(call, tmp_path):
    done = call("init", tmp_path / "s", "--url", "https://Cache.Example.com:8443/nx/")
    assert done.code == 0
    audience = "https://cache.example.com:8443/nx"
    assert f"\naudience: {audience}\n" in (tmp_path / "s" / "policy.yaml").read_text()
    origin = load_keystore(tmp_path / "s" / "keys").log.name
    assert origin == "cache.example.com:8443/nx/log"
    assert (tmp_path / "s" / "data" / "log" / "checkpoint").read_text().startswith(f"{origin}\n0\n")


@pytest.mark.parametrize(
    "url",
    [
        "http://cache.example.com",
        "cache.example.com",
        "https://",
        "https://user:secret@cache.example.com",
        "https://cache.example.com/?a=b",
        "https://cache.example.com/#a",
        "https://cache.example.com/a b",
        "https://cache.example.com/\nissuers: {}",
        "https://[::1",
        "https://cache.example.com+evil",
    ],
)
def test_an_address_that_cannot_be_an_audience_is_refused(url, call, tmp_path):
    done = call("init", tmp_path / "server", "--url", url)
    assert done.code == 2
    assert "https://cache.example.com" in done.err
    assert done.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_two_servers_without_an_address_have_logs_of_different_names(call, tmp_path):
    names = set()
    for name in ("a", "b"):
        call("init", tmp_path / name)
        names.add(load_keystore(tmp_path / name / "keys").log.name)
    assert len(names) == 2


def test_the_packaged_policy_is_the_documented_one():
    assert template() == (POLICIES / "self-issued.yaml").read_text()


def test_the_policy_that_it_writes_is_clean_and_does_what_the_contract_says():
    policy = parse_policy(
        policy_for("https://cache.example.com").encode(),
        name="policy.yaml",
        presets=load_presets(),
        now=1.8e9,
        tests=(POLICIES / "self-issued_test.yaml").read_bytes(),
    )
    assert policy.warnings == ()
    assert policy.audience == "https://cache.example.com"
    assert policy.projects == ("demo",)
    assert policy.document.revocations == ()
    assert f"\naudience: {LOCAL_URL}\n" in template()
    assert "\nrevocations: []\n" in template()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--container", "nx-cache"], "--container go with --storage azure"),
        (["--separate-containers"], "--separate-containers go with --storage azure"),
        (["--storage", "azure"], "needs --container"),
        (["--storage", "azure", "--container", "nx-cache"], "storage.credential is missing"),
        (
            ["--storage", "azure", "--container", "NX", "--account-name", "a"],
            "storage.container = 'NX'",
        ),
        (
            ["--storage", "azure", "--container", "nx-cache", "--account-name", "a.b"],
            "storage.accountName = 'a.b'",
        ),
        (
            ["--storage", "azure", "--container", "nx-cache", "--credential", "azure-cli"],
            "storage.accountName",
        ),
    ],
)
def test_options_of_azure_that_do_not_suffice_are_refused_and_leave_nothing(
    options, said, call, tmp_path
):
    done = call("init", tmp_path / "s", *options)
    assert done.code == 2
    assert said in done.err
    assert done.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_mount_point_is_told_apart(tmp_path, monkeypatch):
    rename = Path.rename

    def busy(path, target):
        if target == tmp_path / "s":
            raise OSError(16, "Device or resource busy")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", busy)
    with pytest.raises(Misconfigured, match="mount point: give a folder inside it"):
        initialise(tmp_path / "s", url=None, clock=lambda: 1e9, random_bytes=os.urandom)
    assert list(tmp_path.iterdir()) == []
