"""Somebody has changed something: which tool notices it, with which exit code, in which words.

The drills stand in docs/audit.md, section 10, and are taken from there, so that the two cannot
differ. Each damages a copy of one installation, or of what an auditor keeps of it, and runs the
real command. Over a folder: what a tool says of damage does not depend on where it was read.
"""

import shutil
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from world.server import Server, cli, free_port, wait_until

from secure_cache.model.names import Key, Namespace
from secure_cache.storage import layout

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "audit.md"
KEY = "77"
BODY = bytes(range(250)) * 400
"""Large enough to be a file of its own."""
PROVED = 200


@dataclass(frozen=True)
class Drill:
    """A row of the document."""

    damage: str
    tool: str
    code: str
    said: str


def documented() -> list[Drill]:
    """Where a row names no damage, it is the one above it."""
    section = DOCUMENT.read_text().partition("\n## 10. ")[2].partition("\n## ")[0]
    drills: list[Drill] = []
    for line in section.replace("`", "").splitlines():
        if line.startswith("|"):
            damage, tool, code, said = (cell.strip() for cell in line.strip("|").split("|"))
            drills.append(Drill(damage or drills[-1].damage, tool, code, said))
    return drills[2:]


DRILLS = documented()


@dataclass(frozen=True)
class Scene:
    """An installation, and what an auditor has of it.

    Attributes:
        server: its folder; `data` in it is what the drills exchange.
        yesterday: its data, some entries ago.
        today: its data. The auditor has seen this.
        forked: its data, after yesterday's was put back and went on otherwise.
        kept: of the auditor: a mirror, a proof, the state of a monitor, evidence of a fork.
    """

    server: Server
    yesterday: Path
    today: Path
    forked: Path
    kept: Path


def ok(*arguments: object) -> str:
    done = cli(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def store(server: Server, prefix: str, count: int) -> None:
    token, before = server.token(), server.checkpoint()[0]
    with ThreadPoolExecutor(8) as pool:
        puts = [
            pool.submit(server.put, token, f"{prefix}{n:03d}", f"{prefix} {n}".encode())
            for n in range(count)
        ]
        assert {put.result().status_code for put in puts} == {200}
    wait_until(lambda: server.checkpoint()[0] >= before + count, "the log")


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drills")
    server = Server(folder / "server")
    try:
        yield _made(server, folder)
    finally:
        server.kill9()


def _made(server: Server, folder: Path) -> Scene:
    kept = folder / "kept"
    kept.mkdir()
    (kept / "rules.yaml").write_text(
        "version: 1\nexpect:\n  - { name: ours, issuer: self }\nmax_age: 30d\n"
    )
    server.start()
    assert server.put(server.token(), KEY, BODY).status_code == 200
    store(server, "1", 258)
    server.stop()
    yesterday = Path(shutil.copytree(server.data, folder / "yesterday"))

    server.start()
    store(server, "2", 5)
    server.stop()
    config = server.config
    ok("audit", "index", "rebuild", "--config", config)
    ok("audit", "mirror", kept / "mirror", "--store", config)
    ok("audit", "prove", PROVED, "--out", kept, "--store", config)
    ok("audit", "monitor", kept / "rules.yaml", "--state", kept / "state.json", "--store", config)
    vkey = ok("keys", "show", "--vkey", "--config", config)
    (kept / "log.vkey").write_text(vkey)
    today = Path(shutil.copytree(server.data, folder / "today"))

    put_back(server, yesterday)
    server.start()
    store(server, "3", 9)
    server.stop()
    seen = kept / "mirror/checkpoint"
    done = cli("audit", "compare", seen, "--store", config, "--out", kept)
    assert done.returncode == 5, done.stderr
    forked = Path(shutil.copytree(server.data, folder / "forked"))
    return Scene(server, yesterday, today, forked, kept)


def put_back(server: Server, data: Path) -> None:
    shutil.rmtree(server.data)
    shutil.copytree(data, server.data)


class Desk:
    """Today's installation, and the auditor's things, to be damaged; and the tools."""

    def __init__(self, scene: Scene, folder: Path) -> None:
        self.scene = scene
        put_back(scene.server, scene.today)
        self.data = scene.server.data
        self.kept = Path(shutil.copytree(scene.kept, folder / "kept"))
        self.mirror = self.kept / "mirror"
        self._new = folder / "new"

    def file(self, pattern: str) -> Path:
        """Of partial tiles the widest is the one that counts."""
        return max(self.data.glob(pattern), key=lambda path: (len(path.name), path.name))

    def run(self, tool: str) -> tuple[str, str]:
        """How a tool of the document ends, and what it says."""
        if tool == "a build":
            return self._build()
        config, vkey = self.scene.server.config, self.kept / "log.vkey"
        done = cli(
            *{
                "log fsck": ["log", "fsck", "--config", config],
                "serve": ["serve", "--config", config, "--port", free_port()],
                "audit mirror": ["audit", "mirror", self.mirror, "--store", config],
                "audit mirror, begun anew": ["audit", "mirror", self._new, "--store", config],
                "audit mirror --check": ["audit", "mirror", self.mirror, "--check"],
                "audit query": ["audit", "query", "--store", config],
                "audit query --mirror": ["audit", "query", "--mirror", self.mirror],
                "audit index check": ["audit", "index", "check", "--config", config],
                "audit prove": [*PROVE, self._new, "--store", config],
                "audit prove --mirror": [*PROVE, self._new, "--mirror", self.mirror],
                "audit verify-proof": [
                    *("audit", "verify-proof", self.kept / f"{PROVED}.tlog-proof"),
                    *("--log-key", vkey),
                ],
                "audit compare": [
                    "audit",
                    "compare",
                    self.mirror / "checkpoint",
                    "--store",
                    config,
                ],
                "audit compare --evidence": [
                    *("audit", "compare", "--evidence", self.kept / "contradiction.json"),
                    *("--log-key", vkey),
                ],
                "audit monitor": [
                    *("audit", "monitor", self.kept / "rules.yaml", "--store", config),
                    *("--state", self.kept / "state.json"),
                ],
            }[tool]
        )
        assert "Traceback" not in done.stderr
        return str(done.returncode), done.stdout + done.stderr

    def _build(self) -> tuple[str, str]:
        server = self.scene.server
        logged = len(server.events())
        server.start()
        try:
            answer = server.get(server.token(), KEY)
        finally:
            server.stop()
        events = [event.get("event") for event in server.events()[logged:]]
        reason = answer.headers.get("X-Secure-Cache-Reason")
        # As the document puts it.
        said = [
            f"X-Secure-Cache-Reason: {reason}, and in the server's log {name}" for name in events
        ]
        return str(answer.status_code), "\n".join(said)


PROVE = ("audit", "prove", PROVED, "--out")


def bit(find: Callable[[Desk], Path]) -> Callable[[Desk], None]:
    """One bit in the middle of a file."""

    def damage(desk: Desk) -> None:
        path = find(desk)
        # Stored files are read-only, which stops nobody who owns them.
        path.chmod(0o600)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)

    return damage


