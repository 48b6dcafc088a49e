"""The auditor's console in a real Chromium: it works, loads nothing from elsewhere, can be used by
everybody, and what strangers wrote into claims does nothing."""

import os

import httpx
import pytest
from world.browser import run_page
from world.console import HOSTILE, SIGN_IN, console_server
from world.fronts import nginx_front

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SHIPPED = "cache.acme.example"
"""A name that the browser of these tests finds on loopback."""
PAGES = (
    "/audit/",
    "/audit/search",
    "/audit/search?tier=trusted&group=writer",
    "/audit/search?tier=root",
    "/audit/denials",
    "/audit/denials?group=code&group=rule&who=known",
    "/audit/denials?colour=red",
    "/audit/entries/5",
    "/audit/entries/0",
    "/audit/policies",
    "/audit/namespaces",
    "/audit/revocations",
    "/audit/health",
    "/audit/entries/99999",
    "/audit/nothing/here",
    "/audit/sign-in?to=search",
    "/audit/signed-in",
)


@pytest.fixture(scope="module")
def console(tmp_path_factory):
    with console_server(tmp_path_factory.mktemp("console")) as running:
        yield running


def test_every_page_works_and_is_for_everybody(console):
    server, auditor = console
    shots = os.environ.get("SECURE_CACHE_SHOTS", "")
    visit = run_page(
        SIGN_IN
        + """
  const found = {};
  const policy = await page.evaluate(async (url) => {
    const text = await (await fetch(url + "/audit/policies")).text();
    const found = new DOMParser().parseFromString(text, "text/html");
    return found.querySelector("td.mono a").getAttribute("href");
  }, input.url);
  for (const path of [...input.paths, policy]) {
    for (const scheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme: scheme });
      await page.goto(input.url + path);
      if (path.includes("/entries/") && !path.includes("99999"))
        await page.waitForSelector("#verification[data-result]");
      // What opens is looked at open.
      await page.evaluate(() => {
        for (const part of document.querySelectorAll("details")) part.open = true;
      });
      const bad = (await axe()).filter((v) => ["serious", "critical"].includes(v.impact));
      found[`${path} ${scheme}`] = { bad, h1: await page.locator("h1").count() };
      if (input.shots) {
        const name = path.replace(/[^a-z0-9]+/gi, "-").slice(0, 40) + scheme;
        await page.screenshot({ path: `${input.shots}/${name}.png`, fullPage: true });
      }
    }
  }
  await page.setViewportSize({ width: 360, height: 740 });
  const wide = [];
  for (const path of input.paths) {
    await page.goto(input.url + path);
    await page.evaluate(() => {
      for (const part of document.querySelectorAll("details")) part.open = true;
    });
    const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    if (over > 0) wide.push([path, over]);
    // Of what has a fixed form, no word is broken; of what strangers wrote, any may be.
    const broken = await page.evaluate(() => {
      const whole = /^(stored|policy|keys|opened|[0-9]{4}-[0-9-]{5}( [0-9:]{8}Z)?)$/;
      const lines = (cell) => {
        const range = document.createRange();
        range.selectNodeContents(cell);
        return new Set([...range.getClientRects()].map((rect) => rect.top)).size;
      };
      const cells = [...document.querySelectorAll("td, th")];
      return cells.filter((c) => whole.test(c.textContent.trim()) && lines(c) > 1).length;
    });
    if (broken > 0) wide.push([path, "broken words", broken]);
    if (input.shots) {
      const name = path.replace(/[^a-z0-9]+/gi, "-").slice(0, 40) + "narrow";
      await page.screenshot({ path: `${input.shots}/${name}.png`, fullPage: true });
    }
  }
  return { found, wide };
""",
        timeout=280,
        url=server.url,
        token=auditor,
        paths=PAGES,
        shots=shots,
    )
    problems = {path: page for path, page in visit.value["found"].items() if page["bad"]}
    assert problems == {}
    assert {page["h1"] for page in visit.value["found"].values()} == {1}
    assert visit.value["wide"] == []
    # Chromium itself complains of the statuses that the last two kinds of pages are meant to have.
    assert [c for c in visit.complaints if "status of 40" not in c] == []
    assert {httpx.URL(r["url"]).host for r in visit.requests if r["url"][:4] == "http"} == {
        "127.0.0.1"
    }
    assert all(auditor not in request["url"] for request in visit.requests)


