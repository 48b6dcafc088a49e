"""How this log's witnesses are reached: HTTP with bounds, and a signature on all that counts.

The URLs are the operator's, from the witness policy. What a witness says is trusted for nothing
but its signatures, so plain http is allowed. No redirects, no proxies from the environment.
"""

from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Protocol, Self

import httpx

from secure_cache.model.errors import Misconfigured, Unavailable
from secure_cache.tlog.witness_wire import ADD_CHECKPOINT, MAX_ANSWER_BYTES

_USER_AGENT = "secure-cache"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a witness said, none of it verified."""

    status: int
    body: bytes


class AsksWitnesses(Protocol):
    """Carries requests to witnesses."""

    async def submit(self, url: str, body: bytes) -> Answer:
        """`POST <url>/add-checkpoint`. Raises: Unavailable."""
        ...

    async def shown(self, url: str, path: str) -> Answer:
        """`GET <url>/<path>`. Raises: Unavailable."""
        ...


def check_witness_url(url: str) -> str:
    """A submission prefix, without its last slash.

    Raises:
        Misconfigured: not http or https with a host, or with anything beside a path.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        raise Misconfigured(f"{url!r} is not the URL of a witness") from None
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise Misconfigured(f"the URL of a witness begins with https://, not {url!r}")
    if parsed.userinfo or parsed.fragment or parsed.query:
        raise Misconfigured(f"the URL of a witness is a host and a path, not {url!r}")
    return url.rstrip("/")


class HttpWitnesses:
    """`AsksWitnesses` over connections that stay open. An asynchronous context manager.

    Args:
        timeout_seconds: for each step of a request; whoever asks bounds the whole.
    """

    def __init__(self, *, timeout_seconds: float) -> None:
        self._timeout = timeout_seconds
        self._client: httpx.AsyncClient | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._client = await self._stack.enter_async_context(
            httpx.AsyncClient(
                timeout=self._timeout,
                trust_env=False,
                follow_redirects=False,
                headers={"User-Agent": _USER_AGENT, "Accept-Encoding": "identity"},
            )
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._client = None
        await self._stack.aclose()

    async def submit(self, url: str, body: bytes) -> Answer:
        return await self._send("POST", f"{url}/{ADD_CHECKPOINT}", body)

    async def shown(self, url: str, path: str) -> Answer:
        return await self._send("GET", f"{url}/{path}", None)

    async def _send(self, method: str, url: str, body: bytes | None) -> Answer:
        if self._client is None:
            raise Unavailable("the witnesses are not asked yet")
        headers = {"Content-Type": "text/plain; charset=utf-8"} if body is not None else {}
        try:
            async with self._client.stream(method, url, content=body, headers=headers) as response:
                data = bytearray()
                async for block in response.aiter_raw():
                    data += block
                    if len(data) > MAX_ANSWER_BYTES:
                        raise Unavailable("the witness's answer is too large")
                return Answer(response.status_code, bytes(data))
        except httpx.HTTPError as error:
            raise Unavailable(f"{type(error).__name__}: {error}".rstrip(": ")) from None
        except (OSError, UnicodeError) as error:
            raise Unavailable(f"the witness was not reached: {error}") from None
