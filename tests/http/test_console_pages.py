"""Pages of the console for odd entries, odd witnesses and odd text."""

from types import SimpleNamespace

import pytest

from secure_cache.audit.auditor import Details
from secure_cache.audit.quick import read_leaf
from secure_cache.http.console.charts import drawings
from secure_cache.http.console.entry import entry_view
from secure_cache.http.console.render import Renderer, cut, lines, moment, plainly, visible, whole
from secure_cache.http.console.session import SessionCookie, Visitor, require_same_origin
from secure_cache.model.errors import Denied, InvalidToken
from secure_cache.policy.graph import NamespaceGraph, Node
from secure_cache.tlog.checkpoint import Checkpoint
from secure_cache.tlog.merkle import leaf_hash
from secure_cache.tlog.tlog_proof import TlogProof


@pytest.mark.parametrize("leaf", [b"junk", b"{}", b"\xff", b'{"payload":"e30="}'])
def test_an_entry_that_is_no_statement_has_a_page(leaf):
    checkpoint = Checkpoint("log", 1, leaf_hash(leaf))
    details = Details(read_leaf(0, leaf), leaf, TlogProof(0, (), b"x"), checkpoint, None, None, ())
    page = Renderer("/audit").page("entry", page="search", **entry_view(details))
    assert b"deserves a question" in page.content


@pytest.mark.parametrize("seconds", [-1, 0, 2**40, 2**63 - 1])
def test_any_time_that_a_witness_signs_can_be_shown(seconds):
    assert moment(seconds)[4] == "-"


def test_text_from_outside_is_seen_whole_and_does_nothing():
    shown = str(visible("<b>\u202e\x1b[31m" + "x" * 200))
    assert "<b>" not in shown
    assert "&lt;b&gt;" in shown
    assert "\\u202e" in shown
    assert "\\u001b" in shown
    assert "\u202e" not in shown
    assert shown.count("x") >= 200
    assert "<summary>" in shown


@pytest.mark.parametrize(
    "character", ["\u202e", "\u2066", "\u200b", "\x1b", "\u2028", "\u3164", "\ufe0f"]
)
@pytest.mark.parametrize("form", [visible, cut, whole, plainly, lines])
def test_what_is_not_seen_is_written_out_in_every_form(form, character):
    """Also in titles, labels and drawings, where no markup can stand."""
    shown = str(form(f"a{character}b"))
    assert character not in shown
    assert f"\\u{ord(character):04x}" in shown


def test_a_name_in_a_drawing_is_short_and_escaped_once():
    assert plainly("<b>" + "x" * 100, 34) == "<b>" + "x" * 31 + "…"
    node = Node("a\u202e:<b>", "a\u202e", "role", "any", None)
    graph = NamespaceGraph(nodes=(node,), edges=(), cut=False)
    view = SimpleNamespace(policy_sha256="0" * 64, graph=graph, distinct=0, seen=())
    page = Renderer("/audit").page(
        "namespaces", page="namespaces", view=view, drawings=drawings(graph), left=1, right=2
    )
    assert b"a\\u202e:&lt;b&gt;</text>" in page.content
    assert "\u202e" not in page.content.decode()


def by(*headers, scheme="http"):
    return Visitor(headers, scheme)


HOST = (b"host", b"a.example")
LOOPBACK = (b"host", b"127.0.0.1:8642")


def test_a_cookie_is_one_token_and_nothing_else():
    cookie = SessionCookie("c", "/audit")
    headers = [(b"cookie", b"a=b; c=x.y.z; cc=d")]
    assert cookie.token(headers) == "x.y.z"
    assert cookie.token([(b"cookie", b"a=b")]) is None
    with pytest.raises(InvalidToken):
        cookie.token([*headers, (b"cookie", b"c=1.2.3")])


@pytest.mark.parametrize(
    ("visitor", "root_path", "cookie"),
    [
        (by(HOST), "", ("__Host-secure_cache_auditor", "/")),
        (by(HOST), "/cache", ("__Secure-secure_cache_auditor", "/cache/audit")),
        (by(LOOPBACK), "", ("secure_cache_auditor", "/audit")),
        (by(LOOPBACK), "/cache", ("secure_cache_auditor", "/cache/audit")),
        (by(LOOPBACK, scheme="https"), "", ("__Host-secure_cache_auditor", "/")),
        (
            by(LOOPBACK, (b"x-forwarded-proto", b"https")),
            "",
            ("__Host-secure_cache_auditor", "/"),
        ),
        # Whoever could be another host's neighbour is no loopback.
        (by((b"host", b"localhost.evil.example")), "", ("__Host-secure_cache_auditor", "/")),
        (by((b"host", b"127.0.0.1.example")), "", ("__Host-secure_cache_auditor", "/")),
        (by(), "", ("__Host-secure_cache_auditor", "/")),
    ],
)
def test_no_neighbour_can_set_the_cookie_of_https(visitor, root_path, cookie):
    assert SessionCookie.of(visitor, root_path) == SessionCookie(*cookie)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"host", b"a.example")],
        [(b"host", b"a.example"), (b"origin", b"https://b.example")],
        [(b"host", b"a.example"), (b"origin", b"null")],
        [(b"sec-fetch-site", b"same-site"), (b"host", b"a"), (b"origin", b"https://a")],
        [(b"sec-fetch-site", b"none")],
        [(b"host", b"a.example"), (b"origin", b"http://a.example")],
        [(b"origin", b"https://")],
    ],
)
def test_a_form_from_elsewhere_is_refused(headers):
    with pytest.raises(Denied):
        require_same_origin(by(*headers))


def test_a_form_of_the_page_itself_is_taken():
    require_same_origin(by((b"sec-fetch-site", b"same-origin")))
    require_same_origin(by(HOST, (b"origin", b"https://a.example")))
    require_same_origin(by(LOOPBACK, (b"origin", b"http://127.0.0.1:8642")))
