"""The token that a CI gives its jobs (OIDC), wherever the provider puts it."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx

from secure_cache.client.http_answer import read_answer
from secure_cache.model.errors import InvalidToken, Malformed, Misconfigured, Unavailable
from secure_cache.model.strict_json import load_strict_object

SOURCES = "auto, github, gitlab, env:NAME or file:PATH"
ID_TOKEN_VARIABLE = "SECURE_CACHE_ID_TOKEN"  # noqa: S105 - a variable's name

_GITHUB_URL = "ACTIONS_ID_TOKEN_REQUEST_URL"
_GITHUB_TOKEN = "ACTIONS_ID_TOKEN_REQUEST_TOKEN"  # noqa: S105 - a variable's name
_MAX_TOKEN_BYTES = 16_384
_JWT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


def clean_token(text: str, *, where: str) -> str:
    """A token without the white space around it.

    Raises:
        InvalidToken: not a JWT in compact form; says where it came from, and nothing of it.
    """
    token = text.strip()
    if _JWT.fullmatch(token) is None:
        raise InvalidToken(
            f"{where} holds no JWT: it should be three parts of base64url with dots between"
        )
    return token


def ci_token(
    source: str, *, audience: str, environ: Mapping[str, str], client: Callable[[], httpx.Client]
) -> str:
    """The token of the job that this process is part of.

    Args:
        source: one of `SOURCES`.
        audience: what it should be made for, where the provider asks.
        environ: `os.environ` in the program.
        client: makes the HTTP client, for providers that are asked over HTTP.

    Raises:
        Misconfigured: this is no such job; says what the job's file lacks.
        InvalidToken: what was found is no token.
        Unavailable: the provider did not answer.
    """
    kind, colon, rest = source.partition(":")
    if kind == "env" and colon:
        return _from_variable(rest, environ)
    if kind == "file" and colon:
        return _from_file(Path(rest))
    if source == "auto":
        source = _detect(environ)
    if source == "gitlab":
        return _from_variable(ID_TOKEN_VARIABLE, environ)
    if source == "github":
        return _from_github(audience, environ, client)
    raise Malformed(f"--from {source!r} is not a source of tokens: use {SOURCES}")


def _detect(environ: Mapping[str, str]) -> str:
    if environ.get(ID_TOKEN_VARIABLE):
        return "gitlab"
    if environ.get("GITHUB_ACTIONS") == "true" or environ.get(_GITHUB_URL):
        return "github"
    if environ.get("GITLAB_CI") == "true":
        return "gitlab"
    raise Misconfigured(
        f"no token of a CI found here: neither {_GITHUB_URL} nor {ID_TOKEN_VARIABLE} is set;"
        f" set the latter, or say --from ({SOURCES})"
    )


def _from_variable(name: str, environ: Mapping[str, str]) -> str:
    value = environ.get(name, "")
    if not value:
        hint = ""
        if name == ID_TOKEN_VARIABLE:
            hint = (
                f"; in .gitlab-ci.yml give the job"
                f" `id_tokens: {{{name}: {{aud: <the server's audience>}}}}`"
            )
        raise Misconfigured(f"the environment variable {name} is not set or empty{hint}")
    return clean_token(value, where=f"the environment variable {name}")


def _from_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_TOKEN_BYTES + 1)
    except OSError as error:
        raise Misconfigured(f"{path}: {error.strerror}: give the token's file") from None
    if len(data) > _MAX_TOKEN_BYTES:
        raise InvalidToken(f"{path} is too large for a token")
    return clean_token(data.decode("ascii", "replace"), where=str(path))


def _from_github(
    audience: str, environ: Mapping[str, str], client: Callable[[], httpx.Client]
) -> str:
    url, bearer = environ.get(_GITHUB_URL), environ.get(_GITHUB_TOKEN)
    if not url or not bearer:
        raise Misconfigured(
            "GitHub gives this job no token: add `permissions: { id-token: write,"
            " contents: read }` to the job (pull requests from forks never get one)"
        )
    try:
        with client() as http:
            request = http.build_request(
                "GET",
                httpx.URL(url).copy_merge_params({"audience": audience}),
                headers={"Authorization": f"Bearer {bearer}", "Accept": "application/json"},
            )
            status, body = read_answer(http, request)
    except httpx.InvalidURL:
        raise Misconfigured(f"{_GITHUB_URL} is not a URL") from None
    if status != 200:
        raise Unavailable(f"GitHub answered {status} when asked for the job's token")
    try:
        value = load_strict_object(body, max_bytes=len(body) + 1).get("value")
    except ValueError as error:
        raise Unavailable(f"GitHub's answer is not JSON: {error}") from None
    return clean_token(value if isinstance(value, str) else "", where="GitHub's answer")
