"""The console over a real server, without a browser: who gets in, and what others are told."""

import httpx
import pytest
from fakes.issuer import Issuer
from world.github_ci import MAIN, trust_ci
from world.server import Server, wait_until

from secure_cache.http.console.render import PAGE_HEADERS

ROOT = "/cache"
OURS = {"sec-fetch-site": "same-origin"}
FOREIGN = ({}, {"origin": "null"}, {"origin": "https://evil.example"}, {"sec-fetch-site": "none"})


def cookie(token: str) -> dict[str, str]:
    return {"cookie": f"secure_cache_auditor={token}"}


@pytest.fixture(scope="module")
def dead_issuers_token():
    return {}


@pytest.fixture(scope="module")
def server(tmp_path_factory, dead_issuers_token):
    running = Server(
        tmp_path_factory.mktemp("console"),
        options=(f"--root-path={ROOT}",),
        environment={"SECURE_CACHE_AUDIT__FOLLOW_SECONDS": "0.2"},
    )
    with Issuer() as issuer:
        trust_ci(running, issuer)
        dead_issuers_token["token"] = issuer.token(**MAIN)
    running.start()
    yield running
    running.kill9()


@pytest.fixture(scope="module")
def auditor(server):
    token = server.token(role="auditor")
    with httpx.Client(base_url=server.url) as client:
        wait_until(
            lambda: client.get(f"{ROOT}/audit/", headers=cookie(token)).status_code == 200,
            "the index",
        )
    return token


@pytest.fixture
def browser(server):
    with httpx.Client(base_url=f"{server.url}{ROOT}", timeout=30) as client:
        yield client


def test_the_cookie_is_for_the_consoles_path_below_the_prefix(browser, auditor):
    answer = browser.post("/audit/sign-in", data={"token": auditor}, headers=OURS)
    assert answer.status_code == 303
    assert answer.headers["location"] == f"{ROOT}/audit/signed-in"
    assert f"Path={ROOT}/audit;" in answer.headers["set-cookie"]
    seconds = int(answer.headers["set-cookie"].partition("Max-Age=")[2].partition(";")[0])
    assert 0 < seconds <= 3600


@pytest.mark.parametrize("headers", FOREIGN)
@pytest.mark.parametrize("form", ["sign-in", "sign-out"])
def test_a_form_of_another_site_neither_signs_in_nor_out(browser, auditor, form, headers):
    answer = browser.post(f"/audit/{form}", data={"token": auditor}, headers=headers)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers
    assert "another site" in answer.text
    assert auditor not in answer.text


def test_a_token_that_no_cookie_can_hold_is_told_what_to_do(browser):
    answer = browser.post("/audit/sign-in", data={"token": "a" * 5000}, headers=OURS)
    assert answer.status_code == 413
    assert "secure-cache token exchange" in answer.text
    assert "a" * 50 not in answer.text


def test_a_cookie_that_is_no_good_is_taken_back(browser, server):
    developer = server.token(role="developer")
    for text, status in ((developer, 403), ("rubbish", 401)):
        answer = browser.get("/audit/search", headers=cookie(text))
        assert answer.status_code == status
        assert "Max-Age=0" in answer.headers["set-cookie"]


def test_what_is_refused_is_counted(browser, server, auditor):
    bearer = {"authorization": f"Bearer {auditor}"}

    def counted():
        answer = browser.get("/audit/v1/denials", params={"group": "method"}, headers=bearer)
        return sum(item["count"] for item in answer.json()["counts"] if item["method"] == "audit")

    before = counted()
    browser.get("/audit/", headers=cookie(server.token(role="developer")))
    assert counted() == before + 1


def test_an_issuer_that_is_away_ends_no_session(browser, dead_issuers_token):
    answer = browser.get("/audit/", headers=cookie(dead_issuers_token["token"]))
    assert answer.status_code == 503
    assert answer.headers["content-type"].startswith("text/html")
    assert "content-security-policy" in answer.headers
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    ("method", "path", "status", "says"),
    [
        ("GET", "/audit/nothing", 404, "nothing here"),
        ("GET", "/audit/entries/1/2/3", 404, "nothing here"),
        ("GET", "/audit/static/nothing.js", 404, "nothing here"),
        ("GET", "//audit//nothing", 404, "nothing here"),
        ("POST", "/audit/search", 405, "does not take that method"),
        ("DELETE", "/audit", 405, "does not take that method"),
        ("GET", "/audit/sign-out", 405, "does not take that method"),
        ("POST", "/audit/sign-in", 413, "larger than this server accepts"),
    ],
)
def test_where_there_is_no_page_a_page_says_so(server, method, path, status, says):
    more = {"content": b"a" * 70_000} if status == 413 else {}
    with httpx.Client(timeout=30) as client:
        answer = client.request(method, f"{server.url}{ROOT}{path}", headers=OURS, **more)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    for name, value in PAGE_HEADERS.items():
        assert answer.headers[name] == value
    assert says in answer.text.lower()


def test_programs_are_told_in_json_where_nothing_is(browser):
    answer = browser.get("/audit/v1/nothing")
    assert answer.status_code == 404
    assert answer.json()["code"] == "http"


def test_no_browser_guesses_what_an_answer_is(browser, auditor):
    for path in ("/log/checkpoint", "/log/vkeys", "/log/nothing", "/audit/v1/entries", "/audit/"):
        for method in ("GET", "OPTIONS", "PUT"):
            answer = browser.request(method, path)
            assert answer.headers.get_list("x-content-type-options") == ["nosniff"], path
    for path in ("entries/0/evidence", "entries/0/leaf", "export", "consistency?old=1&new=1"):
        answer = browser.get(f"/audit/{path}", headers=cookie(auditor))
        assert answer.status_code == 200, path
        for name in PAGE_HEADERS:
            assert len(answer.headers.get_list(name)) == 1, (path, name)


def test_a_misspelt_filter_does_not_show_everything(browser, auditor):
    answer = browser.get("/audit/search?subjct=x", headers=cookie(auditor))
    assert answer.status_code == 400
    assert "subjct" in answer.text
    assert 'id="found"' not in answer.text


def test_a_form_keeps_all_values_of_a_filter(browser, auditor):
    answer = browser.get("/audit/search?tier=trusted&tier=contributor", headers=cookie(auditor))
    assert answer.text.count('<input name="tier" value="contributor"') == 1


def test_a_server_without_an_index_says_how_to_have_one(tmp_path):
    plain = Server(tmp_path, environment={"SECURE_CACHE_AUDIT__ENABLED": "false"}).start()
    try:
        headers = cookie(plain.token(role="auditor"))
        with httpx.Client(base_url=plain.url, headers=headers) as client:
            for path in (
                "",
                "search",
                "entries/0",
                "policies",
                "namespaces",
                "revocations",
                "export",
            ):
                answer = client.get(f"/audit/{path}")
                assert answer.status_code == 503
                assert "audit.enabled" in answer.text
            health = client.get("/audit/health").text
        assert "It follows the log" not in health
        assert "audit.enabled" in health
    finally:
        plain.kill9()


def test_no_token_is_in_the_log(server, auditor):
    assert auditor not in server.logs()
