"""The head's checks alone, without the parser: none may lean on what llhttp refuses today."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_cache.http.request_head import check_head, has_body
from secure_cache.model.errors import Malformed

HOST = (b"host", b"cache.example:8642")


def check(*headers, version="1.1", method="PUT", target=b"/v1/cache/1"):
    check_head(version=version, method=method, target=target, headers=headers)


@pytest.mark.parametrize(
    "headers",
    [
        [HOST],
        [HOST, (b"content-length", b"0")],
        [HOST, (b"content-length", b"5"), (b"authorization", b"Bearer x")],
        [HOST, (b"transfer-encoding", b"Chunked")],
        [(b"host", b"[2001:db8::1]:443")],
        [HOST, (b"accept", b"a"), (b"accept", b"b")],
        [HOST, (b"x-tab", b"a\tb"), (b"x-text", b"\xc3\xa9")],
    ],
)
def test_an_honest_head_passes(headers):
    check(*headers)


def test_http_1_0_needs_no_host():
    check(version="1.0")


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [HOST, HOST],
        [(b"host", b"")],
        [(b"host", b"a b")],
        [(b"host", b"a,b")],
        [(b"host", b"a:99999999")],
        [(b"host", b"[::1")],
        [(b"host", b"user@a")],
        [HOST, (b"authorization", b"Bearer x"), (b"authorization", b"Bearer y")],
        [HOST, (b"content-length", b"1"), (b"content-length", b"1")],
        [HOST, (b"content-length", b"1"), (b"transfer-encoding", b"chunked")],
        [HOST, (b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"chunked")],
        *[
            [HOST, (b"content-length", text)]
            for text in (b"", b"+1", b"-1", b"1,1", b"0x1", b" 1", b"1 ", b"\xb2", b"1" * 19)
        ],
        *[
            [HOST, (b"transfer-encoding", text)]
            for text in (b"", b"identity", b"gzip, chunked", b"chunked, chunked", b"chunked ")
        ],
        *[[HOST, (b"x-a", b"b" + bytes([code]))] for code in (*range(9), *range(10, 32), 127)],
    ],
)
def test_a_head_with_two_readings_is_malformed(headers):
    with pytest.raises(Malformed):
        check(*headers)


@pytest.mark.parametrize(
    "target",
    [b"", b"*", b"a", b"a:80", b"/a#b", b"ftp://a/b", b"http://a", b"http://x@a/b", b"//a#", b"#"],
)
def test_a_target_that_is_no_path_is_malformed(target):
    with pytest.raises(Malformed):
        check(HOST, target=target)


@pytest.mark.parametrize("target", [b"/", b"//a//b", b"/a?b=http://c", b"HTTP://a:80/b?c"])
def test_a_path_or_an_address_of_one_is_a_target(target):
    check(HOST, target=target)


def test_another_version_or_a_tunnel_is_malformed():
    for version in ("0.9", "2.0", "1.2"):
        with pytest.raises(Malformed):
            check(HOST, version=version)
    with pytest.raises(Malformed):
        check(HOST, method="CONNECT")


def test_a_body_is_what_length_or_encoding_announce():
    assert not has_body([HOST])
    assert not has_body([(b"content-length", b"0")])
    assert has_body([(b"content-length", b"1")])
    assert has_body([(b"transfer-encoding", b"chunked")])


@given(
    st.binary(),
    st.lists(
        st.tuples(
            st.sampled_from([b"host", b"content-length", b"transfer-encoding", b"x"]), st.binary()
        )
    ),
)
def test_any_head_passes_or_is_malformed_in_one_constant_line(target, headers):
    try:
        check(*headers, target=target)
        said = "fine"
    except Malformed as error:
        said = str(error)
    assert said.isascii()
    assert said.isprintable()
    assert len(said) < 80
