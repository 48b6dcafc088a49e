"""What the browser itself verifies on an entry's page: the evidence, the log's past, and that
the page shows what was signed."""

import pytest
from world.browser import run_page
from world.console import SIGN_IN, console_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def console(tmp_path_factory):
    with console_server(tmp_path_factory.mktemp("console")) as running:
        yield running


VERIFY = """
  const verify = async (path) => {
    await (path ? page.goto(input.url + path) : page.reload());
    await page.waitForSelector("#verification[data-result]");
    return [
      await page.getAttribute("#verification", "data-result"),
      await page.textContent("#verify-summary"),
      await page.textContent("#verify-steps"),
    ];
  };
"""


def visit(console, script, **inputs):
    server, auditor = console
    return run_page(SIGN_IN + VERIFY + script, url=server.url, token=auditor, **inputs)


def test_what_was_tampered_with_is_red(console):
    seen = visit(
        console,
        """
  let part = "";
  await page.route("**/evidence", async (route) => {
    const answer = await route.fetch();
    const evidence = await answer.json();
    const value = evidence[part];
    const flip = (t, at) => t.slice(0, at) + (t[at] === "A" ? "B" : "A") + t.slice(at + 1);
    if (part === "leaf") evidence.leaf = flip(value, 40);
    if (part === "proof") evidence.proof = flip(value, value.indexOf("index") + 12);
    if (part === "vkeys") evidence.vkeys = [flip(value[0], value[0].length - 5)];
    if (part === "keys") evidence.keys = flip(value, value.indexOf("MCow") + 30);
    await route.fulfill({ response: answer, json: evidence });
  });
  const found = {};
  for (const name of ["leaf", "proof", "vkeys", "keys"]) {
    part = name;
    found[name] = await verify("/audit/entries/6");
  }
  return found;
""",
    )
    assert len(seen.value) == 4
    for part, (result, summary, _) in seen.value.items():
        assert result == "failed", part
        assert summary.startswith("NOT verified"), part


def test_a_log_that_was_put_back_is_seen_at_the_next_visit(console):
    """The browser remembers the newest checkpoint, and the key."""
    server, auditor = console
    visit = run_page(
        SIGN_IN
        + """
  await page.goto(input.url + "/audit/entries/6");
  await page.waitForSelector("#verification[data-result=ok]");
  const evidence = await page.evaluate(
    async () => (await fetch("/audit/entries/6/evidence")).json(),
  );
  await page.evaluate(async ([url, token]) => {
    for (let n = 0; n < 3; n += 1)
      await fetch(`${url}/v1/cache/${5000 + n}`, {
        method: "PUT", body: "x", headers: { authorization: `Bearer ${token}` },
      });
  }, [input.url, input.main]);
  await page.waitForTimeout(2500);
  await page.reload();
  await page.waitForSelector("#verification[data-result=ok]");
  const grown = await page.textContent("#verify-steps");
  await page.route("**/evidence", (route) => route.fulfill({ json: evidence }));
  await page.reload();
  await page.waitForSelector("#verification[data-result=failed]");
  return [grown, await page.textContent("#verify-steps")];
""",
        url=server.url,
        token=auditor,
        main=server.token(),
    )
    grown, put_back = visit.value
    assert "the log was only appended to" in grown
    assert "it was put back" in put_back


def test_every_kind_of_entry_is_shown_as_it_was_signed(console):
    """Also those whose claims hold what this console writes out."""
    server, auditor = console
    with server.client(auditor) as client:
        rows = client.get("/audit/v1/entries", params={"limit": 1000}).json()["entries"]
    kinds = {row["event"]: row["index"] for row in rows}
    numbers = [*kinds.values(), *(row["index"] for row in rows if row.get("key", "")[:1] == "3")]
    seen = visit(
        console,
        """
  const found = [];
  for (const number of input.numbers) found.push(await verify(`/audit/entries/${number}`));
  return found;
""",
        numbers=numbers,
    )
    assert len(numbers) >= 10
    assert {"stored", "opened", "policy"} <= set(kinds)
    for number, (result, _, steps) in zip(numbers, seen.value, strict=True):
        assert result == "ok", (number, steps)
        assert "facts and the whole statement are compared" in steps
    assert seen.complaints == []


CHANGED = {
    "tier": ('"/predicate/tier">trusted<', '"/predicate/tier">contributor<'),
    "digest": ('"/subject/0/digest/sha256">', '"/subject/0/digest/sha256">0'),
    "event": ('data-says="event">stored<', 'data-says="event">removed<'),
    "subject": ('/predicate/writer/sub">', '/predicate/writer/sub">x'),
    "the statement": ("&#34;tier&#34;: &#34;trusted&#34;", "&#34;tier&#34;: &#34;candidate&#34;"),
}


def test_a_page_that_shows_another_entry_than_was_signed_is_red(console):
    """An index that was damaged, or a cache on the way: the statement decides."""
    server, auditor = console
    with server.client(auditor) as client:
        wanted = {"tier": "trusted", "limit": 1}
        (row,) = client.get("/audit/v1/entries", params=wanted).json()["entries"]
    seen = visit(
        console,
        """
  let change = ["", ""];
  await page.route(`**${input.entry}`, async (route) => {
    const answer = await route.fetch();
    const body = await answer.text();
    const [old, now] = change;
    if (!body.includes(old)) throw new Error(`not on the page: ${old}`);
    await route.fulfill({ response: answer, body: body.replace(old, now) });
  });
  const found = { nothing: await verify(input.entry) };
  for (const [name, pair] of Object.entries(input.changes)) {
    change = pair;
    found[name] = await verify(input.entry);
  }
  return found;
""",
        changes=CHANGED,
        entry=f"/audit/entries/{row['index']}",
    )
    assert seen.value.pop("nothing")[0] == "ok"
    for name, (result, summary, steps) in seen.value.items():
        assert result == "failed", name
        assert summary.startswith("NOT verified"), name
        assert "This page shows another" in steps, name


