"""The browser that the console's tests use is real, and sees what a page does wrong."""

import http.server
import threading

import pytest
from world.browser import run_page

PAGES = {
    "/good": "<!doctype html><html lang=en><title>Good</title><link rel=icon href=data:,>"
    "<main><h1>Good</h1></main>",
    "/bad": "<html><img src=/missing.png><script>oops()</script>"
    "<script src='http://tracker.example/x.js'></script>",
}


class Pages(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = PAGES.get(self.path, "").encode()
        self.send_response(200 if body else 404)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def url():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_sound_page_has_no_complaints(url):
    visit = run_page(
        "await page.goto(input.url); return [await page.title(), await axe()];", url=f"{url}/good"
    )
    assert visit.value == ["Good", []]
    assert visit.complaints == []
    assert {"method": "GET", "url": f"{url}/good"} in visit.requests


def test_an_unsound_page_is_seen_through(url):
    visit = run_page("await page.goto(input.url); return await axe();", url=f"{url}/bad")
    assert {"document-title", "html-has-lang", "image-alt"} <= {item["id"] for item in visit.value}
    assert any("oops" in text for text in visit.errors)
    assert any("ERR_NAME_NOT_RESOLVED" in text for text in visit.complaints)


def test_a_script_that_fails_is_no_visit(url):
    with pytest.raises(AssertionError, match="nothing here"):
        run_page("throw new Error('nothing here');")
