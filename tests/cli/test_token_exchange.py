"""`secure-cache token exchange`: a CI's token in, a session out, against a real server and against
servers that are none."""

import http.server
import json
import subprocess
import sys
import threading
from urllib.parse import parse_qs, urlsplit

import pytest
from fakes.issuer import Issuer

AUDIENCE = "https://secure-cache.localhost"
JWT = "eyJhbGciOiJFZERTQSJ9.e30.c2ln"


class Answers:
    """A server on loopback that gives one answer, and remembers what it was asked."""

    def __init__(self, status=200, body=b"{}"):
        self.status, self.body, self.requests = status, body, []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self):
                size = int(self.headers.get("content-length", 0))
                outer.requests.append((self.path, dict(self.headers), self.rfile.read(size)))
                self.send_response(outer.status)
                self.send_header("content-length", str(len(outer.body)))
                if outer.status == 302:
                    self.send_header("location", "http://127.0.0.1:1/stolen")
                self.end_headers()
                self.wfile.write(outer.body)

            do_GET = answer  # noqa: N815 - the base class calls it so
            do_POST = answer  # noqa: N815

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def session(token=JWT):
    return json.dumps({"access_token": token, "expires_in": 21600, "token_type": "Bearer"}).encode()


@pytest.fixture
def ci(monkeypatch):
    """A job whose CI puts the token where GitLab's jobs are told to put it."""
    monkeypatch.setenv("SECURE_CACHE_ID_TOKEN", JWT)


@pytest.mark.usefixtures("ci")
def test_the_session_stands_alone_on_stdout(call):
    with Answers(body=session("a.b.c")) as server:
        done = call("token", "exchange", "--server", server.url)
    assert (done.code, done.out) == (0, "a.b.c\n")
    assert "6:00:00" in done.err
    ((path, headers, body),) = server.requests
    assert path == "/v1/token"
    assert "Authorization" not in headers
    form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
    assert form["subject_token"] == JWT
    assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:token-exchange"


@pytest.mark.usefixtures("ci")
def test_the_session_comes_as_json_too(call, monkeypatch):
    with Answers(body=session("a.b.c")) as server:
        monkeypatch.setenv("SECURE_CACHE_SERVER", f"{server.url}/")
        done = call("token", "exchange", "--json")
    assert json.loads(done.out) == {"token": "a.b.c", "expires_in": 21600}
    assert server.requests[0][0] == "/v1/token"


def test_github_is_asked_for_the_servers_audience(call, monkeypatch):
    with Answers(body=json.dumps({"value": "g.h.i"}).encode()) as github:
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", f"{github.url}/idtoken?api-version=2.0")
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "request-secret")
        with Answers(body=session()) as server:
            assert call("token", "exchange", "--server", server.url).code == 0
            assert call("token", "exchange", "--server", server.url, "--audience", "x").code == 0
    asked = [parse_qs(urlsplit(path).query) for path, _, _ in github.requests]
    assert asked == [
        {"api-version": ["2.0"], "audience": [server.url]},
        {"api-version": ["2.0"], "audience": ["x"]},
    ]
    assert github.requests[0][1]["Authorization"] == "Bearer request-secret"
    assert b"g.h.i" in server.requests[0][2]
    assert b"request-secret" not in server.requests[0][2]


def test_a_github_job_without_the_permission_is_told_which(call, monkeypatch):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    done = call("token", "exchange", "--server", "http://127.0.0.1:1")
    assert done.code == 2
    assert "id-token: write" in done.err
    assert done.err.count("\n") == 1


def test_a_gitlab_job_without_a_token_is_told_what_to_write(call, monkeypatch):
    monkeypatch.setenv("GITLAB_CI", "true")
    done = call("token", "exchange", "--server", "http://127.0.0.1:1")
    assert done.code == 2
    assert "id_tokens" in done.err


def test_outside_of_any_ci_it_says_what_is_missing(call):
    done = call("token", "exchange", "--server", "http://127.0.0.1:1")
    assert done.code == 2
    assert "SECURE_CACHE_ID_TOKEN" in done.err


def test_the_token_comes_from_any_variable_or_file(call, monkeypatch, tmp_path):
    (tmp_path / "token").write_text("f.i.l\n")
    monkeypatch.setenv("MY_TOKEN", "v.a.r")
    with Answers(body=session()) as server:
        for source in ("env:MY_TOKEN", f"file:{tmp_path / 'token'}"):
            assert call("token", "exchange", "--server", server.url, "--from", source).code == 0
    assert [b"v.a.r" in server.requests[0][2], b"f.i.l" in server.requests[1][2]] == [True, True]


@pytest.mark.parametrize("source", ["jenkins", "env:", "file:/nonexistent", "env:UNSET", "github"])
def test_a_source_that_gives_nothing_is_refused(source, call):
    done = call("token", "exchange", "--server", "http://127.0.0.1:1", "--from", source)
    assert done.code == 2
    assert done.err.count("\n") == 1


