"""What `audit impact` and `policy explain --entry` say is what then happens, wherever they look."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from world.server import Server, command, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

NONE = "revocations: []"


class Desk:
    """A server, two jobs of one branch with tokens of their own, and an auditor's commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = Server(
            folder / "server", environment={"SECURE_CACHE_AUDIT__FOLLOW_SECONDS": "0.2"}
        ).start()
        self.bad, self.good = self.server.token(), self.server.token()
        self.environment = os.environ | {"SECURE_CACHE_TOKEN": self.server.token(role="auditor")}
        self.mirror = folder / "mirror"
        self.places = {
            "server": ("--server", self.server.url),
            "store": ("--store", self.server.config),
            "mirror": ("--mirror", self.mirror),
        }

    def run(self, *arguments: object, code: int = 0) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            [command(), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=self.environment,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    def copy_the_log(self) -> None:
        self.run("audit", "mirror", self.mirror, "--server", self.server.url)

    def impact(self, *arguments: object, place: str = "mirror", code: int = 0) -> dict[str, object]:
        done = self.run("audit", "impact", *arguments, *self.places[place], "--json", code=code)
        found: dict[str, object] = json.loads(done.stdout)
        return found

    def file(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def edited(self, name: str, revocation: str) -> Path:
        text = self.server.policy.read_text()
        assert NONE in text
        return self.file(name, text.replace(NONE, f"revocations:\n  - {revocation}"))


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    desk = Desk(tmp_path_factory.mktemp("impact"))
    for token, keys in ((desk.bad, "abcd"), (desk.good, "ef")):
        for key in keys:
            assert desk.server.put(token, key, f"by {key}".encode() * 9).status_code == 200
    pull_request = desk.server.token(pr=7)
    assert desk.server.put(pull_request, "9", b"of a pull request").status_code == 200
    wait_until(lambda: desk.server.checkpoint()[0] >= 10, "the log")
    desk.copy_the_log()
    yield desk
    desk.server.kill9()


@pytest.fixture(scope="module")
def family(desk):
    """Of the bad job's token, as an auditor finds it."""
    done = desk.run("audit", "query", "--key", "a", "--json", *desk.places["mirror"])
    (row,) = [json.loads(line) for line in done.stdout.splitlines()]
    return row["tid"]


def test_all_places_say_the_same_and_what_they_say_comes_true(desk, family):
    line = f"{{ id: i1, match: {{ tid: {family} }}, reason: x }}"
    alone = desk.file("i1.yaml", line)
    said = [desk.impact(alone, place=place) for place in desk.places]
    assert said[0] == said[1] == said[2]
    whole = desk.edited("next.yaml", line)
    assert desk.impact("i1", "--policy", whole) == desk.impact("--policy", whole) == said[0]
    assert (said[0]["vanishes"], said[0]["hidden_already"], said[0]["not_served"]) == (4, 0, 0)
    assert (said[0]["writers_refused"], said[0]["writers_not_refused"]) == (1, 0)
    assert said[0]["by_tier"] == {"trusted": 4}
    listed = desk.run("audit", "impact", alone, "--list", *desk.places["mirror"]).stdout
    hits = [json.loads(line) for line in listed.splitlines()]
    assert {hit["key"] for hit in hits} == set("abcd")
    assert {hit["line"] for hit in hits} == {"revocation i1"}

    before, served = (
        desk.server.policy.read_text(),
        {key: desk.server.get(desk.good, key).content for key in "ef"},
    )
    index = hits[0]["index"]
    must_explain(desk, index, whole)
    desk.server.edit_policy(lambda _: whole.read_text())
    reader = desk.server.token(pr=8)
    wait_until(lambda: desk.server.get(reader, "d").status_code == 404, "the revocation")
    assert {key: desk.server.get(desk.good, key).content for key in "ef"} == served
    assert [desk.server.get(reader, key).status_code for key in "abcd"] == [404] * 4
    assert desk.server.put(desk.bad, "77", b"x").status_code == 403

    # a second time it hides nothing more
    wait_until(lambda: told(desk) == 2, "the event of the policy")
    found = desk.impact(alone, place="server", code=1)
    assert (found["vanishes"], found["hidden_already"]) == (0, 4)

    # the key is free; who takes the revocation back shows all but what was replaced
    assert desk.server.put(desk.good, "a", b"anew").status_code == 200
    wait_until(lambda: events(desk, "removed") == 1, "the event of the replacement")
    old = desk.file("old.yaml", before)
    found = desk.impact("--policy", old, place="server", code=1)
    assert (found["vanishes"], found["appears"], found["not_served"]) == (0, 3, 1)
    told_again = desk.run("audit", "impact", "--policy", old, *desk.places["server"], code=1)
    assert "3 entries that are hidden today would be served again" in told_again.stderr


def must_explain(desk, index, whole):
    """Of one entry: today's policy serves it, the coming one will not, and which line says so."""
    today = desk.run(
        "policy", "explain", desk.server.policy, "--entry", index, *desk.places["store"]
    )
    assert "\nserved\n" in today.stdout
    done = desk.run(
        *("policy", "explain", whole, "--entry", index, "--json", *desk.places["mirror"]), code=1
    )
    found = json.loads(done.stdout)
    assert (found["served"], found["line"]) == (False, "revocation i1")
    assert "id: i1" in whole.read_text().splitlines()[found["number"] - 1]


def events(desk, kind):
    done = desk.run("audit", "query", "--event", kind, "--json", *desk.places["server"])
    return len(done.stdout.splitlines())


def told(desk):
    return events(desk, "policy")


def test_a_slip_of_the_pen_is_said_and_ends_with_1(desk):
    typo = desk.file("typo.yaml", "{ id: i2, match: { tid: nobody-has-this }, reason: x }")
    done = desk.run("audit", "impact", typo, *desk.places["mirror"], code=1)
    assert "It covers no entry at all: look for a typing error." in done.stderr
    assert "0  entries would vanish" in done.stdout


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{ id: i3, match: {}, reason: x }", "E15"),
        ("{ id: i3, match: { run: '5' }, reason: x }", "run"),
        ("revocations: []", "no revocation"),
        ("- { id: i3, match: { project: nope }, reason: x }", "there is no project"),
        ("a: [", "i3.yaml"),
    ],
)
def test_a_bad_file_says_what_is_wrong_with_it(desk, text, says):
    bad = desk.file("i3.yaml", text)
    assert says in desk.run("audit", "impact", bad, *desk.places["mirror"], code=2).stderr


