"""A server that answers an auditor's questions with anything at all."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from secure_cache.client.audit import RemoteAudit
from secure_cache.client.http_answer import new_client
from secure_cache.client.remote import ServerAddress
from secure_cache.model.errors import (
    DamagedIndex,
    Misconfigured,
    NotFound,
    Overloaded,
    Unavailable,
    WrongFilter,
)

ROWS = [{"index": number, "event": "stored"} for number in range(5)]
DETAILS = {
    "entry": ROWS[3],
    "statement": None,
    "envelope": None,
    "signature": {"keyid": "0a", "valid": True, "why": ""},
    "proof": {"index": 3, "size": 5, "root": "AAAA", "hashes": [], "checkpoint": ""},
    "state": {"state": "served", "line": "rule main", "why": "it is"},
    "events": [],
}


@contextmanager
def asked(*answers):
    """A server that gives these answers in turn, each `(status, document)` or a document, and
    the last of them for ever; with the paths that it was asked for."""
    paths, slept = [], []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            answer = answers[min(len(paths), len(answers) - 1)]
            paths.append(self.path)
            status, document = answer if isinstance(answer, tuple) else (200, answer)
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            address = ServerAddress(f"http://127.0.0.1:{server.server_port}")
            yield RemoteAudit(address, "a-token", new_client, sleep=slept.append), paths
        finally:
            server.shutdown()
            thread.join()


def test_pages_follow_each_other_up_to_the_limit():
    pages = [
        {"size": 5, "entries": ROWS[:2], "next": {"after": 1}},
        {"size": 5, "entries": ROWS[2:4], "next": {"after": 3}},
        {"size": 5, "entries": ROWS[4:], "next": None},
    ]
    with asked(*pages) as (remote, paths):
        assert list(remote.entries({"tier": ["a", "b"]}, limit=9, newest_first=False)) == ROWS
    assert "tier=a&tier=b" in paths[0]
    assert "after=1" in paths[1]
    with asked(*pages) as (remote, paths):
        assert list(remote.entries({}, limit=3, newest_first=True)) == ROWS[:3]
    assert len(paths) == 2


def test_a_server_that_gives_more_than_was_asked_for_is_cut_short():
    with asked({"size": 5, "entries": ROWS, "next": {"after": 4}}) as (remote, _):
        assert list(remote.entries({}, limit=3, newest_first=False)) == ROWS[:3]


def test_an_empty_page_is_the_last_one_whatever_it_names_as_the_next():
    with asked({"size": 5, "entries": [], "next": {"after": 1}}) as (remote, paths):
        assert list(remote.entries({}, limit=10, newest_first=False)) == []
    assert len(paths) == 1


ODD_PAGES = [
    {"entries": ROWS},
    {"entries": None, "next": None},
    {"entries": ["a row"], "next": None},
    {"entries": ROWS, "next": "after"},
    {"entries": ROWS, "next": {"after": "a&b"}},
]
ODD_COUNTS = [
    {"counts": []},
    {"total": "many"},
    {"total": 1, "counts": {"a": 1}},
    {"total": 1, "distinct": 1, "counts": [{"value": "a"}]},
]
ODD_DETAILS = [
    {**DETAILS, "entry": None},
    {**DETAILS, "proof": None},
    {**DETAILS, "proof": {"index": 3}},
    {**DETAILS, "signature": True},
    {**DETAILS, "state": "served"},
    {**DETAILS, "events": [3]},
    {name: value for name, value in DETAILS.items() if name != "events"},
]


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        *[(lambda r: list(r.entries({}, limit=10, newest_first=False)), odd) for odd in ODD_PAGES],
        *[(lambda r: r.counts({}, "tier"), odd) for odd in ODD_COUNTS],
        *[(lambda r: r.details(3), odd) for odd in ODD_DETAILS],
    ],
)
def test_an_answer_of_another_form_is_not_taken_for_one(question, answer):
    with (
        asked(answer) as (remote, _),
        pytest.raises(Misconfigured, match="does not answer as a secure-cache server does"),
    ):
        question(remote)


def test_details_are_what_the_server_says():
    with asked({**DETAILS, "news": 1}) as (remote, paths):
        assert remote.details(3)["state"]["state"] == "served"
    assert paths == ["/audit/v1/entries/3"]


def test_a_refusal_says_what_the_server_says():
    refusal = {"code": "filter-invalid", "title": "secure-cache: tier: 'x' is not one of a, b"}
    with (
        asked((400, refusal)) as (remote, _),
        pytest.raises(WrongFilter, match="tier: 'x' is not one of a, b"),
    ):
        remote.counts({"tier": ["x"]}, None)
    with (
        asked((500, {"code": "index-damaged", "title": "secure-cache: damaged"})) as (remote, _),
        pytest.raises(DamagedIndex),
    ):
        remote.counts({}, None)


def test_an_entry_that_is_not_there_is_called_by_its_index():
    miss = (404, {"code": "miss", "title": "secure-cache: not in the cache"})
    with asked(miss) as (remote, _), pytest.raises(NotFound, match=r"127\.0\.0\.1.*no entry 4711"):
        remote.details(4711)


BUSY = [(429, {"code": "overloaded", "title": "too many"}), (503, {}), (502, {})]


def test_a_busy_server_is_asked_again_a_few_times():
    with asked(*BUSY, {"total": 7}) as (remote, paths):
        assert remote.counts({"tier": ["trusted"]}, None) == {"total": 7}
        assert len(paths) == 4
    with asked(*BUSY, (504, {})) as (remote, paths):
        with pytest.raises(Unavailable, match="answered 504"):
            remote.counts({}, None)
        assert len(paths) == 4
    with asked(BUSY[0]) as (remote, paths):
        with pytest.raises(Overloaded, match="too many"):
            remote.details(3)
        assert len(paths) == 4
    # What is broken is not busy.
    with asked((500, {"code": "index-damaged", "title": "damaged"})) as (remote, paths):
        with pytest.raises(DamagedIndex):
            remote.details(3)
        assert len(paths) == 1