@pytest.mark.usefixtures("ci")
@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (401, {"code": "token-invalid", "title": "for another audience"}, 4),
        (401, {"code": "token-expired", "title": "expired"}, 4),
        (401, {"code": "token-replayed", "title": "used before"}, 4),
        (403, {"code": "denied", "title": "no rule"}, 4),
        (403, {"code": "revoked", "title": "revoked"}, 4),
        (429, {"code": "overloaded", "title": "too many"}, 3),
        (503, {"code": "unavailable", "title": "later"}, 3),
        (502, "<html>", 3),
        (404, "<html>", 2),
        (302, "", 2),
        (200, "<html>", 2),
        (200, {}, 2),
        (200, {"access_token": 5, "expires_in": 1}, 2),
        (200, {"access_token": "\x1b[2J", "expires_in": 1}, 4),
    ],
)
def test_what_the_server_says_becomes_an_exit_code_and_a_line(status, body, code, call):
    text = body if isinstance(body, str) else json.dumps(body)
    with Answers(status, text.encode()) as server:
        done = call("token", "exchange", "--server", server.url)
    assert (done.code, done.out) == (code, ""), done.err
    assert done.err.count("\n") == 1
    assert JWT not in done.err
    assert len(server.requests) == 1
    if isinstance(body, dict) and "title" in body and status != 503:
        assert body["title"] in done.err


@pytest.mark.usefixtures("ci")
def test_an_endless_answer_is_cut(call):
    with Answers(body=b"x" * 100_000) as server:
        done = call("token", "exchange", "--server", server.url)
    assert done.code == 3
    assert "more than 65536 bytes" in done.err


@pytest.mark.usefixtures("ci")
def test_a_server_that_is_not_there_is_unreachable(call):
    done = call("token", "exchange", "--server", "http://127.0.0.1:1")
    assert (done.code, done.out) == (3, "")
    assert "127.0.0.1" in done.err


@pytest.mark.usefixtures("ci")
@pytest.mark.parametrize(
    "server",
    [
        "",
        "cache",
        "ftp://cache.example",
        "http://cache.example",
        "http://10.0.0.1:80",
        "https://",
        "https://a:b@cache.example",
        "https://cache.example?x=1",
        "https://[::1",
    ],
)
def test_an_address_that_would_leak_a_token_or_is_none_is_refused(server, call):
    done = call("token", "exchange", "--server", server)
    assert done.code == 2
    assert "--server" in done.err
    assert done.err.count("\n") == 1


@pytest.fixture
def server(installation):
    """A real one, whose policy also knows a CI with a key file."""
    issuer = Issuer(algorithm="ES256", iss="https://ci.example.com")
    (installation.directory / "ci.json").write_bytes(issuer.document())
    installation.edit_policy(
        "issuers:\n",
        "issuers:\n  ci:\n    preset: generic\n    iss: https://ci.example.com\n"
        "    jwks_file: ci.json\n    algorithms: [ES256]\n    claims: { branch: git_branch }\n"
        "    ack: [i-verified-this-issuer]\n",
    )
    installation.edit_policy("    issuers: [self]\n", "    issuers: [self, ci]\n")
    config = installation.config
    process = subprocess.Popen(
        [sys.executable, "-m", "secure_cache", "serve", f"--config={config}", "--port=0"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = process.stdout.readline()
    if not line:
        raise AssertionError(process.communicate()[1])
    yield line.removeprefix("secure-cache listening on ").strip(), issuer
    process.terminate()
    process.communicate(timeout=60)


def test_a_ci_token_becomes_a_session_once(server, call, monkeypatch):
    url, issuer = server
    monkeypatch.setenv("CI_TOKEN", issuer.token(aud=AUDIENCE, git_branch="fix"))
    line = ["token", "exchange", "--server", url, "--from", "env:CI_TOKEN"]
    done = call(*line)
    assert done.code == 0, done.err
    said = json.loads(call("token", "inspect", "--server", url, "--json", stdin=done.out).out)[
        "whoami"
    ]
    assert (said["issuer"], said["write"]) == ("ci", "branch/fix")
    again = call(*line)
    assert again.code == 4
    assert "accepted here once" in again.err


def test_a_ci_token_for_another_audience_is_told_the_right_one(server, call, monkeypatch):
    url, issuer = server
    monkeypatch.setenv("CI_TOKEN", issuer.token(aud="https://other.example", git_branch="fix"))
    done = call("token", "exchange", "--server", url, "--from", "env:CI_TOKEN")
    assert done.code == 4
    assert AUDIENCE in done.err


def test_a_token_of_the_server_itself_is_not_exchanged(server, call, monkeypatch, installation):
    url, _ = server
    own = call(
        "token", "issue", "--config", installation.config, "--project", "demo", "--branch", "main"
    )
    monkeypatch.setenv("CI_TOKEN", own.out)
    done = call("token", "exchange", "--server", url, "--from", "env:CI_TOKEN")
    assert done.code == 4
    assert "only the token of a CI" in done.err
