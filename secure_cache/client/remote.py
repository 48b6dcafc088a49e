"""A server's API: the token exchange, and what a token may do."""

import ipaddress
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import httpx

from secure_cache.client.ci_token import clean_token
from secure_cache.client.http_answer import MAX_ANSWER_BYTES, read_answer
from secure_cache.model.errors import (
    Denied,
    ExpiredToken,
    InvalidToken,
    Malformed,
    Misconfigured,
    Overloaded,
    ReplayedToken,
    Revoked,
    SecureCacheError,
    TooLarge,
    Unavailable,
)
from secure_cache.model.strict_json import JsonValue, load_strict_object

_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
BUSY = frozenset({429, 502, 503, 504})
"""Statuses of a server, or of what stands before it, that cannot now and soon can."""

BUSY_WAITS_SECONDS = (0.5, 1.0, 2.0)
_JWT = "urn:ietf:params:oauth:token-type:jwt"
_BY_CODE: dict[str, type[SecureCacheError]] = {
    kind.code: kind
    for kind in (
        Denied,
        ExpiredToken,
        InvalidToken,
        Malformed,
        Overloaded,
        ReplayedToken,
        Revoked,
        TooLarge,
    )
}


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where a server is: a URL with host and perhaps a path, without a slash at the end."""

    url: str

    @classmethod
    def parse(cls, text: str, *, insecure: bool = False) -> "ServerAddress":
        """Check what a user gave.

        Args:
            text: such as `https://cache.example.com`.
            insecure: allow plain http also to other machines.

        Raises:
            Malformed: not such a URL, or a token would cross a network in plain text.
        """
        try:
            url = httpx.URL(text)
        except httpx.InvalidURL:
            url = httpx.URL("")
        odd = url.query or url.fragment or url.userinfo or not url.host
        if url.scheme not in ("http", "https") or odd:
            raise Malformed(
                f"--server {text!r} is not a server's address: give it like"
                " https://cache.example.com"
            )
        if url.scheme == "http" and not insecure and not _is_loopback(url.host):
            raise Malformed(
                f"--server {text!r} would send a token over the network in plain text:"
                " use https, or --insecure-http if that network is yours alone"
            )
        return cls(str(url).rstrip("/"))

    @property
    def audience(self) -> str:
        """What a server at this address expects by default in `aud`."""
        return self.url


@dataclass(frozen=True, slots=True)
class SessionToken:
    """A secret, and how many seconds it lives."""

    token: str
    expires_in: int


def exchange(
    server: ServerAddress, token: str, *, client: Callable[[], httpx.Client]
) -> SessionToken:
    """`POST /v1/token` (RFC 8693): the CI's token in, a session token out.

    Raises:
        Refused: the server's reason, by its class.
        Unavailable: no answer.
        Misconfigured: there is no secure-cache at this address.
    """
    form = {"grant_type": _EXCHANGE, "subject_token_type": _JWT, "subject_token": token}
    with client() as http:
        answer = ask(http, http.build_request("POST", f"{server.url}/v1/token", data=form))
    session, expires_in = answer.get("access_token"), answer.get("expires_in")
    if not isinstance(session, str) or not isinstance(expires_in, int):
        raise _not_ours(server.url)
    return SessionToken(clean_token(session, where="the server's answer"), expires_in)


def whoami(
    server: ServerAddress, token: str, *, client: Callable[[], httpx.Client]
) -> dict[str, JsonValue]:
    """`GET /v1/whoami`: what the server says of a token. Raises as `exchange`."""
    headers = {"Authorization": f"Bearer {token}"}
    with client() as http:
        return ask(http, http.build_request("GET", f"{server.url}/v1/whoami", headers=headers))


def ask(
    http: httpx.Client,
    request: httpx.Request,
    *,
    errors: Mapping[str, type[SecureCacheError]] = MappingProxyType({}),
    max_bytes: int = MAX_ANSWER_BYTES,
    waits: Sequence[float] = (),
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """One question to the server; its answer is a JSON object.

    Args:
        http: sends it.
        request: the question.
        errors: by their codes, what it may be refused with besides the usual.
        max_bytes: a longer answer is none.
        waits: seconds before each further try, when the server says that it is busy. For questions
            that change nothing: whoever says so may have done what was asked all the same.
        sleep: waits.

    Raises:
        Unavailable: no answer; Misconfigured: not one of a secure-cache; or what it was refused
            with.
    """
    where = str(request.url.copy_with(query=None))
    status, body = read_answer(http, request, max_bytes=max_bytes)
    for seconds in waits:
        if status not in BUSY:
            break
        sleep(seconds)
        status, body = read_answer(http, request, max_bytes=max_bytes)
    try:
        answer = load_strict_object(body, max_bytes=len(body) + 1)
    except ValueError:
        answer = {}
    if status == 200 and answer:
        return answer
    code, title = answer.get("code"), answer.get("title")
    known = {**_BY_CODE, **errors}
    if isinstance(code, str) and code in known:
        said = title.removeprefix("secure-cache: ") if isinstance(title, str) else code
        raise known[code](f"{where}: {said}")
    if status >= 500 or status == 429:
        raise Unavailable(f"{where} answered {status}: try again later")
    raise _not_ours(where, status)


def _not_ours(where: str, status: int = 200) -> Misconfigured:
    return Misconfigured(
        f"{where} answered {status}, not as a secure-cache server does: check --server"
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