def test_a_wrong_question_is_a_mistake_of_usage(desk, family):
    place = desk.places["mirror"]
    text = desk.server.policy.read_text().split("revocations:")[0]
    line = f"revocations: [{{ id: i4, match: {{ tid: {family} }}, reason: x }}]\n"
    whole = desk.file("again.yaml", text + line)
    done = desk.run("audit", "impact", "i5", "--policy", whole, *place, code=2)
    assert "has no revocation 'i5'; it has: i4" in done.stderr
    desk.run("audit", "impact", *place, code=2)
    desk.run("audit", "impact", desk.folder / "missing.yaml", *place, code=2)
    desk.run("policy", "explain", whole, "--entry", 0, *place, code=2)
    desk.run("policy", "explain", whole, "--entry", 10_000, *place, code=1)
    desk.run("policy", "explain", whole, "--entry", 1, "--claims", "{}", *place, code=2)


def test_a_changed_entry_of_the_mirror_is_no_answer_but_an_alarm(desk, tmp_path):
    mirror = tmp_path / "mirror"
    shutil.copytree(desk.mirror, mirror)
    (bundle,) = [path for path in (mirror / "tile" / "entries").rglob("*") if path.is_file()]
    data = bytearray(bundle.read_bytes())
    data[len(data) // 2] ^= 1
    bundle.chmod(0o644)
    bundle.write_bytes(data)
    alone = desk.file("i6.yaml", "{ id: i6, match: { project: demo }, reason: x }")
    desk.run("audit", "impact", alone, "--mirror", mirror, code=5)
