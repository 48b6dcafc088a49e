"""The status table of the outside contract, request by request: promise 5.

Nx fails a build on every other status than these, so nothing else may ever be said on this path.
"""

import itertools

import httpx
import pytest
from world.server import Server
from world.wire import connect, request

pytestmark = pytest.mark.every_storage

REASON = "X-Secure-Cache-Reason"
_keys = itertools.count(10**18)


@pytest.fixture(scope="module")
def server(storage, tmp_path_factory):
    made = Server(tmp_path_factory.mktemp("statuses") / "server", storage=storage).start()
    yield made
    made.remove()


@pytest.fixture(scope="module")
def main(server):
    return server.token(branch="main")


@pytest.fixture(scope="module")
def pull_request(server):
    return server.token(pr=7)


@pytest.fixture
def key():
    return str(next(_keys))


def refused(answer: httpx.Response, status: int) -> None:
    """A refusal that a build survives: its reason in the header, in one line."""
    assert answer.status_code == status, answer.text
    assert answer.headers[REASON].strip()
    assert "\n" not in answer.headers[REASON]
    assert "content-length" in answer.headers


def test_an_upload_is_answered_200_and_read_back(server, main, key):
    assert server.put(main, key, b"the bytes").status_code == 200
    answer = server.get(main, key)
    assert (answer.status_code, answer.content) == (200, b"the bytes")
    assert answer.headers["content-length"] == "9"
    assert "content-encoding" not in answer.headers


def test_an_empty_artifact_is_an_artifact(server, main, key):
    assert server.put(main, key, b"").status_code == 200
    answer = server.get(main, key)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == "0"


def test_a_second_upload_is_answered_409_and_changes_nothing(server, main, key):
    assert server.put(main, key, b"first").status_code == 200
    assert server.put(main, key, b"second").status_code == 409
    assert server.get(main, key).content == b"first"


def test_what_is_not_there_is_a_miss(server, main, key):
    refused(server.get(main, key), 404)


def test_head_answers_as_get_without_the_body(server, main, key):
    server.put(main, key, b"the bytes")
    with server.client(main) as client:
        answer = client.head(f"/v1/cache/{key}")
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-length"] == "9"
        assert client.head(f"/v1/cache/{next(_keys)}").status_code == 404


def test_a_pull_request_reads_main_and_writes_its_own(server, main, pull_request, key):
    server.put(main, key, b"of main")
    assert server.get(pull_request, key).content == b"of main"
    own = str(next(_keys))
    assert server.put(pull_request, own, b"own").status_code == 200
    assert server.get(pull_request, own).content == b"own"
    refused(server.get(main, own), 404)


def test_what_a_put_answers_depends_on_the_callers_own_namespace_alone(
    server, main, pull_request, key
):
    """Promise 2: neither side can tell from a 409 what the other has stored."""
    assert server.put(pull_request, key, b"poison").status_code == 200
    assert server.put(main, key, b"genuine").status_code == 200
    assert server.put(server.token(pr=8), key, b"other").status_code == 200
    assert server.get(pull_request, key).content == b"genuine"


def test_another_branch_is_a_contributor(server, main, key):
    feature = server.token(branch="feature/x")
    assert server.put(feature, key, b"feature").status_code == 200
    refused(server.get(main, key), 404)
    assert server.get(feature, key).content == b"feature"


def test_a_developer_reads_and_does_not_write(server, main, key):
    developer = server.token(role="developer")
    server.put(main, key, b"of main")
    assert server.get(developer, key).content == b"of main"
    refused(server.put(developer, str(next(_keys)), b"x"), 403)


def test_an_auditor_neither_reads_nor_writes_the_cache(server, main, key):
    auditor = server.token(role="auditor")
    server.put(main, key, b"of main")
    refused(server.get(auditor, key), 404)
    refused(server.put(auditor, str(next(_keys)), b"x"), 403)


def test_without_a_token_there_is_nothing_to_read_or_write(server, main, key):
    server.put(main, key, b"of main")
    refused(server.get(None, key), 404)
    refused(server.put(None, str(next(_keys)), b"x"), 403)


def _other_signature(token: str) -> str:
    head, claims, signature = token.split(".")
    return f"{head}.{claims}.{signature[:-8]}{'A' * 8}"


INVALID = {
    "one word": lambda token: "garbage",
    "three dots": lambda token: "a.b.c",
    "another signature": _other_signature,
    "no signature": lambda token: token.rpartition(".")[0] + ".",
    "algorithm none": lambda token: "eyJhbGciOiJub25lIn0." + token.split(".")[1] + ".",
    "twice": lambda token: f"{token} {token}",
    "eight kilobytes": lambda token: "A" * 8192,
}


@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD"])
@pytest.mark.parametrize("name", INVALID)
def test_a_token_that_is_not_valid_is_loud(server, main, key, method, name):
    """401 with a type that Nx shows: exactly `text/plain`, and one line."""
    bad = INVALID[name](main)
    with connect(server.port) as wire:
        body = b"x" if method == "PUT" else None
        wire.send(request(method, f"/v1/cache/{key}", bad, body=body))
        answer = wire.read(head=method == "HEAD")
    assert answer is not None
    assert answer.status == 401
    assert answer.header("content-type") == "text/plain"
    if method != "HEAD":
        text = answer.body.decode("ascii")
        assert text.strip()
        assert "\n" not in text.rstrip("\n")
        assert "Traceback" not in text


