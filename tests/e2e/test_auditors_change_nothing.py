"""Nothing that an auditor runs changes what he audits: store, keys, policy and settings stay as
they are, byte for byte, and nothing is even made there and removed again.

Over a folder, where also the times of folders tell; over Azurite it is in test_audit_azurite.py.
"""

import os
import re
import shutil
import stat
from pathlib import Path

import pytest
from world.server import Server, cli, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

ALL = (
    "keys",
    "policy.yaml",
    "secure-cache.toml",
    *(f"data/{name}" for name in ("artifacts", "records", "log", "state")),
)
"""All but `data/audit`: the index is derived, and whoever asks the stores brings it up to date."""

NOT_ITS_OWN = (*ALL[:5], "data/log/tile", "data/log/checkpoint")
"""What a server that runs does not tidy by itself."""

REVOCATION = """\
id: incident-7
match: { subject: "branch:main" }
reason: a drill
"""
RULES = """\
version: 1
expect:
  - { name: nobody, issuer: github }
"""


def snapshot(folder: Path, names: tuple[str, ...]) -> dict[Path, tuple[object, ...]]:
    """Everything: also the times of folders, which tell of files that came and went."""
    found = {}
    for top in (folder / name for name in names):
        for path in (top, *top.rglob("*")):
            status = path.lstat()
            data = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
            found[path] = (status.st_mode, status.st_mtime_ns, status.st_ctime_ns, data)
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(
        tmp_path_factory.mktemp("audited") / "server",
        environment={"SECURE_CACHE_AUDIT__FOLLOW_SECONDS": "0.2"},
    ).start()
    token = server.token()
    for number in range(4):
        assert server.put(token, f"10{number}", os.urandom(70_000)).status_code == 200
    server.edit_policy(lambda text: text + "# edited\n")
    # It began with three events: opened, keys, policy.
    wait_until(lambda: server.checkpoint()[0] == 3 + 4 + 1, "the new policy's event")
    yield server
    server.kill9()


def commands(server: Server, place: tuple[object, ...], own: Path) -> list[tuple[object, ...]]:
    """Each command of `audit`, in each of its forms; `own` is the auditor's folder."""
    own.mkdir()
    (own / "revocation.yaml").write_text(REVOCATION)
    (own / "rules.yaml").write_text(RULES)
    (own / "artifact").write_bytes(b"never served")
    next_policy = server.policy.read_text().replace(
        "revocations: []", f"revocations: [{{{', '.join(REVOCATION.splitlines())}}}]"
    )
    (own / "next.yaml").write_text(next_policy)
    vkey = cli("keys", "show", "--vkey", "--config", server.config).stdout.strip()
    seen = own / "mirror/checkpoint"
    asked = [
        ("query", "--json", *place),
        ("query", "--group", "writer", *place),
        ("show", "4", *place),
        ("policies", *place),
        ("policies", "--diff", "1", "2", *place),
        ("prove", "4", "--bundle", "--out", own, *place),
        ("verify-proof", own / "4.tlog-proof", "--log-key", vkey),
        ("verify", own / "artifact", *place),
        ("impact", own / "revocation.yaml", "--list", *place),
        ("impact", "incident-7", "--policy", own / "next.yaml", *place),
        ("impact", "--policy", own / "next.yaml", *place),
        ("mirror", own / "mirror", *place),
        ("mirror", own / "mirror", "--repair", *place),
        ("mirror", own / "mirror", "--check"),
        ("compare", seen, *place),
        ("compare", seen, seen, "--out", own, *place),
        ("monitor", own / "rules.yaml", "--state", own / "state", "--from", "start", *place),
    ]
    if "--store" in place:
        asked += [
            ("query", "--index", own / "index", *place),
            ("index", "check", "--log", "--config", server.config),
            ("index", "rebuild", "--config", server.config),
        ]
    return asked


ANSWERS_NO = {"verify", "monitor"}
"""A file that was never served; alerts."""


def ask(server: Server, place: tuple[object, ...], own: Path, names: tuple[str, ...]) -> set[str]:
    """Run them all, and look at what is called `names` after each; gives the commands' names."""
    auditor = {"SECURE_CACHE_TOKEN": server.token(role="auditor")}
    asked = commands(server, place, own)
    before = snapshot(server.directory, names)
    for command in asked:
        done = cli("audit", *command, environment=auditor)
        expected = 1 if command[0] in ANSWERS_NO else 0
        assert done.returncode == expected, (command, done.stdout, done.stderr)
        after = snapshot(server.directory, names)
        changed = [
            path for path in before.keys() | after.keys() if before.get(path) != after.get(path)
        ]
        assert not changed, command
    return {str(command[0]) for command in asked}


def test_over_a_server_no_command_changes_it(server, tmp_path):
    ask(server, ("--server", server.url), tmp_path / "own", NOT_ITS_OWN)


def test_over_the_stores_no_command_changes_them(server, tmp_path):
    server.stop()
    try:
        shutil.rmtree(server.data / "audit")
        asked = ask(server, ("--store", server.config), tmp_path / "own", ALL)
    finally:
        server.start()
    listed = cli("audit", "--help").stdout.partition("Commands:")[2]
    assert asked == set(re.findall(r"^  ([\w-]+) ", listed, re.MULTILINE))
