"""Policy and keys from a ConfigMap and a Secret: their links, their modes, and their edits."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from fakes.cache_world import POLICY
from fakes.clock import HeldClock
from fakes.kubelet import files_of, write_volume
from tools import missing, require_tool

from secure_cache.core.key_folder import KeyFolder
from secure_cache.core.keystore import create_keystore, revoke, rotate
from secure_cache.core.policy_file import PolicyFile, PolicyFiles
from secure_cache.core.telemetry import Silent
from secure_cache.identity.presets import load_presets
from secure_cache.model.errors import Misconfigured

pytestmark = pytest.mark.anyio

NOW = 1_800_000_000
SERVER = 10001
"""The user and group of the pod; see deploy/k8s/base/deployment.yaml."""

OTHER = POLICY.replace("branch: main }", "branch: trunk }")


@pytest.fixture
def volume(tmp_path):
    path = tmp_path / "volume"
    path.mkdir(mode=0o700)
    return path


def policy_of(volume, **kwargs):
    return PolicyFile(
        PolicyFiles(volume / "policy.yaml", **kwargs),
        presets=load_presets(),
        clock=HeldClock(),
        telemetry=Silent(),
    )


def test_an_edit_of_a_mounted_policy_takes_effect(volume):
    write_volume(volume, {"policy.yaml": POLICY.encode()}, mode=0o644)
    holder = policy_of(volume)
    before = holder.current.sha256

    write_volume(volume, {"policy.yaml": OTHER.encode()}, mode=0o644)
    assert [holder.look(), holder.look()] == [False, True]
    assert holder.current.sha256 != before


def test_an_edit_of_equal_length_and_time_takes_effect_too(volume):
    """The kubelet writes a new file each time: another inode, whatever else is the same."""
    edited = POLICY.replace("branch: main }", "branch: mian }")
    stamp = (NOW, NOW)
    write_volume(volume, {"policy.yaml": POLICY.encode()}, mode=0o644)
    os.utime(volume / "policy.yaml", stamp)
    holder = policy_of(volume)
    write_volume(volume, {"policy.yaml": edited.encode()}, mode=0o644)
    os.utime(volume / "policy.yaml", stamp)

    assert [holder.look(), holder.look()] == [False, True]


def test_a_policy_that_is_taken_away_leaves_the_last_one_in_force(volume):
    write_volume(volume, {"policy.yaml": POLICY.encode()}, mode=0o644)
    holder = policy_of(volume)
    before = holder.current
    write_volume(volume, {"else.yaml": b"x"}, mode=0o644)
    holder.look()

    assert holder.current is before
    assert "policy.yaml" in holder.trouble


async def test_a_rotation_in_a_mounted_key_folder_takes_effect(volume, tmp_path):
    source = tmp_path / "keys"
    create_keystore(source, log_origin="cache.acme.example/log", now=NOW)
    write_volume(volume, files_of(source), mode=0o600, folder_mode=0o700)
    keys = KeyFolder(volume)
    old = keys.current.entry_signer(NOW + 200).keyid

    rotate(source, "entry", NOW + 100)
    write_volume(volume, files_of(source), mode=0o600, folder_mode=0o700)
    await keys.reload()
    assert keys.current.entry_signer(NOW + 200).keyid != old

    revoke(source, old, NOW + 200)
    write_volume(volume, files_of(source), mode=0o600, folder_mode=0o700)
    ring = await keys.reload()
    assert [key.keyid for key in ring.keys if key.status.value == "revoked"] == [old]


# As a user that is not root, over files of root


DROP = """
import _strptime, os, sys, tempfile, time
from pathlib import Path
from secure_cache.core import key_folder, keystore
from secure_cache.model.errors import Misconfigured
# Only now, and after what is loaded late: the interpreter may stand where only root can read.
"".encode("utf-16be")
os.setgroups([])
os.setresgid(10001, 10001, 10001)
os.setresuid(10001, 10001, 10001)
folder = Path(sys.argv[1])
"""

LOAD = """
try:
    print("read", len(keystore.load_keystore(folder).ring.keys))
except Misconfigured as error:
    print("refused:", error)
"""

ROTATE = """
try:
    keystore.rotate(folder, "entry", 1_800_000_100)
except OSError as error:
    print("refused:", error)
"""

WATCH = """
keys = key_folder.KeyFolder(folder)
print(len(keys.current.ring.keys), flush=True)
until = time.monotonic() + 30
while len(keys.current.ring.keys) == 1 and time.monotonic() < until:
    keys._look()
    time.sleep(0.05)
