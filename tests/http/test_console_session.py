"""Signing in to the console: who may, what the browser keeps, and what ends it."""

import json
from urllib.parse import urlencode

import pytest
import structlog.testing
from fakes.app_world import AppWorld
from fakes.audit_desk import FAST, stored
from fakes.console_visitor import COOKIE, FROM_HERE, Page, visiting, why
from fakes.wire_headers import cookie_parts

pytestmark = pytest.mark.anyio


@pytest.fixture
def world(tmp_path, request):
    return AppWorld(tmp_path, **FAST, **getattr(request, "param", {}))


async def test_an_auditor_signs_in_and_out(world):
    async with visiting(world, signed_in=False) as visitor:
        answer = await visitor.visit()
        assert (answer.status_code, answer.headers["location"]) == (303, "/audit/sign-in")
        form = await visitor.page("sign-in")
        (field,) = form.all("textarea")
        assert (field["autocomplete"], field["spellcheck"]) == ("off", "false")
        assert form.all("form")[0]["method"] == "post"

        answer = await visitor.sign_in()
        assert (answer.status_code, answer.headers["location"]) == (303, "/audit/signed-in")
        answer = await visitor.visit("signed-in")
        assert answer.headers["location"] == "/audit/"
        assert "Overview" in (await visitor.page()).text

        answer = await visitor.visit("sign-out", "POST", headers=FROM_HERE)
        assert (answer.status_code, answer.headers["location"]) == (303, "/audit/sign-in")
        assert (await visitor.visit("search")).status_code == 303


async def test_the_cookie_is_as_closed_as_a_browser_knows(world):
    async with visiting(world, signed_in=False) as visitor:
        value, attributes = cookie_parts(await visitor.sign_in())
        assert value == world.auditor
        assert attributes == {
            "path": "/",
            "max-age": "3600",
            "secure": "",
            "httponly": "",
            "samesite": "Strict",
        }
        # Not longer than the token lives, and not longer than half a day.
        world.clock.advance(3500)
        _, attributes = cookie_parts(await visitor.sign_in())
        assert attributes["max-age"] == "100"


async def test_who_is_no_auditor_is_told_so_and_is_shown_no_token(world):
    async with visiting(world, signed_in=False) as visitor:
        refusals = {
            "a CI job": (world.main(), 403, "audit: true"),
            "a developer": (world.own(role="developer"), 403, "audit: true"),
            "no token at all": ("  ", 400, "Paste an auditor's token"),
            "rubbish": ("not.a.token", 401, "not accepted"),
            "another server's": (world.main(iss="https://evil.example"), 401, "issuer"),
            "a header's": (f"Bearer {world.auditor}", 401, "not accepted"),
            "too large": ("e" * 3900, 413, "secure-cache token exchange"),
            "larger still": ("e" * 9000, 413, "secure-cache token exchange"),
        }
        for name, (token, status, says) in refusals.items():
            answer = await visitor.sign_in(token)
            assert answer.status_code == status, name
            assert says in why(answer), (name, why(answer))
            assert "set-cookie" not in answer.headers, name
            assert not token.strip() or token not in answer.text, name
            assert not visitor.world.client.cookies, name


async def test_an_expired_token_says_so(world):
    async with visiting(world, signed_in=False) as visitor:
        world.clock.advance(7200)
        answer = await visitor.sign_in()
        assert (answer.status_code, why(answer)) == (
            401,
            "The token has expired. Get a new one, and sign in again.",
        )


BODIES = {
    "empty": b"",
    "no value": b"token",
    "not ASCII": b"tok\xff=1",
    "many fields": urlencode({"token": "a", "a": 1, "b": 2, "c": 3, "d": 4}).encode(),
    "two tokens": b"token=a&token=b",
    "JSON": json.dumps({"token": "a"}).encode(),
}


async def test_what_is_no_form_is_refused(world):
    async with visiting(world, signed_in=False) as visitor:
        for name, body in BODIES.items():
            answer = await visitor.visit("sign-in", "POST", content=body, headers=FROM_HERE)
            assert answer.status_code == 400, name
            assert why(answer) == "Paste an auditor's token into the field.", name


async def test_a_form_without_end_is_cut_off(world):
    async with visiting(world, signed_in=False) as visitor:
        for size in (20_000, 70_000):
            answer = await visitor.visit(
                "sign-in", "POST", content=b"token=" + b"a" * size, headers=FROM_HERE
            )
            assert answer.status_code == 413


FOREIGN = (
    {},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "none"},
    {"origin": "https://evil.example"},
    {"origin": "http://cache.acme.example"},
    {"origin": "null"},
    # The browser's own word is worth more than an origin that looks right.
    {"sec-fetch-site": "cross-site", "origin": "https://cache.acme.example"},
)


