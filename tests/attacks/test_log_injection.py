"""Attack: claims, paths and headers that forge log lines, act on a terminal, or leak a token."""

import io
import json
import logging

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from secure_cache.model.errors import CorruptObject, Denied, Malformed
from secure_cache.observability.logging import configure_logging
from secure_cache.observability.redaction import REDACTED, clean, clean_text

JWT = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJzdWIiOiJyZXBvOmEvYiJ9.c2lnbmF0dXJlLXNpZ25hdHVyZQ"

HOSTILE = {
    "newline": 'main\n{"event":"policy.reloaded","level":"info"}',
    "carriage return": "main\rINFO all is well",
    "ANSI": "\x1b[2J\x1b[31mmain",
    "C1 control": "main\x9b31m",
    "bidi override": "main\u202emoc.live",
    "bidi isolate": "\u2066main\u2069",
    "line separator": "main\u2028x",
    "zero width": "ma\u200bin",
    "byte order mark": "\ufeffmain",
    "NUL": "main\x00",
    "lone surrogate": "main\ud800",
    "tag characters": "main\U000e0041",
}

TOKENS = {
    "JWT": JWT,
    "bearer": f"Bearer {JWT}",
    "bearer of anything": "Authorization: Bearer aBc.123-_/+=",
    "lower case": "authorization:bearer hunter2hunter2",
    "basic": "Basic dXNlcjpwYXNz",
    "ours": "cch_live_0123456789abcdefghij",
    "GitHub": "ghp_0123456789abcdefghijABCDEFGHIJ012345",
    "GitLab": "glpat-0123456789abcdefghij",
    "start of a JWT": JWT[:40],
    "Azure key": "AccountName=a;AccountKey=c2VjcmV0c2VjcmV0==;EndpointSuffix=x",
    "Azure SAS": "https://a.blob.core.windows.net/c?sv=1&sig=c2VjcmV0c2VjcmV0%3D&se=2",
    "private key": "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIc2VjcmV0c2VjcmV0\n-----END",
}
SECRET_PARTS = (
    "eyJzdWIi",
    "eyJhbGciOi",
    "aBc.123",
    "hunter2",
    "dXNlcjpw",
    "0123456789abcdef",
    "c2VjcmV0",
)


@pytest.fixture
def written():
    stream = io.StringIO()
    configure_logging(style="json", level="info", stream=stream)
    yield stream
    structlog.reset_defaults()
    logging.getLogger().handlers[:] = []


def lines(stream):
    """Every line is one JSON object of printable characters."""
    text = stream.getvalue()
    assert text.endswith("\n")
    assert all(line.isprintable() for line in text[:-1].split("\n"))
    return [json.loads(line) for line in text[:-1].split("\n")]


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_claim_stays_in_its_field_of_one_line(written, text):
    log = structlog.get_logger("test")
    log.info("request", subject=text, claims={"ref": text, text: [text, (text,)]})
    (line,) = lines(written)
    assert line["event"] == "request"
    assert line["level"] == "info"
    assert "main" in line["subject"].replace("\\u200b", "")
    assert line["subject"].isprintable()
    assert line["claims"]["ref"].isprintable()


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_message_of_a_library_stays_in_its_field(written, text):
    logging.getLogger("some.library").warning("bad ref %s", text)
    (line,) = lines(written)
    assert line["event"] == "library.message"
    assert line["library"] == "some.library"


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_error_stays_in_its_field(written, text):
    structlog.get_logger("test").error("request.failed", exc_info=Malformed(text))
    structlog.get_logger("test").error("request.failed", exc_info=ValueError(text))
    assert [line["error"] for line in lines(written)] == ["Malformed", "ValueError"]


@pytest.mark.parametrize("text", TOKENS.values(), ids=TOKENS.keys())
def test_a_token_is_never_written_wherever_it_turns_up(written, text):
    log = structlog.get_logger("test")
    log.info("request", path=f"/v1/{text}", claims={"deep": [{"er": f"x {text} y"}], text: 1})
    words = f"refused {text}"
    log.warning(words)
    log.error("failed", exc_info=Denied(text))
    log.error("crashed", exc_info=RuntimeError(f"could not parse {text!r}"))
    log.info("bytes", value=text.encode())
    log.info("long", value="x" * 500 + " " + text + "y" * 600)
    logging.getLogger("httpx").error("HTTP Request: %s", text)
    assert len(lines(written)) == 7
    for part in SECRET_PARTS:
        assert part not in written.getvalue()
    assert REDACTED in written.getvalue()


@pytest.mark.parametrize(
    "name", ["authorization", "Authorization", "token", "access-token", "subject_token", "cookie"]
)
def test_a_field_named_after_a_secret_is_never_written(written, name):
    structlog.get_logger("test").info("request", headers={name: "hunter2"}, **{name: "hunter2"})
    (line,) = lines(written)
    assert "hunter2" not in written.getvalue()
    assert line[name] == REDACTED


def test_what_is_no_secret_is_left_alone(written):
    fields = {
        "subject": "repo:acme/web:ref:refs/heads/main",
        "namespace": "demo:branch/feature/größer",
        "key": "1234567890123456789",
        "digest": "sha256:" + "ab" * 32,
        "rule": "main",
        "status": 200,
        "seconds": 0.25,
        "cached": True,
        "tier": None,
    }
    structlog.get_logger("test").info("request", **fields)
    (line,) = lines(written)
    assert {name: line[name] for name in fields} == fields


def test_long_and_deep_values_are_cut(written):
    deep = "bottom"
    for _ in range(50):
        deep = {"n": deep}
    structlog.get_logger("test").info("r", long="a" * 100_000, many=list(range(9999)), deep=deep)
    (line,) = lines(written)
    assert len(written.getvalue()) < 3000
    assert line["long"].endswith("a...")


def test_a_traceback_is_written_only_for_what_somebody_must_find_out(written):
    log = structlog.get_logger("test")
    for error in (Denied("no"), CorruptObject("bad"), KeyError("bug")):
        log.error("failed", exc_info=error)
    denied, corrupt, bug = lines(written)
    assert "traceback" not in denied
    assert denied["code"] == "denied"
    assert any("CorruptObject" in line for line in corrupt["traceback"])
    assert any("KeyError" in line for line in bug["traceback"])


def test_the_console_style_writes_no_control_characters_either():
    stream = io.StringIO()
    configure_logging(style="console", level="info", stream=stream)
    try:
        for text in (*HOSTILE.values(), *TOKENS.values()):
            structlog.get_logger("test").info("request", subject=text)
        written = stream.getvalue()
    finally:
        structlog.reset_defaults()
        logging.getLogger().handlers[:] = []
    assert written.replace("\n", "").isprintable()
    assert written.count("\n") == len(HOSTILE) + len(TOKENS)
    assert not any(part in written for part in SECRET_PARTS)


def test_what_is_below_the_level_is_not_written(written):
    structlog.get_logger("test").debug("detail")
    logging.getLogger("uvicorn.error").info("Started server process")
    assert written.getvalue() == ""


@given(st.text(st.characters(), max_size=2000))
def test_any_text_becomes_short_and_printable(text):
    cleaned = clean_text(text)
    assert cleaned.isprintable()
    assert len(cleaned) <= 512 + 3


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.floats(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=40,
    )
)
def test_any_value_becomes_plain_data(value):
    json.dumps(clean(value))


@given(st.text(max_size=40), st.sampled_from(sorted(TOKENS.values())))
def test_no_text_around_a_token_hides_it(text, token):
    cleaned = clean_text(text + token)
    assert not any(part in cleaned for part in SECRET_PARTS if part not in text)