def test_a_keyboard_is_enough(console):
    server, auditor = console
    visit = run_page(
        """
  await page.goto(input.url + "/audit/");
  await page.waitForURL("**/audit/sign-in");
  const reach = async (name) => {
    for (let i = 0; i < 80; i += 1) {
      await page.keyboard.press("Tab");
      const here = await page.evaluate(() => {
        const e = document.activeElement;
        return (e.labels?.[0]?.textContent ?? e.textContent ?? "").trim();
      });
      if (here === name) return;
    }
    throw new Error(`${name} cannot be reached`);
  };
  await reach("Auditor's token");
  await page.keyboard.insertText(input.token);
  await reach("Sign in");
  await page.keyboard.press("Enter");
  await page.waitForURL("**/audit/");
  await reach("Search");
  await page.keyboard.press("Enter");
  await page.waitForURL("**/audit/search");
  await reach("tier");
  await page.keyboard.type("trusted");
  await page.keyboard.press("Enter");
  await page.waitForURL(/tier=trusted/);
  const number = (await page.locator("tbody th a").first().textContent()).trim();
  await reach(number);
  await page.keyboard.press("Enter");
  await page.waitForURL("**/entries/*");
  await page.waitForSelector("#verification[data-result=ok]");
  const kept = await page.evaluate(() => [
    JSON.stringify(localStorage), document.cookie, document.documentElement.outerHTML,
  ]);
  await page.goto(input.url + "/audit/");
  await reach("Sign out");
  await page.keyboard.press("Enter");
  await page.waitForURL("**/audit/sign-in");
  await page.goto(input.url + "/audit/search");
  await page.waitForURL(/sign-in.to=search$/);
  return kept;
""",
        url=server.url,
        token=auditor,
    )
    assert visit.complaints == []
    assert all(auditor not in text for text in visit.value)
    assert auditor not in server.logs()


def test_hostile_text_is_shown_and_does_nothing(console):
    """Whatever a filter, a policy or a claim holds comes back as text."""
    server, auditor = console
    for text in HOSTILE:
        with server.client() as client:
            answer = client.get(
                "/audit/search",
                params={"subject": text[:200]},
                headers={"cookie": f"secure_cache_auditor={auditor}"},
            )
        assert answer.status_code in {200, 400}
        assert "<script>fetch" not in answer.text
        assert "<img src=x" not in answer.text
        assert "49{%" not in answer.text
    visit = run_page(
        SIGN_IN
        + """
  let alerts = 0;
  page.on("dialog", (d) => { alerts += 1; d.dismiss(); });
  for (const text of input.texts) {
    const query = new URLSearchParams({ subject: text.slice(0, 200) });
    await page.goto(input.url + "/audit/search?" + query);
  }
  await page.goto(input.url + "/audit/revocations");
  return [alerts, await page.locator("td b").count()];
""",
        url=server.url,
        token=auditor,
        texts=HOSTILE,
    )
    assert visit.value == [0, 0]
    assert [c for c in visit.complaints if "status of 40" not in c] == []


def test_a_browser_keeps_the_cookie_that_no_neighbour_can_set(console, tmp_path):
    """By https, behind the front that is shipped; and it comes back to the page that it asked."""
    server, auditor = console
    with nginx_front(tmp_path / "front", [server.port]) as front:
        visit = run_page(
            """
  await page.goto(input.url + "/audit/search?tier=trusted");
  await page.getByLabel("Auditor's token").fill(input.token);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.waitForURL("**/audit/search?tier=trusted");
  const [kept] = await context.cookies();
  await page.goto(input.url + "/audit/entries/5");
  await page.waitForSelector("#verification[data-result=ok]");
  return kept;
""",
            url=f"https://{SHIPPED}:{front.port}",
            token=auditor,
        )
    cookie = visit.value
    assert (cookie["name"], cookie["value"]) == ("__Host-secure_cache_auditor", auditor)
    assert (cookie["domain"], cookie["path"]) == (SHIPPED, "/")
    assert (cookie["httpOnly"], cookie["secure"], cookie["sameSite"]) == (True, True, "Strict")
    assert visit.complaints == []


def test_the_session_is_as_closed_as_it_can_be(console):
    server, auditor = console
    with server.client() as client:
        answer = client.post(
            "/audit/sign-in", data={"token": auditor}, headers={"origin": server.url}
        )
        assert answer.status_code == 303
        cookie = answer.headers["set-cookie"]
        for word in ("Secure", "HttpOnly", "SameSite=Strict", "Path=/audit"):
            assert word in cookie
        for headers in ({}, {"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}):
            refused = client.post("/audit/sign-in", data={"token": auditor}, headers=headers)
            assert refused.status_code == 403
            assert auditor not in refused.text
        developer = server.token(role="developer")
        refused = client.post(
            "/audit/sign-in", data={"token": developer}, headers={"origin": server.url}
        )
        assert refused.status_code == 403
        assert "audit: true" in refused.text
        # The API takes a bearer and never the cookie, so that no other page can ask it.
        asked = client.get(
            "/audit/v1/entries", headers={"cookie": f"secure_cache_auditor={auditor}"}
        )
        assert asked.status_code == 403
        for path in (*PAGES, "/audit/sign-in", "/audit/static/console.css"):
            page = client.get(path, headers={"cookie": f"secure_cache_auditor={auditor}"})
            policy = page.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert page.headers["referrer-policy"] == "same-origin"
    assert auditor not in server.logs()