async def test_forms_of_other_sites_do_nothing(world):
    """Neither sign somebody in as somebody else, nor out."""
    async with visiting(world) as visitor:
        for headers in FOREIGN:
            for path, data in (("sign-in", {"token": world.auditor}), ("sign-out", {})):
                answer = await visitor.visit(path, "POST", data=data, headers=headers)
                assert answer.status_code == 403, headers
                assert "another site" in why(answer), headers
                assert "set-cookie" not in answer.headers, headers
        assert (await visitor.visit("search")).status_code == 200


async def test_a_browser_that_says_only_its_origin_may_sign_in(world):
    async with visiting(world, signed_in=False) as visitor:
        answer = await visitor.sign_in(headers={"origin": "https://cache.acme.example"})
        assert answer.status_code == 303


async def test_a_revocation_ends_it_with_the_next_click(world):
    async with visiting(world) as visitor:
        assert (await visitor.visit("search")).status_code == 200
        edit = "{ id: lost, match: { rule: auditor }, until: 2099-01-01T00:00:00Z }"
        world.edit(world.policy.read_text().replace("revocations: []", f"revocations: [{edit}]"))
        answer = await visitor.visit("search")
        assert (answer.status_code, why(answer)) == (403, "The token was taken back.")
        assert cookie_parts(answer) == (
            "",
            {"path": "/", "max-age": "0", "secure": "", "httponly": "", "samesite": "Strict"},
        )
        assert (await visitor.visit("search")).status_code == 303


async def test_a_policy_that_says_audit_no_longer_ends_it(world):
    async with visiting(world) as visitor:
        world.edit(world.policy.read_text().replace(", audit: true", ""))
        for path in ("", "export", "entries/0/evidence", "entries/0/leaf", "health"):
            world.client.cookies.set(COOKIE, world.auditor, domain="cache.acme.example")
            answer = await visitor.visit(path)
            assert answer.status_code == 403, path
            assert "audit: true" in why(answer)


async def test_a_token_that_runs_out_ends_it(world):
    async with visiting(world) as visitor:
        world.clock.advance(3700)
        answer = await visitor.visit(headers={"cookie": f"{COOKIE}={world.auditor}"})
        assert answer.status_code == 401
        assert "expired" in why(answer)


async def test_cookies_that_are_not_clear_sign_nobody_in(world):
    """A neighbour on the same domain can set cookies, too."""
    async with visiting(world, signed_in=False) as visitor:
        # By https nobody looks at the name that a neighbour may set.
        tossed = {"cookie": f"secure_cache_auditor={world.auditor}"}
        assert (await visitor.visit(headers=tossed)).status_code == 303
        for cookie in (
            f"{COOKIE}={world.auditor}; {COOKIE}={world.auditor}",
            f"{COOKIE}={world.auditor}; {COOKIE}=x",
            f'{COOKIE}="{world.auditor}"',
            f"{COOKIE}=\x80",
        ):
            answer = await visitor.visit(headers=[(b"cookie", cookie.encode("latin-1"))])
            assert answer.status_code == 401, cookie
        for cookie in (f"{COOKIE}=", f"x{COOKIE}={world.auditor}", "theme=dark"):
            assert (await visitor.visit(headers={"cookie": cookie})).status_code == 303, cookie
        both = f"theme=dark; {COOKIE}={world.auditor}; lang=en"
        assert (await visitor.visit(headers={"cookie": both})).status_code == 200


async def test_the_cookie_opens_the_console_and_nothing_else(world):
    async with visiting(world) as visitor:
        headers = {"cookie": f"{COOKIE}={world.auditor}"}
        for path in ("/audit/v1/entries", "/audit/v1/status", "/log/tile/0/000"):
            answer = await world.client.get(path, headers=headers)
            assert answer.status_code == 403, path
        assert (await world.client.get("/v1/whoami", headers=headers)).json()["anonymous"] is True
        # Nor does a bearer open the console: another page's script could send one.
        world.client.cookies.clear()
        bearer = {"authorization": f"Bearer {world.auditor}"}
        assert (await visitor.visit("search", headers=bearer)).status_code == 303


async def test_whoever_follows_a_link_comes_to_the_page_after_signing_in(world):
    async with visiting(world, signed_in=False) as visitor:
        answer = await visitor.visit("search?tier=trusted&subject=a%20b")
        there = answer.headers["location"]
        assert there == "/audit/sign-in?to=search%3Ftier%3Dtrusted%26subject%3Da%2520b"
        form = Page((await world.client.get(there)).text)
        (hidden,) = form.all("input", name="to")
        assert hidden["value"] == "search?tier=trusted&subject=a%20b"
        assert "/audit/search?tier=trusted&subject=a%20b" in form.links()
        refused = Page((await visitor.sign_in("x.y.z", data={"to": hidden["value"]})).text)
        assert refused.all("input", name="to") == [hidden]
        answer = await visitor.sign_in(data={"to": hidden["value"]})
        answer = await world.client.get(answer.headers["location"])
        assert answer.headers["location"] == "/audit/search?tier=trusted&subject=a%20b"


