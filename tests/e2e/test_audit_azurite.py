"""The auditor's tools and the console over a log in Azurite: what they say does not depend on
where they look, and nothing that they ask changes the store. Each of them has a file of its own
for all that it can do, over a folder."""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from interop.go_tool import go_tool, run_tool
from world.browser import run_page
from world.console import SIGN_IN
from world.server import Server, cli, wait_until
from world.witness import vkey_of

pytestmark = [pytest.mark.azurite, pytest.mark.slow, pytest.mark.timeout(600)]

COUNT = 260
"""More than a full tile, which has a store of its own."""
LARGE = os.urandom(70_000)
"""A blob of its own; a small artifact stands behind its record."""
RULES = "version: 1\nexpect:\n  - { name: nobody, issuer: github }\n"
REVOCATION = '{ id: incident-7, match: { subject: "branch:main" }, reason: a drill }\n'


class Desk:
    """A server, and an auditor of it with a folder of his own."""

    def __init__(self, server, own):
        self.server, self.own = server, own
        own.mkdir()
        self.environment = server.reach | {
            "SECURE_CACHE_TOKEN": server.token(role="auditor"),
            "SECURE_CACHE_SERVER": server.url,
        }
        self.by_store = ("--store", server.config)

    def audit(self, *arguments, code=0):
        done = cli("audit", *arguments, environment=self.environment, timeout=120)
        assert done.returncode == code, (arguments, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done

    def store(self, prefix, count):
        token, before = self.server.token(), self.server.checkpoint()[0]
        with ThreadPoolExecutor(8) as pool:
            answers = pool.map(
                lambda n: self.server.put(token, f"{prefix}{n:03d}", b"%d" % n), range(count)
            )
            assert {answer.status_code for answer in answers} == {200}
        wait_until(lambda: self.server.checkpoint()[0] >= before + count, "the log", 60)

    def indexed(self):
        """Wait until the server's index has its whole log."""
        size = self.server.checkpoint()[0]
        newest = {"order": "newest", "limit": 1}
        with self.server.client(self.environment["SECURE_CACHE_TOKEN"]) as client:

            def whole():
                answer = client.get("/audit/v1/entries", params=newest)
                assert answer.status_code in {200, 503}, answer.text
                found = answer.json()["entries"] if answer.status_code == 200 else []
                return found and found[0]["index"] >= size - 1

            wait_until(whole, "the index to catch up", 60)


@pytest.fixture(scope="module")
def desk(storage, tmp_path_factory):
    folder = tmp_path_factory.mktemp("audited")
    server = Server(folder / "server", workers=2, storage=storage, follow_seconds=0.2)
    try:
        server.start()
        desk = Desk(server, folder / "auditor")
        assert server.put(server.token(), "77", LARGE).status_code == 200
        assert server.put(server.token(pr=7), "78", b"of a pull request").status_code == 200
        desk.store("1", COUNT)
        size = server.checkpoint()[0]
        server.edit_policy(lambda text: text + "log: { public: true }\n")
        wait_until(lambda: server.checkpoint()[0] > size, "the new policy's event")
        desk.indexed()
        yield desk
    finally:
        server.remove()


def test_server_stores_and_mirror_say_the_same_and_the_stores_stay_as_they_are(desk):
    server, own = desk.server, desk.own
    (own / "artifact").write_bytes(LARGE)
    (own / "rules.yaml").write_text(RULES)
    (own / "revocation.yaml").write_text(REVOCATION)
    desk.audit("mirror", own / "mirror", "--server", server.url)
    found = run_tool(go_tool("tlogcheck"), "-vkey", vkey_of(server), own / "mirror")
    assert found.returncode == 0, found.stderr
    questions = {
        ("query", "--json", "--limit", 1000): 0,
        ("policies", "--json"): 0,
        ("impact", own / "revocation.yaml", "--json"): 0,
        ("monitor", own / "rules.yaml", "--from", "start", "--state", own / "state"): 1,
    }

    def ask(*place):
        answers = []
        for question, code in questions.items():
            answers.append(desk.audit(*question, *place, code=code).stdout)
            (own / "state").unlink(missing_ok=True)
        return answers

    by_server = ask("--server", server.url)
    shown = json.loads(desk.audit("show", 200, "--json").stdout)
    # Nobody else writes, so that whatever changes is the auditor's doing.
    server.stop()
    try:
        before = server.stored.versions()
        by_store = ask(*desk.by_store)
        shown_by_store = json.loads(desk.audit("show", 200, "--json", *desk.by_store).stdout)
        verified = json.loads(
            desk.audit("verify", own / "artifact", "--json", *desk.by_store).stdout
        )
        desk.audit("mirror", own / "other", *desk.by_store)
        desk.audit("prove", 200, "--out", own, "--log-key", vkey_of(server), *desk.by_store)
        desk.audit("compare", own / "mirror/checkpoint", *desk.by_store)
        desk.audit("index", "check", "--log", "--config", server.config)
        desk.audit("index", "rebuild", "--config", server.config)
        assert server.stored.versions() == before
    finally:
        server.start()

    assert by_server == by_store == ask("--mirror", own / "other")
    rows = [json.loads(line) for line in by_server[0].splitlines()]
    assert [row["index"] for row in rows] == list(range(len(rows)))
    assert len(rows) >= COUNT + 6
    assert "loosened" in by_server[1]
    assert json.loads(by_server[2])["vanishes"] == COUNT + 1
    assert by_server[3].count("unknown-issuer") == COUNT + 2
    assert shown["envelope"] == shown_by_store["envelope"]
    assert shown["state"] == shown_by_store["state"]
    assert shown["state"]["state"] == "served"
    (entry,) = verified["entries"]
    assert (entry["key"], entry["namespace"]) == ("77", "demo:branch/main")
    for name in ("tile/entries/000", "tile/0/000"):
        assert (own / "mirror" / name).read_bytes() == (own / "other" / name).read_bytes()
    proof = own / "200.tlog-proof"
    found = run_tool(
        go_tool("tlogcheck"),
        *("-vkey", vkey_of(server), "-proof", proof, "-leaf", proof.with_suffix(".leaf")),
    )
    assert found.returncode == 0, found.stderr


def test_the_console_shows_it_and_a_browser_verifies_it(desk):
    visit = run_page(
        SIGN_IN
        + """
  const found = {};
  for (const path of ["", "search?tier=trusted", "policies", "namespaces", "denials", "health"]) {
    const answer = await page.goto(`${input.url}/audit/${path}`);
    found[path] = [answer.status(), await page.textContent("main")];
  }
  await page.goto(`${input.url}/audit/search?key=77`);
  await page.locator("tbody th a").first().click();
  await page.waitForSelector("#verification[data-result]");
  found.entry = [
    await page.getAttribute("#verification", "data-result"),
    await page.textContent("main"),
  ];
  return found;
""",
        url=desk.server.url,
        token=desk.environment["SECURE_CACHE_TOKEN"],
    )
    result, shown = visit.value.pop("entry")
    assert result == "ok", shown
    assert "demo:branch/main" in shown
    assert {status for status, _ in visit.value.values()} == {200}
    assert "demo:branch/main" in visit.value["namespaces"][1]
    assert visit.complaints == []


def test_a_log_that_was_put_back_and_went_on_otherwise_is_proved(make_server, tmp_path):
    """The account's owner restores yesterday's blobs, and the index with them."""
    server = make_server(follow_seconds=0.2).start()
    desk = Desk(server, tmp_path / "auditor")
    (desk.own / "rules.yaml").write_text(RULES)
    monitor = ("monitor", desk.own / "rules.yaml", "--state", desk.own / "state", *desk.by_store)
    desk.store("1", 2)
    server.stop()
    yesterday = server.copy(tmp_path / "yesterday")
    server.start()
    desk.store("2", 5)
    desk.audit("mirror", desk.own / "mirror")
    desk.audit(*monitor)
    kept = desk.own / "mirror/checkpoint"
    seen = kept.read_bytes()

    server.stop()
    server.put_back(yesterday)
    server.start()
    said = desk.audit("mirror", desk.own / "mirror", *desk.by_store, code=5).stderr
    assert "put back to an older state" in said
    (alert,) = map(json.loads, desk.audit(*monitor, code=5).stdout.splitlines())
    assert alert["alert"] == "history-changed"

    desk.store("3", 9)
    said = desk.audit("mirror", desk.own / "mirror", *desk.by_store, code=5).stderr
    assert "contradict" in said
    assert kept.read_bytes() == seen
    desk.audit("compare", kept, "--out", desk.own / "forked", code=5)
    proof = desk.own / "forked/contradiction.json"
    key = vkey_of(server)
    assert "proved" in desk.audit("compare", "--evidence", proof, "--log-key", key).stdout