print(len(keys.current.ring.keys), keys.trouble, flush=True)
"""


def as_the_server(script, folder):
    """What the script says of the folder, run by the pod's user."""
    done = subprocess.run(
        [sys.executable, "-c", DROP + script, str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout.strip() or done.stderr


@pytest.fixture
def lent(tmp_path):
    """A key folder of root's, where another user can get to."""
    if os.geteuid() != 0:
        missing("root", "run the tests as root, as .ci/run does")
    # Not below pytest's own folder, which only root may enter.
    place = Path(tempfile.gettempdir()) / f"secure-cache-lent-{os.getpid()}"
    place.mkdir(mode=0o755)
    create_keystore(place / "keys", log_origin="cache.acme.example/log", now=NOW)
    yield place
    shutil.rmtree(place)


def lend(folder, *, files, folder_mode, owner=0):
    os.chown(folder, owner, SERVER)
    for path in folder.iterdir():
        os.chown(path, owner, SERVER)
        path.chmod(files)
    folder.chmod(folder_mode)


@pytest.mark.parametrize(
    ("files", "folder"), [(0o440, 0o750), (0o640, 0o750), (0o440, 0o2755), (0o440, 0o755)]
)
def test_keys_that_root_lends_to_our_group_are_read(lent, files, folder):
    lend(lent / "keys", files=files, folder_mode=folder)
    assert as_the_server(LOAD, lent / "keys") == "read 1"


@pytest.mark.parametrize(
    ("files", "folder", "remedy"),
    [
        (0o444, 0o750, "chmod 600"),
        (0o460, 0o750, "chmod 600"),
        (0o450, 0o750, "chmod 600"),
        (0o440, 0o770, "chmod 700"),
        (0o440, 0o1777, "chmod 700"),
    ],
)
def test_more_than_reading_by_a_group_is_no_loan(lent, files, folder, remedy):
    lend(lent / "keys", files=files, folder_mode=folder)
    assert remedy in as_the_server(LOAD, lent / "keys")


def test_keys_that_another_user_lends_are_refused(lent):
    lend(lent / "keys", files=0o440, folder_mode=0o750, owner=SERVER + 1)
    assert "chmod 700" in as_the_server(LOAD, lent / "keys")
    (lent / "keys").chmod(0o700)
    os.chown(lent / "keys", SERVER, SERVER)
    assert "chmod 600" in as_the_server(LOAD, lent / "keys")


def test_a_server_that_runs_as_root_borrows_nothing(lent):
    lend(lent / "keys", files=0o440, folder_mode=0o700)
    with pytest.raises(Misconfigured, match="chmod 600"):
        KeyFolder(lent / "keys")


def test_a_mounted_secret_with_an_fs_group_is_read_and_its_rotation_acts(lent):
    """The modes of a real one: root 3777, its folder 2755, files 0440, and the mount read-only."""
    require_tool("unshare", "apt-get install util-linux")
    outside, inside = lent / "outside", lent / "inside"
    for folder in (outside, inside):
        folder.mkdir()
    os.chown(outside, 0, SERVER)
    outside.chmod(0o3777)
    modes = {"mode": 0o440, "folder_mode": 0o2755, "group": SERVER}
    write_volume(outside, files_of(lent / "keys"), **modes)
    writable = as_the_server(LOAD, outside)
    assert "chmod 700" in writable, "without the read-only mount anybody could add files"

    process = subprocess.Popen(
        [
            "unshare",
            "--mount",
            "sh",
            "-euc",
            'mount --bind "$1" "$2"; mount -o remount,bind,ro "$2"; shift 2; exec "$@"',
            "sh",
            *(str(outside), str(inside)),
            *(sys.executable, "-c", DROP + WATCH, str(inside)),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "1\n"
        rotate(lent / "keys", "entry", NOW + 100)
        write_volume(outside, files_of(lent / "keys"), **modes)
        # The log stands between: its line about the change comes first.
        assert "2 None\n" in list(process.stdout)
    finally:
        process.kill()
        process.wait(20)
        process.stdout.close()


def test_a_lent_folder_is_never_changed_by_a_command(lent):
    """`keys rotate` in a pod would write where only the kubelet may."""
    lend(lent / "keys", files=0o440, folder_mode=0o750)
    before = files_of(lent / "keys")

    assert "Permission denied" in as_the_server(ROTATE, lent / "keys")
    assert files_of(lent / "keys") == before