ELSEWHERE = (
    "//evil.example",
    "/evil.example",
    "https://evil.example",
    "javascript:alert(1)",
    "\\evil.example",
    "../v1/token",
    "search\r\nset-cookie: a=b",
    "search?\n",
    "search#x",
    "\u2028",
    "search?" + "a" * 3000,
)


async def test_a_link_leads_nowhere_but_into_the_console(world):
    async with visiting(world, signed_in=False) as visitor:
        for place in ELSEWHERE:
            form = Page((await visitor.visit("sign-in", params={"to": place})).text)
            assert form.all("input", name="to") == [], place
            answer = await visitor.sign_in(data={"to": place})
            assert answer.headers["location"] == "/audit/signed-in", place
            answer = await visitor.visit("signed-in", params={"to": place})
            assert answer.headers["location"] == "/audit/", place


async def test_a_browser_that_keeps_no_cookie_is_told_why(world):
    async with visiting(world, signed_in=False) as visitor:
        answer = await visitor.visit("signed-in")
        assert answer.status_code == 200
        assert "did not keep the cookie" in why(answer)


ARRIVALS = (
    ("https://cache.acme.example", {}, False),
    ("http://cache.acme.example", {}, True),
    ("http://cache.acme.example", {"x-forwarded-proto": "https"}, False),
    ("http://cache.acme.example", {"sec-fetch-site": "none"}, False),
    ("http://10.0.0.7:8642", {}, True),
    ("http://localhost", {}, False),
    ("http://localhost:8642", {}, False),
    ("http://127.0.0.1:8642", {}, False),
    ("http://[::1]:8642", {}, False),
    ("http://localhost.evil.example", {}, True),
)


async def test_plain_http_from_elsewhere_is_warned_of_and_a_tls_front_is_not(world):
    async with visiting(world, signed_in=False):
        for url, headers, warned in ARRIVALS:
            answer = await world.client.get(f"{url}/audit/sign-in", headers=headers)
            assert ("plain http" in why(answer)) is warned, (url, headers)


async def test_no_token_is_logged(world):
    async with visiting(world) as visitor:
        with structlog.testing.capture_logs() as lines:
            await visitor.sign_in()
            await visitor.sign_in(world.own(role="developer"))
            await visitor.sign_in(world.auditor[:-4] + "AAAA")
            for path in ("", "search", "entries/0", "nothing", "entries/x"):
                await visitor.visit(path)
            await visitor.visit(headers={"cookie": f"{COOKIE}={world.auditor}; {COOKIE}=x"})
        assert lines
        text = repr(lines)
        assert world.auditor not in text
        assert world.auditor.split(".")[2] not in text
        assert "eyJ" not in text


async def test_who_is_refused_at_the_door_is_counted(world):
    async with visiting(world, signed_in=False) as visitor:
        await visitor.sign_in(world.own(role="developer"))
        await visitor.sign_in("x.y.z")
        await visitor.visit(headers={"cookie": f"{COOKIE}={world.own(role='developer')}"})
        found = await visitor.ask("denials", group=["method", "code", "rule"])
        counts = {
            (row["method"], row["code"], row["rule"]): row["count"] for row in found["counts"]
        }
        assert counts == {("audit", "denied", "developer"): 2, ("audit", "token-invalid", ""): 1}


async def test_who_signs_in_is_told_to_the_log(world):
    async with visiting(world, signed_in=False) as visitor:
        with structlog.testing.capture_logs() as lines:
            await visitor.sign_in(world.own(role="developer"))
            await visitor.sign_in()
        (line,) = [line for line in lines if line["event"] == "audit.signed_in"]
        assert (line["issuer"], line["subject"]) == ("own", "role:auditor")
        assert (line["project"], line["rule"], line["seconds"]) == ("mono", "auditor", 3600)


async def test_what_is_asked_at_the_console_is_told_to_the_log(world):
    async with visiting(world) as visitor:
        await stored(world, world.main(), "1")
        with structlog.testing.capture_logs() as lines:
            await visitor.visit("search", params={"tier": "trusted"})
            await visitor.visit("search", params={"tier": "root"})
        first, second = [line for line in lines if line["event"] == "audit.query"]
        assert (first["path"], first["given"]) == ("/audit/search", {"tier": ["trusted"]})
        assert (first["rule"], first["project"]) == ("auditor", "mono")
        assert second["given"] == {"tier": ["root"]}