DAMAGED = (
    "{",
    "null",
    '{"vkey": 1}',
    '{"vkey": "a", "note": "b", "date": "c"}',
    '{"vkey": "a", "note": "b", "date": "c", "witnesses": 5}',
)


def test_a_memory_that_cannot_be_read_begins_anew_and_says_so(console):
    seen = visit(
        console,
        """
  const found = {};
  for (const text of input.texts) {
    await page.goto(input.url + "/audit/search");
    await page.evaluate((value) => localStorage.setItem("secure-cache-log:/audit", value), text);
    const first = await verify("/audit/entries/6");
    found[text] = first;
  }
  return [found, await verify()];
""",
        texts=DAMAGED,
    )
    found, last = seen.value
    for text, (result, summary, steps) in found.items():
        assert result == "ok", text
        assert "begins anew" in steps, text
        assert "has changed since" in summary, text
    assert "only appended to" in last[2]
    assert seen.complaints == []


def test_an_answer_that_was_a_moment_behind_is_no_alarm(console):
    """Another tab, or a replica, has shown a newer checkpoint in the meantime."""
    server, _ = console
    seen = visit(
        console,
        """
  await verify("/audit/entries/6");
  const old = await page.evaluate(async () => (await fetch("/audit/entries/6/evidence")).json());
  await page.evaluate(async ([url, token]) => {
    await fetch(`${url}/v1/cache/6001`, {
      method: "PUT", body: "x", headers: { authorization: `Bearer ${token}` },
    });
  }, [input.url, input.main]);
  // origin, size and root, after a blank line
  const sizeOf = ({ proof }) => proof.split(/[^ -~]/).filter((line) => /^[0-9]+$/.test(line))[0];
  const now = () => page.evaluate(async () => (await fetch("/audit/entries/6/evidence")).json());
  while (sizeOf(await now()) === sizeOf(old)) await page.waitForTimeout(100);
  await verify();
  let behind = 1;
  await page.route("**/evidence", (route) =>
    behind-- > 0 ? route.fulfill({ json: old }) : route.continue(),
  );
  const one = await verify();
  await page.unroute("**/evidence");
  const other = await context.newPage();
  const both = await Promise.all(
    [page, other].map(async (tab) => {
      await tab.goto(input.url + "/audit/entries/7");
      await tab.waitForSelector("#verification[data-result]");
      return tab.getAttribute("#verification", "data-result");
    }),
  );
  return [one, behind, both];
""",
        main=server.token(),
    )
    one, behind, both = seen.value
    assert one[0] == "ok", one
    assert behind < 0
    assert both == ["ok", "ok"]


def test_a_server_that_gives_no_answer_is_neither_an_alarm_nor_good_news(console):
    seen = visit(
        console,
        """
  const found = [];
  for (const how of [(r) => r.abort(), (r) => r.fulfill({ status: 500, body: "x" })]) {
    await page.route("**/evidence", how);
    found.push(await verify("/audit/entries/6"));
    await page.unroute("**/evidence");
  }
  await page.route("**/evidence", (route) => route.fulfill({ status: 200, body: "no JSON" }));
  found.push(await verify("/audit/entries/6"));
  return found;
""",
    )
    away, broken, odd = seen.value
    assert (away[0], broken[0], odd[0]) == ("unknown", "unknown", "failed")
    assert away[1].startswith("Not verified: the server did not say")
    assert "no longer signed in" in away[2]
    assert "answered 500" in broken[2]


def test_what_is_remembered_can_be_looked_at_and_forgotten(console):
    """By keyboard. Until then another log key is an alarm, and other keys are told."""
    seen = visit(
        console,
        """
  await verify("/audit/entries/6");
  const kept = await page.evaluate(() => localStorage.getItem("secure-cache-log:/audit"));
  const { vkey, ...rest } = JSON.parse(kept);
  const others = { witnesses: ["w+00000000+AAAA"], keys: ["0".repeat(64) + " active x"] };
  await page.evaluate(
    (text) => localStorage.setItem("secure-cache-log:/audit", text),
    JSON.stringify({ vkey, ...rest, ...others }),
  );
  const told = await verify();
  const again = await verify();
  await page.route("**/evidence", async (route) => {
    const answer = await route.fetch();
    const evidence = await answer.json();
    evidence.vkeys = evidence.vkeys.map((line) => `other.${line}`);
    await route.fulfill({ response: answer, json: evidence });
  });
  const other = await verify();
  await page.unroute("**/evidence");
  await page.locator("#memory summary").focus();
  await page.keyboard.press("Enter");
  const shown = await page.textContent("#memory-facts");
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  const after = await page.evaluate(() => [
    localStorage.getItem("secure-cache-log:/audit"), document.activeElement.id,
    document.activeElement.textContent, document.getElementById("memory").hidden,
  ]);
  return { told, again, other, shown, after, first: await verify(), vkey };
""",
    )
    found = seen.value
    assert found["told"][0] == "ok"
    assert "no longer names the witness key w+00000000+AAAA" in found["told"][2]
    assert "The ring has an entry key that it did not have" in found["told"][2]
    assert "has changed since" in found["told"][1]
    assert "has changed since" not in found["again"][1]
    assert found["other"][0] == "failed"
    assert "another log key than before" in found["other"][2]
    assert found["vkey"] in found["shown"]
    forgotten, focus, text, hidden = found["after"]
    assert (forgotten, focus, hidden) == (None, "verify-summary", True)
    assert text.startswith("Forgotten")
    assert found["first"][0] == "ok"
    assert "first visit" in found["first"][2]