def test_an_empty_token_is_no_token(server, key):
    """Nx sends it when the variable is set to nothing, as in a pull request from a fork."""
    with connect(server.port) as wire:
        wire.send(request("GET", f"/v1/cache/{key}", ""))
        assert wire.read().status == 404
        wire.send(request("PUT", f"/v1/cache/{key}", "", body=b"x"))
        assert wire.read().status == 403


def test_another_scheme_than_bearer_is_not_valid_either(server, key):
    with server.client() as client:
        answer = client.get(f"/v1/cache/{key}", headers={"Authorization": "Basic dXNlcjpwYXNz"})
    assert (answer.status_code, answer.headers["content-type"]) == (401, "text/plain")


def test_a_token_of_another_installation_is_not_valid(server, make_server, key):
    stranger = make_server().token(branch="main")
    answer = server.get(stranger, key)
    assert (answer.status_code, answer.headers["content-type"]) == (401, "text/plain")


MALFORMED = (
    "/v1/cache/a.b",
    "/v1/cache/..",
    "/v1/cache/%2e%2e",
    "/v1/cache/..%2f..%2fetc%2fpasswd",
    "/v1/cache/%00",
    "/v1/cache/a%2fb",
    "/v1/cache/a%0d%0ab",
    "/v1/cache/%31",
    "/v1/cache/" + "1" * 129,
    "/v1/cache/1/2",
    "/v1/cache/1/",
    "/v1/cache/",
    "/v1/cache/a;b",
    "/v1/cache/\\..\\a",
)


@pytest.mark.parametrize("path", MALFORMED)
def test_a_malformed_hash_is_a_miss_and_is_not_stored(server, main, path):
    with connect(server.port) as wire:
        wire.send(request("GET", path, main))
        answer = wire.read()
        assert answer is not None
        assert answer.status == 404
    with connect(server.port) as wire:
        wire.send(request("PUT", path, main, body=b"x"))
        answer = wire.read()
        assert answer is not None
        assert answer.status == 403
        assert answer.header(REASON)


def test_a_query_does_not_change_which_entry_is_meant(server, main, key):
    """Nothing that a client says beside its token may steer it to another entry."""
    server.put(main, key, b"of main")
    with server.client(main) as client:
        answer = client.get(f"/v1/cache/{key}?namespace=pr/7&project=other")
    assert answer.status_code in {200, 404}
    assert answer.content in {b"of main", b""} or answer.status_code == 404


def test_headers_that_claim_an_identity_change_nothing(server, main, pull_request, key):
    server.put(pull_request, key, b"poison")
    claims = {
        "X-Forwarded-User": "main",
        "X-Secure-Cache-Namespace": "demo:pr/7",
        "X-Original-URL": f"/v1/cache/{key}",
        "X-HTTP-Method-Override": "PUT",
    }
    with server.client(main) as client:
        refused(client.get(f"/v1/cache/{key}", headers=claims), 404)


def test_strict_status_says_202_for_a_stored_upload(make_server, key):
    server = make_server(options=("--strict-status",)).start()
    main = server.token(branch="main")
    assert server.put(main, key, b"x").status_code == 202
    assert server.get(main, key).content == b"x"
    assert server.put(server.token(role="developer"), key, b"x").status_code == 403
    assert server.get("garbage", key).status_code == 401


def test_the_cache_is_also_found_under_a_root_path(make_server, key):
    server = make_server(options=("--root-path=/pre/fix",)).start()
    main = server.token(branch="main")
    with server.client(main) as client:
        assert client.put(f"/pre/fix/v1/cache/{key}", content=b"x").status_code == 200
        assert client.get(f"/pre/fix/v1/cache/{key}").content == b"x"


def test_whoami_says_what_the_token_may_do(server, pull_request):
    with server.client(pull_request) as client:
        answer = client.get("/v1/whoami")
    assert answer.status_code == 200
    document = answer.json()
    assert (document["project"], document["write"]) == ("demo", "pr/7")
    assert document["read"] == ["branch/main", "pr/7"]
    assert document["tier"] == "contributor"


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/metrics", "/log/checkpoint", "/log/vkeys"]
)
def test_what_needs_no_token_is_answered_without_one(server, path):
    with server.client() as client:
        assert client.get(path).status_code == 200


def test_metrics_need_an_auditor_where_the_operator_says_so(make_server):
    server = make_server(environment={"SECURE_CACHE_METRICS__PUBLIC": "false"}).start()
    for token, status in (
        (server.token(role="auditor"), 200),
        (server.token(branch="main"), 403),
        (None, 403),
    ):
        with server.client(token) as client:
            assert client.get("/metrics").status_code == status


def test_tiles_need_an_auditor(server, main, key):
    server.put(main, key, b"x")
    size, _ = server.checkpoint()
    partial = size % 256
    assert 0 < size < 256
    path = f"/log/tile/0/000.p/{partial}"
    for token, allowed in ((None, False), (main, False), (server.token(role="auditor"), True)):
        with server.client(token) as client:
            answer = client.get(path)
        assert (answer.status_code == 200) is allowed, answer.text
        if allowed:
            assert len(answer.content) == 32 * partial


def test_no_token_is_ever_written_to_the_log(server, main, pull_request, key):
    server.put(main, key, b"x")
    server.get(pull_request, key)
    logs = server.logs()
    for token in (main, pull_request):
        assert token not in logs
        assert token.split(".")[2] not in logs