def row(find: Callable[[Desk], Path]) -> Callable[[Desk], None]:
    """A row of an index, as somebody does it who would hide what he wrote."""

    def damage(desk: Desk) -> None:
        connection = sqlite3.connect(find(desk))
        connection.execute("UPDATE entries SET tier = 'candidate' WHERE number = 9")
        connection.commit()
        connection.close()

    return damage


def bit_of_a_hash(desk: Desk) -> None:
    """One bit in a base64 digit, so that it is another digit."""
    path = desk.kept / f"{PROVED}.tlog-proof"
    data = bytearray(path.read_bytes())
    start = data.index(b"index")
    at = next(n for n in range(start + 12, len(data)) if data[n] in b"bdfhjlnprtvxBDFHJLNPRTVX")
    data[at] ^= 1
    path.write_bytes(data)


def record(desk: Desk) -> Path:
    return desk.data / "records" / layout.record(Namespace.parse("demo:branch/main"), Key(KEY))


def put_back_whole(desk: Desk) -> None:
    put_back(desk.scene.server, desk.scene.yesterday)


def put_back_the_log(desk: Desk) -> None:
    shutil.rmtree(desk.data / "log")
    shutil.copytree(desk.scene.yesterday / "log", desk.data / "log")


def a_second_writer(desk: Desk) -> None:
    put_back(desk.scene.server, desk.scene.forked)


def the_log_of_a_second_writer(desk: Desk) -> None:
    shutil.rmtree(desk.data / "log")
    shutil.copytree(desk.scene.forked / "log", desk.data / "log")


DAMAGES: dict[str, Callable[[Desk], None]] = {
    "one bit in a full tile": bit(lambda desk: desk.file("log/tile/0/000")),
    "one bit in a partial tile": bit(lambda desk: desk.file("log/tile/0/001.p/*")),
    "one bit in a full bundle": bit(lambda desk: desk.file("log/tile/entries/000")),
    "one bit in a partial bundle": bit(lambda desk: desk.file("log/tile/entries/001.p/*")),
    "one bit in the checkpoint": bit(lambda desk: desk.file("log/checkpoint")),
    "one bit in the head": bit(lambda desk: desk.file("log/head")),
    "one bit in a record": bit(record),
    "one bit in an artifact": bit(lambda desk: desk.file("artifacts/*/*")),
    "a row of the index, by hand": row(lambda desk: desk.file("audit/index.sqlite")),
    "one bit in a tile of a mirror": bit(lambda desk: desk.mirror / "tile/0/000"),
    "one bit in a bundle of a mirror": bit(lambda desk: desk.mirror / "tile/entries/000"),
    "one bit in a mirror's checkpoint": bit(lambda desk: desk.mirror / "checkpoint"),
    "one bit in mirror.json": bit(lambda desk: desk.mirror / "mirror.json"),
    "a row of a mirror's index, by hand": row(lambda desk: desk.mirror / "index.sqlite"),
    "the log put back to yesterday's": put_back_the_log,
    "all data put back to yesterday's": put_back_whole,
    "a second writer's log, with the same key": the_log_of_a_second_writer,
    "a second writer's data, with the same key": a_second_writer,
    "nothing: evidence of a second writer": lambda _desk: None,
    "one bit in a proof": bit_of_a_hash,
    "one bit in a leaf": bit(lambda desk: desk.kept / f"{PROVED}.leaf"),
    "one bit in evidence": bit(lambda desk: desk.kept / "contradiction.json"),
}


@pytest.mark.parametrize("drill", DRILLS, ids=lambda drill: f"{drill.damage}, {drill.tool}")
def test_it_is_noticed_by_the_tool_whose_job_it_is(scene, tmp_path, drill):
    desk = Desk(scene, tmp_path)
    DAMAGES[drill.damage](desk)
    code, said = desk.run(drill.tool)
    assert code == drill.code, said
    assert drill.said in " ".join(said.replace("`", "").split())


def test_the_document_has_all_drills():
    assert {drill.damage for drill in DRILLS} == DAMAGES.keys()


def test_what_is_not_damaged_raises_no_alarm(scene, tmp_path):
    desk = Desk(scene, tmp_path)
    for tool in dict.fromkeys(drill.tool for drill in DRILLS if drill.tool != "serve"):
        code, said = desk.run(tool)
        assert code == ("200" if tool == "a build" else "0"), (tool, said)
